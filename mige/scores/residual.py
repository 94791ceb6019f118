r"""The kernel residual of a whitened score, orthogonal in sample to {1, z}.

With whitened samples Z (n × d), Gram matrix K, Stein identities K s = B and the start s = −Z:

    R = B + K Z,   D = [1, Z],   P = I − D (DᵀD)⁻¹ Dᵀ,   s_r = P (P K P + λ I)⁻¹ P R.

Three ways to it, equal where they meet:

- *ridge*, one Cholesky factor of M = K + λ I and no projected matrix, because
  P (P K P + λ I)⁻¹ P = M⁻¹ − M⁻¹ D (Dᵀ M⁻¹ D)⁻¹ Dᵀ M⁻¹;
- *landmarks*, the Nyström form: only m test functions k(·, z_l), l a landmark. With
  K_mm = L Lᵀ and F = P K_nm L⁻ᵀ (n × m), s_r = F (FᵀF + λ I)⁻¹ L⁻¹ R_m; time O(n m (m + d));
- *cut-off*, the eigendecomposition of P K P with the leading eigenvalues inverted and no ridge.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mige.kernels import Kernel
from mige.linalg import cholesky, cholesky_ridged, eigh
from mige.scores.spectral import kept_eigenvalues
from mige.scores.whitening import LinearFunctions, orthonormalise, with_ones


class Residual(NamedTuple):
    """A fitted residual at the samples, and at the queries if there were any."""

    at_samples: Float[Tensor, "*b n d"]
    at_queries: Float[Tensor, "*b q d"] | None
    used: Float[Tensor, "*b"]  # 0 where linear functions span the kernel's: nothing is left to fit
    effective_rank: Float[Tensor, "*b"]


def ridge_residual(
    z: Float[Tensor, "*b n d"],
    gram: Float[Tensor, "*b n n"],
    kernel: Kernel,
    ridge: float,
    queries: Float[Tensor, "*b q d"] | None,
) -> Residual:
    """The residual with λ = ridge · mean diagonal of P K P. It writes into `gram`.

    At queries: the kernel ridge regression, with the same λ, of the values at the samples.
    Extensions that agree with those values were tried and are far worse elsewhere.
    """
    linear = LinearFunctions.of(z)
    moments = gram @ with_ones(z)
    right = moments[..., 1:] - kernel.grad_x_sum(z, z, gram, moments)
    rank = _effective_rank(gram)
    level = 1.0 - linear.share_of(moments)
    used = level > _rounding(z) / ridge
    shift = torch.where(used, ridge * level, 1.0)
    gram.diagonal(dim1=-2, dim2=-1).add_(shift[..., None])
    factor = cholesky_ridged(gram)
    mask = used[..., None, None]
    values = torch.where(mask, _constrained_solve(factor, linear, right), 0.0)
    at_queries = None
    if queries is not None:
        weights = _constrained_solve(factor, linear, values)
        at_samples = gram @ weights - shift[..., None, None] * weights
        at_queries = kernel.gram(queries, z) @ weights
        at_queries = torch.where(mask, _linear_part_off(at_queries, at_samples, linear, queries), 0)
    return Residual(values, at_queries, used.to(z), rank)


def cutoff_residual(
    z: Float[Tensor, "*b n d"],
    gram: Float[Tensor, "*b n n"],
    kernel: Kernel,
    explained: float,
    queries: Float[Tensor, "*b q d"] | None,
) -> Residual:
    """The residual by spectral cut-off of P K P; waits for the device, as eigenvalues do."""
    linear = LinearFunctions.of(z)
    moments = gram @ with_ones(z)
    right = linear.project_out(moments[..., 1:] - kernel.grad_x_sum(z, z, gram, moments))
    projected = linear.project_out(linear.project_out(gram).mT)
    used = projected.diagonal(dim1=-2, dim2=-1).mean(-1) > _rounding(z)
    mask = used[..., None, None]
    values, vectors = eigh(torch.where(mask, projected, torch.eye(z.shape[-2]).to(z)))
    inverse = torch.where(kept_eigenvalues(values, explained), 1.0 / values, 0.0)[..., None]
    inverse = torch.where(mask, inverse, 0.0)
    coefficients = inverse * (vectors.mT @ right)
    at_samples = linear.project_out(vectors @ coefficients)
    at_queries = None
    if queries is not None:
        weights = linear.project_out(vectors @ (inverse * coefficients))
        at_queries = kernel.gram(queries, z) @ weights
        at_queries = _linear_part_off(at_queries, gram @ weights, linear, queries)
    return Residual(at_samples, at_queries, used.to(z), _effective_rank(gram))


def landmark_residual(
    z: Float[Tensor, "*b n d"],
    landmarks: Float[Tensor, "*b m d"],
    kernel: Kernel,
    ridge: float,
    queries: Float[Tensor, "*b q d"] | None,
) -> Residual:
    """The Nyström form of `ridge_residual`, equal to it where every sample is a landmark."""
    linear = LinearFunctions.of(z)
    cross = kernel.gram(z, landmarks)  # (n, m)
    moments = cross.mT @ with_ones(z)
    right = moments[..., 1:] - kernel.grad_x_sum(z, landmarks, cross, moments)
    inner = kernel.gram(landmarks, landmarks)
    root = cholesky(inner).factor
    # K ≈ features featuresᵀ
    features = torch.linalg.solve_triangular(root, cross.mT, upper=False).mT
    level = 1.0 - (features.mT @ linear.basis).square().sum((-2, -1)) / z.shape[-2]
    used = level > _rounding(z) / ridge
    mask = used[..., None, None]
    features = linear.project_out(features)
    matrix = features.mT @ features
    matrix.diagonal(dim1=-2, dim2=-1).add_(torch.where(used, ridge * level, 1.0)[..., None])
    factor = cholesky_ridged(matrix)
    right = torch.linalg.solve_triangular(root, right, upper=False)
    values = torch.where(mask, features @ torch.cholesky_solve(right, factor), 0.0)
    at_queries = None
    if queries is not None:
        weights = torch.cholesky_solve(features.mT @ values, factor)
        weights = torch.linalg.solve_triangular(root.mT, weights, upper=True)
        at_queries = kernel.gram(queries, landmarks) @ weights
        at_queries = torch.where(
            mask, _linear_part_off(at_queries, cross @ weights, linear, queries), 0.0
        )
    return Residual(values, at_queries, used.to(z), _effective_rank(inner))


def _constrained_solve(
    factor: Float[Tensor, "*b n n"], linear: LinearFunctions, right: Float[Tensor, "*b n d"]
) -> Float[Tensor, "*b n d"]:
    """P (P K P + λ I)⁻¹ P · right from the Cholesky factor of K + λ I."""
    width = linear.basis.shape[-1]
    both = torch.cat([linear.basis, right], dim=-1)
    both = torch.linalg.solve_triangular(factor, both, upper=False)
    half_basis, _ = orthonormalise(both[..., :width])
    half_right = both[..., width:]
    half_right = half_right - half_basis @ (half_basis.mT @ half_right)
    solution = torch.linalg.solve_triangular(factor.mT, half_right, upper=True)
    return linear.project_out(solution)  # once more, against rounding


def _linear_part_off(
    at_queries: Float[Tensor, "*b q d"],
    at_samples: Float[Tensor, "*b n d"],
    linear: LinearFunctions,
    queries: Float[Tensor, "*b q d"],
) -> Float[Tensor, "*b q d"]:
    """Values at queries minus the linear fit at the samples: P acts on a query's row too."""
    return at_queries - with_ones(queries) @ linear.fit(at_samples)


def _effective_rank(gram: Float[Tensor, "*b n n"]) -> Float[Tensor, "*b"]:
    """(tr K)² / tr K² = n² / Σ k²: every kernel is 1 at distance zero."""
    rank: Tensor = gram.shape[-1] ** 2 / torch.linalg.vector_norm(gram, dim=(-2, -1)).square()
    return rank


def _rounding(z: Float[Tensor, "*b n d"]) -> float:
    """A level of the mean diagonal at which rounding of the Gram matrix takes over."""
    return 8.0 * math.sqrt(z.shape[-2]) * torch.finfo(z.dtype).eps
