"""Squared distances without an (m, n, d) tensor."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def squared_distances(
    x: Float[Tensor, "*b m d"], y: Float[Tensor, "*b n d"]
) -> Float[Tensor, "*b m n"]:
    """Entry (i, j) is |x_i − y_j|², in squared units of `x`: one matrix product, O(mn) memory.

    |a − b|² = |a|² + |b|² − 2 a·b loses digits when points are close compared with their norms, so
    both sides are centred at the mean of `x` first, and what remains at rounding level is set to
    exactly zero: equal rows have distance 0, which the bandwidth rules rely on.

    The norms ride along as two more columns of the product, shrunk by the rounding level: then
    clamping at zero, in place, is all that is left to do. The error stays within twice that level.
    """
    centre = x.mean(-2, keepdim=True)
    x, y = x - centre, y - centre
    shrunk = 1.0 - (4.0 + math.sqrt(x.shape[-1])) * torch.finfo(x.dtype).eps
    norm_x, norm_y = (shrunk * p.square().sum(-1, keepdim=True) for p in (x, y))
    left = torch.cat([-2.0 * x, norm_x, torch.ones_like(norm_x)], dim=-1)
    right = torch.cat([y, torch.ones_like(norm_y), norm_y], dim=-1)
    return (left @ right.mT).clamp_(min=0.0)
