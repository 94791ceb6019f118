r"""The kernel residual of a whitened score, orthogonal in sample to {1, z}.

With whitened samples Z (n × d), Gram matrix K, Stein identities K s = B and the start s = −Z:

    R = B + K Z,   Q an orthonormal basis of {1, Z},   P = I − Q Qᵀ,   s_r = P (P K P + λ I)⁻¹ P R.

Three ways to it, equal where they meet:

- *ridge*, one Cholesky factor of M = K + λ I and no projected matrix, because
  P (P K P + λ I)⁻¹ P = M⁻¹ − M⁻¹ Q (Qᵀ M⁻¹ Q)⁻¹ Qᵀ M⁻¹;
- *landmarks*, the Nyström form: only m test functions k(·, z_l), l a landmark. With
  K_mm = L Lᵀ and F = P K_nm L⁻ᵀ (n × m), s_r = F (FᵀF + λ I)⁻¹ L⁻¹ R_m; time O(n m (m + d));
- *cut-off*, the eigendecomposition of P K P with the leading eigenvalues inverted and no ridge.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mige.kernels import Kernel
from mige.linalg import cholesky, cholesky_ridged, eigh
from mige.scores.spectral import kept_eigenvalues
from mige.scores.whitening import gram_factor, linear_design, orthonormal_basis


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
    """The residual with λ = ridge · mean diagonal of P K P.

    At queries: the kernel ridge regression, with the same λ, of the values at the samples.
    Extensions that agree with those values were tried and are far worse elsewhere.
    """
    basis = orthonormal_basis(linear_design(z))
    right = gram @ z - kernel.grad_x_sum(z, z, gram)
    rank = _effective_rank(gram)
    level = 1.0 - (basis * (gram @ basis)).sum((-2, -1)) / z.shape[-2]
    used = level > _rounding(z) / ridge
    shift = torch.where(used, ridge * level, 1.0)
    matrix = gram.clone()
    matrix.diagonal(dim1=-2, dim2=-1).add_(shift[..., None])
    factor = cholesky_ridged(matrix)
    mask = used[..., None, None]
    values = torch.where(mask, _constrained_solve(factor, basis, right), 0.0)
    at_queries = None
    if queries is not None:
        weights = _constrained_solve(factor, basis, values)
        at_queries = torch.where(mask, _extend(z, gram, kernel, weights, queries), 0.0)
    return Residual(values, at_queries, used.to(z), rank)


def cutoff_residual(
    z: Float[Tensor, "*b n d"],
    gram: Float[Tensor, "*b n n"],
    kernel: Kernel,
    explained: float,
    queries: Float[Tensor, "*b q d"] | None,
) -> Residual:
    """The residual by spectral cut-off of P K P; waits for the device, as eigenvalues do."""
    basis = orthonormal_basis(linear_design(z))
    right = _project(gram @ z - kernel.grad_x_sum(z, z, gram), basis)
    product = _project(gram, basis)
    projected = product - (product @ basis) @ basis.mT
    level = projected.diagonal(dim1=-2, dim2=-1).mean(-1)
    used = level > _rounding(z)
    mask = used[..., None, None]
    values, vectors = eigh(torch.where(mask, projected, torch.eye(z.shape[-2]).to(z)))
    inverse = torch.where(kept_eigenvalues(values, explained), 1.0 / values, 0.0)[..., None]
    inverse = torch.where(mask, inverse, 0.0)
    coefficients = inverse * (vectors.mT @ right)
    at_samples = _project(vectors @ coefficients, basis)
    at_queries = None
    if queries is not None:
        weights = _project(vectors @ (inverse * coefficients), basis)
        at_queries = _extend(z, gram, kernel, weights, queries)
    return Residual(at_samples, at_queries, used.to(z), _effective_rank(gram))


def landmark_residual(
    z: Float[Tensor, "*b n d"],
    landmarks: Float[Tensor, "*b m d"],
    kernel: Kernel,
    ridge: float,
    queries: Float[Tensor, "*b q d"] | None,
) -> Residual:
    """The Nyström form of `ridge_residual`, equal to it where every sample is a landmark."""
    basis = orthonormal_basis(linear_design(z))
    cross = kernel.gram(z, landmarks)  # (n, m)
    right = cross.mT @ z - kernel.grad_x_sum(z, landmarks, cross)
    inner = kernel.gram(landmarks, landmarks)
    root = cholesky(inner).factor
    # K ≈ features featuresᵀ
    features = torch.linalg.solve_triangular(root, cross.mT, upper=False).mT
    level = 1.0 - (features.mT @ basis).square().sum((-2, -1)) / z.shape[-2]
    used = level > _rounding(z) / ridge
    mask = used[..., None, None]
    features = _project(features, basis)
    matrix = features.mT @ features
    matrix.diagonal(dim1=-2, dim2=-1).add_(torch.where(used, ridge * level, 1.0)[..., None])
    factor = cholesky_ridged(matrix)
    right = torch.linalg.solve_triangular(root, right, upper=False)
    values = torch.where(mask, features @ torch.cholesky_solve(right, factor), 0.0)
    at_queries = None
    if queries is not None:
        weights = torch.cholesky_solve(features.mT @ values, factor)
        weights = torch.linalg.solve_triangular(root.mT, weights, upper=True)
        at_queries = torch.where(
            mask, _extend(z, cross, kernel, weights, queries, centres=landmarks), 0.0
        )
    return Residual(values, at_queries, used.to(z), _effective_rank(inner))


def _constrained_solve(
    factor: Float[Tensor, "*b n n"],
    basis: Float[Tensor, "*b n e"],
    right: Float[Tensor, "*b n d"],
) -> Float[Tensor, "*b n d"]:
    """P (P K P + λ I)⁻¹ P · right from the Cholesky factor of K + λ I."""
    width = basis.shape[-1]
    both = torch.linalg.solve_triangular(factor, torch.cat([basis, right], dim=-1), upper=False)
    half_basis, half_right = both[..., :width], both[..., width:]
    multipliers = torch.cholesky_solve(half_basis.mT @ half_right, gram_factor(half_basis))
    solution = torch.linalg.solve_triangular(
        factor.mT, half_right - half_basis @ multipliers, upper=True
    )
    return _project(solution, basis)  # once more, against rounding


def _extend(
    z: Float[Tensor, "*b n d"],
    gram: Float[Tensor, "*b n m"],
    kernel: Kernel,
    weights: Float[Tensor, "*b m d"],
    queries: Float[Tensor, "*b q d"],
    centres: Float[Tensor, "*b m d"] | None = None,
) -> Float[Tensor, "*b q d"]:
    """K(q, centres) · weights minus its linear fit at the samples: P acts on a query's row too."""
    design = linear_design(z)
    linear = torch.cholesky_solve(design.mT @ (gram @ weights), gram_factor(design))
    scale = (queries.shape[-2] / z.shape[-2]) ** 0.5  # both designs carry 1/√rows
    query_gram = kernel.gram(queries, z if centres is None else centres)
    return query_gram @ weights - scale * linear_design(queries) @ linear


def _project(
    rows: Float[Tensor, "*b n d"], basis: Float[Tensor, "*b n e"]
) -> Float[Tensor, "*b n d"]:
    """P · rows."""
    projected: Tensor = rows - basis @ (basis.mT @ rows)
    return projected


def _effective_rank(gram: Float[Tensor, "*b n n"]) -> Float[Tensor, "*b"]:
    """(tr K)² / tr K² = n² / Σ k²: every kernel is 1 at distance zero."""
    rank: Tensor = gram.shape[-1] ** 2 / torch.linalg.vector_norm(gram, dim=(-2, -1)).square()
    return rank


def _rounding(z: Float[Tensor, "*b n d"]) -> float:
    """A level of the mean diagonal at which rounding of the Gram matrix takes over."""
    return 4.0 * z.shape[-2] * torch.finfo(z.dtype).eps
