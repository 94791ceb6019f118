"""Whitening of samples by their (shrunk) correlation matrix."""

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

    matrix: Float[Tensor, "*b d d"]  # L⁻¹ diag(1 / scale), lower triangular
    num_live: Float[Tensor, "*b"]  # features that are not constant
    shrinkage: Float[Tensor, "*b"]
    jitter: Float[Tensor, "*b"]  # added to the correlation matrix

    def apply(self, x: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
        """Whiten centred rows."""
        return x @ self.matrix.mT

    def pull_back(self, score: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
        """The score in the coordinates of x, from the score in those of z."""
        return score @ self.matrix

    def leading(self, dim: int, num_live: Float[Tensor, "*b"]) -> "Whitening":
        """The whitening of the first `dim` features: exactly, where nothing was shrunk.

        The matrix is lower triangular, so these coordinates do not depend on the features after
        them, and whitened rows agree in their first `dim` columns.
        """
        return self._replace(matrix=self.matrix[..., :dim, :dim], num_live=num_live)


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
    num_live = live.sum((-2, -1)).to(samples)
    shrinkage = shrinkage_of(num_samples, num_live)
    correlation = (1.0 - shrinkage)[..., None, None] * correlation
    # A constant feature gets its own unit variance: it neither takes part nor breaks the factor.
    unit = torch.where(live.squeeze(-2), shrinkage[..., None], 1.0)
    factor, jitter = cholesky(correlation + torch.diag_embed(unit))
    return Whitening(inverse_factor(factor) / scale, num_live, shrinkage, jitter)


class LinearFunctions(NamedTuple):
    """The span of {1, z} at whitened samples, and projections on it.

    A direction in which collinear features do not vary is rounding noise, of a length far below
    one: like a constant feature it takes no part, with a zero column.
    """

    basis: Float[Tensor, "*b n e"]  # orthonormal, or zero columns
    coordinates: Float[Tensor, "*b e e"]  # basis = [1, z] · coordinates

    @classmethod
    def of(cls, z: Float[Tensor, "*b n d"]) -> "LinearFunctions":
        """The linear functions of whitened samples."""
        varies = z.square().mean(-2, keepdim=True) > torch.finfo(z.dtype).eps ** 0.5
        return cls(*orthonormalise(with_ones(torch.where(varies, z, 0.0))))

    def project_out(self, values: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
        """P · values: what a linear fit leaves."""
        return values - self.basis @ (self.basis.mT @ values)

    def fit(self, values: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b e d"]:
        """Coefficients of that fit on [1, z]."""
        return self.coordinates @ (self.basis.mT @ values)

    def share_of(self, moments: Float[Tensor, "*b n e"]) -> Float[Tensor, "*b"]:
        """tr((I − P) K) / n from `moments` = K · [1, z]."""
        trace: Tensor = (self.basis * (moments @ self.coordinates)).sum((-2, -1))
        return trace / self.basis.shape[-2]


def with_ones(z: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n e"]:
    """[1, z]."""
    return torch.cat([torch.ones_like(z[..., :1]), z], dim=-1)


def orthonormalise(
    columns: Float[Tensor, "*b n e"],
) -> tuple[Float[Tensor, "*b n e"], Float[Tensor, "*b e e"]]:
    """An orthonormal basis of the columns' span, and A with basis = columns · A.

    By Cholesky QR, for columns that are far from dependent; zero columns stay zero.
    """
    gram = columns.mT @ columns
    empty = (gram.diagonal(dim1=-2, dim2=-1) == 0).to(gram)
    factor = cholesky(gram + torch.diag_embed(empty)).factor
    coordinates = inverse_factor(factor).mT
    return columns @ coordinates, coordinates


def inverse_factor(factor: Float[Tensor, "*b d d"]) -> Float[Tensor, "*b d d"]:
    """The inverse of a small lower triangular factor: products with it beat solves."""
    identity = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity.expand_as(factor), upper=False)
    return inverse
