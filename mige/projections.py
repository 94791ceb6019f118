"""Random projections for wide inputs."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mige.checks import check_count


def gaussian_projection(
    dim_in: int, dim_out: int, *, generator: torch.Generator
) -> Float[Tensor, "dim_in dim_out"]:
    """A random matrix P with E|xP|² = |x|².

    I(xP; z) ≤ I(x; z), and for an isotropic Gaussian channel the gradient shrinks by exactly
    dim_out / dim_in, so a projection changes the scale of a gradient, not only its noise.

    Args:
        dim_in: width of the rows to project.
        dim_out: width afterwards.
        generator: the source of randomness; the matrix is a function of its state.

    Raises:
        InvalidInputError: a width is below 1.
    """
    check_count("dim_in", dim_in)
    check_count("dim_out", dim_out)
    return torch.randn(dim_in, dim_out, generator=generator) / math.sqrt(dim_out)
