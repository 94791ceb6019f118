"""From images to what an encoder sees: one function for training, evaluation and serving."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def standardize_images(
    images: Tensor, *, mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "n c h w"]:
    """(images − mean) / std per channel, in float32.

    Args:
        images: (n, C, H, W); uint8 in 0..255, or floating point in [0, 1].
        mean: of each channel, in units of [0, 1].
        std: of each channel, in the same units.
    """
    scaled = images.float() / 255.0 if images.dtype == torch.uint8 else images.float()
    centre = scaled.new_tensor(list(mean))[:, None, None]
    return (scaled - centre) / scaled.new_tensor(list(std))[:, None, None]
