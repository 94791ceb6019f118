"""Whitening of samples by their (shrunk) correlation matrix."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mige.linalg import cholesky

_SHRINK_BELOW = 2  # samples per dimension under which the covariance is shrunk
_SHRINKAGE = 0.05  # at as many samples as dimensions
_LARGEST_SHRINKAGE = 0.5


class Whitening(NamedTuple):
    """z = L⁻¹ (x / scale) for centred x, where L Lᵀ is the (shrunk) correlation matrix."""

    scale: Float[Tensor, "*b 1 d"]
    factor: Float[Tensor, "*b d d"]
    shrinkage: Float[Tensor, "*b"]
    jitter: Float[Tensor, "*b"]  # added to the correlation matrix

    def apply(self, x: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
        """Whiten centred rows."""
        z: Tensor = torch.linalg.solve_triangular(self.factor, (x / self.scale).mT, upper=False)
        return z.mT

    def pull_back(self, score: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
        """The score in the coordinates of x, from the score in those of z."""
        scaled: Tensor = torch.linalg.solve_triangular(self.factor.mT, score.mT, upper=True)
        return scaled.mT / self.scale

    def leading(self, dim: int) -> "Whitening":
        """The whitening of the first `dim` features: exactly, where nothing was shrunk.

        The factor is lower triangular, so these coordinates do not depend on the features after
        them, and whitened rows agree in their first `dim` columns.
        """
        return Whitening(
            self.scale[..., :dim], self.factor[..., :dim, :dim], self.shrinkage, self.jitter
        )


def shrinkage_of(num_samples: int, num_live: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """How much of C is replaced by the identity: .05 (d/n)³ ≤ .5 where n < 2d, else 0.

    Exact whitening amplifies noise as n approaches d; from 2 samples per dimension on it is best.
    General rules (Ledoit–Wolf, OAS) shrink far more and ruin the gradient of information: 62 to
    80 % error instead of 1 % at n = 256, d = 64.
    """
    amount = (_SHRINKAGE * (num_live / num_samples) ** 3).clamp(max=_LARGEST_SHRINKAGE)
    return torch.where(num_samples < _SHRINK_BELOW * num_live, amount, 0.0)


def never_shrunk(num_samples: int, dim: int) -> bool:
    """Whether samples of this shape are whitened exactly, however many features are constant."""
    return num_samples >= _SHRINK_BELOW * dim


def fit_whitening(samples: Float[Tensor, "*b n d"]) -> Whitening:
    """Whiten centred samples; a zero (constant) feature stays zero."""
    num_samples = samples.shape[-2]
    # The largest value first, so that squares neither overflow nor vanish.
    largest = samples.abs().amax(-2, keepdim=True)
    live = largest > 0
    largest = torch.where(live, largest, 1.0)
    spread = (samples / largest).square().mean(-2, keepdim=True).sqrt()
    scale = torch.where(live, largest * spread, 1.0)
    standard = samples / scale
    correlation = standard.mT @ standard / num_samples
    shrinkage = shrinkage_of(num_samples, live.sum((-2, -1)).to(samples))
    correlation = (1.0 - shrinkage)[..., None, None] * correlation
    # A constant feature gets its own unit variance: it neither takes part nor breaks the factor.
    unit = torch.where(live.squeeze(-2), shrinkage[..., None], 1.0)
    factor, jitter = cholesky(correlation + torch.diag_embed(unit))
    return Whitening(scale, factor, shrinkage, jitter)


def linear_design(z: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n e"]:
    """[1, z] / √n, whose columns are orthonormal where z is exactly white (or zero)."""
    return torch.cat([torch.ones_like(z[..., :1]), z], dim=-1) / math.sqrt(z.shape[-2])


def orthonormal_basis(design: Float[Tensor, "*b n e"]) -> Float[Tensor, "*b n e"]:
    """An orthonormal basis of the columns' span, with zero columns where the span has less.

    By Cholesky QR: exact whitening has made the columns nearly orthonormal already. A direction in
    which collinear features do not vary is rounding noise: its column is damped by the jitter, far
    below unit length, and left out.
    """
    basis: Tensor = torch.linalg.solve_triangular(gram_factor(design), design.mT, upper=False).mT
    kept = basis.square().sum(-2, keepdim=True) > 0.5
    return torch.where(kept, basis, 0.0)


def gram_factor(columns: Float[Tensor, "*b n e"]) -> Float[Tensor, "*b e e"]:
    """The Cholesky factor of columnsᵀ columns, with a one for each zero column."""
    gram = columns.mT @ columns
    empty = (gram.diagonal(dim1=-2, dim2=-1) == 0).to(gram)
    return cholesky(gram + torch.diag_embed(empty)).factor
