"""The small convolutional encoder of Deep InfoMax."""

from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from mige.checks import check_count, check_counts
from mige.errors import InvalidInputError

_KERNEL, _STRIDE, _PADDING = 4, 2, 1


class DimConv(nn.Module):
    """Convolutions 4×4, stride 2, padding 1, each with batch-norm and ReLU; one hidden layer.

    For 32-pixel images with the widths of the paper: 64-128-256 channels at 16, 8 and 4 pixels,
    1024 hidden units, and a linear output; 28-pixel images end at 3 pixels. Every convolution
    halves the image (rounding down), so 2^(number of widths) pixels are needed.

    Args:
        input_shape: (C, H, W) of one image.
        out_dim: width of the embedding.
        channels: width of each convolution.
        hidden_dim: width of the fully connected layer.

    Raises:
        InvalidInputError: a width is not an integer of at least 1 or the images are too small.

    Source:
        Hjelm et al., ICLR 2019 (arXiv 1808.06670), the published code.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        out_dim: int,
        channels: Sequence[int] = (64, 128, 256),
        hidden_dim: int = 1024,
    ) -> None:
        super().__init__()
        widths = (check_counts("input_shape", input_shape)[0], *check_counts("channels", channels))
        check_count("hidden_dim", hidden_dim)
        layers: list[nn.Module] = []
        for dim_in, dim_out in pairwise(widths):
            # No bias: the batch-norm behind it takes the mean away.
            convolution = nn.Conv2d(dim_in, dim_out, _KERNEL, _STRIDE, _PADDING, bias=False)
            layers += [convolution, nn.BatchNorm2d(dim_out), nn.ReLU()]
        height, width = (size >> len(channels) for size in input_shape[1:])
        if height < 1 or width < 1:
            raise InvalidInputError(
                f"input_shape={tuple(input_shape)} with {len(channels)} convolutions: each halves "
                f"the image, so give images of at least {2 ** len(channels)} pixels a side or "
                "fewer channels"
            )
        layers += [
            nn.Flatten(),
            nn.Linear(widths[-1] * height * width, hidden_dim, bias=False),
            nn.BatchNorm1d(hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, check_count("out_dim", out_dim)),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out_dim"]:
        """Encode standardised images."""
        z: Tensor = self.layers(images)
        return z
