"""Squared distances without an (m, n, d) tensor."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def squared_distances(x: Float[Tensor, "m d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "m n"]:
    """Entry (i, j) is |x_i − y_j|², in squared units of `x`; O(mn) memory.

    |a − b|² = |a|² + |b|² − 2 a·b loses digits when points are close compared with their norms, so
    both sides are centred at the mean of `x` first, and what remains at rounding level is set to
    exactly zero: equal rows have distance 0, which the bandwidth rules rely on.
    """
    centre = x.mean(0)
    x, y = x - centre, y - centre
    norms = (x * x).sum(1)[:, None] + (y * y).sum(1)[None, :]
    squared = torch.addmm(norms, x, y.T, alpha=-2.0)
    rounding = (4.0 + math.sqrt(x.shape[1])) * torch.finfo(x.dtype).eps
    return torch.where(squared > rounding * norms, squared, 0.0)
