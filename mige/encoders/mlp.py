"""A multilayer perceptron on flattened images."""

import math
from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from mige.checks import check_count, check_counts


class MLP(nn.Module):
    """Flatten, then Linear-ReLU for each hidden width, then Linear.

    Args:
        input_shape: (C, H, W) of one image.
        out_dim: width of the embedding.
        hidden_dims: widths of the hidden layers; may be empty (a linear encoder).

    Raises:
        InvalidInputError: a width is not an integer of at least 1.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        out_dim: int,
        hidden_dims: Sequence[int] = (512, 512),
    ) -> None:
        super().__init__()
        widths = [math.prod(check_counts("input_shape", input_shape))]
        widths += check_counts("hidden_dims", hidden_dims)
        layers: list[nn.Module] = [nn.Flatten()]
        for dim_in, dim_out in pairwise(widths):
            layers += [nn.Linear(dim_in, dim_out), nn.ReLU()]
        layers.append(nn.Linear(widths[-1], check_count("out_dim", out_dim)))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n out_dim"]:
        """Encode standardised images."""
        z: Tensor = self.layers(images)
        return z
