"""A Gaussian score plus a kernel residual: exact for linear functions, sharp for the rest."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mige.checks import check_choice, check_positive
from mige.kernels import KERNELS, Kernel, check_bandwidth, choose_bandwidth, squared_distances
from mige.linalg import check_finite, cholesky, eigh
from mige.scores.base import ScoreEstimate, ScoreEstimator

_SHRINK_BELOW = 2  # samples per dimension under which the covariance is shrunk
_SHRINKAGE = 0.05  # at as many samples as dimensions
_LARGEST_SHRINKAGE = 0.5
_FEWEST_FREE_SAMPLES = 16  # of n − 1 − d, for a residual worth fitting; also n / 16


class GaussianResidualEstimator(ScoreEstimator):
    r"""Whitens the samples, takes the Gaussian score there, and adds a kernel residual.

    With whitened samples Z (n × d), the Gaussian score is −Z. The residual solves the kernel Stein
    identities K s = B on functions that are orthogonal, in sample, to {1, z}:

        R = B + K Z,   P = I − Q Qᵀ,  Q an orthonormal basis of [1, Z],
        (P K P + λ I) s_r = P R,   λ = ridge · mean diagonal of P K P,   S = s_r − Z,

    pulled back to the samples' coordinates. So E_n[s] = 0 and E_n[s (z − m)ᵀ] = −I hold exactly
    while n ≥ 2d, and the estimate is affine-equivariant. With fewer samples the correlation matrix
    C is shrunk, (1 − a) C + a I with a = .05 (d/n)³ ≤ .5; with fewer than max(16, n/16) samples to
    spare (n − 1 − d) the residual is left out and the Gaussian score remains. One Cholesky
    factorisation of size n; time O(n³), memory O(n²).

    At queries the residual is the kernel ridge regression, with the same λ, of its values at the
    samples: smoother than those values, also at a query that equals a sample. Extensions that
    agree with them there were tried and are far worse elsewhere. A single score is noisy (relative
    error .5 to .8 on Gaussians at n = 256); what is accurate is averages, such as gradients.

    Measured (authors' toy, n = 256, relative L2 error of dI/dρ): 4.1 / 2.7 / 1.9 % at d = 8 / 16 /
    32, within 30 % of what exact scores give on the same samples.

    Diagnostics besides the common ones: `shrinkage`, `jitter` (added to the correlation matrix),
    `residual_used`; with the residual also `bandwidth` (whitened units), `bandwidth_fell_back`,
    `effective_rank`, `residual_share` (its share of the whitened score's square).

    Args:
        ridge: of the residual, relative to the mean diagonal of P K P.
        residual: False leaves the plain Gaussian score.
        kernel: a name in `KERNELS`.
        bandwidth: "median" or a fixed number in whitened units (of order √(2d)).
        bandwidth_scale: multiplies what the rule gives.

    Raises:
        InvalidInputError: an option is outside its range.

    Source:
        Derived for this project; the family of filters is in Zhou, Shi, Zhu, ICML 2020
        (arXiv 2005.10099).
    """

    def __init__(
        self,
        *,
        ridge: float = 0.1,
        residual: bool = True,
        kernel: str = "rbf",
        bandwidth: str | float = "median",
        bandwidth_scale: float = 1.0,
    ) -> None:
        self.ridge = check_positive("ridge", ridge)
        self.residual = residual
        self.kernel = check_choice("kernel", kernel, KERNELS.keys())
        self.bandwidth = check_bandwidth(bandwidth)
        self.bandwidth_scale = check_positive("bandwidth_scale", bandwidth_scale)

    def minimum_samples(self, dim: int) -> int:
        """Half the width: with fewer samples shrinkage saturates and most of C is invented."""
        return max(2, math.ceil(dim / 2))

    def _estimate(
        self, samples: Float[Tensor, "m d"], queries: Float[Tensor, "n d"] | None
    ) -> ScoreEstimate:
        whitening = fit_whitening(samples)
        z = whitening.apply(samples)
        targets = z if queries is None else whitening.apply(queries)
        fit = self._fit_residual(z, whitening)
        score, extra = -targets, dict[str, Tensor]()
        if fit is not None:
            residual = fit.values if queries is None else fit.at(targets)
            extra = {**fit.diagnostics, "residual_share": _share(residual, residual - targets)}
            score = residual - targets
        score = whitening.pull_back(score)
        check_finite("the score", score)
        diagnostics = {
            "shrinkage": samples.new_tensor(whitening.shrinkage),
            "jitter": samples.new_tensor(whitening.jitter),
            "residual_used": samples.new_tensor(float(fit is not None)),
        }
        return ScoreEstimate(score, {**diagnostics, **extra})

    def _fit_residual(self, z: Float[Tensor, "n d"], whitening: "Whitening") -> "Residual | None":
        """Fit the kernel residual, or None where there are too few samples or nothing is left."""
        n, dim = z.shape
        if not self.residual or n - 1 - dim < max(_FEWEST_FREE_SAMPLES, n / 16):
            return None
        squared = squared_distances(z, z)
        bandwidth = choose_bandwidth(self.bandwidth, squared, scale=self.bandwidth_scale)
        kernel = KERNELS[self.kernel](bandwidth.value)
        gram = kernel.gram_of(squared)
        basis = _orthonormal_basis(z, whitening)
        projected = _project_both_sides(gram, basis)
        level = float(projected.diagonal().mean())
        if level <= 100.0 * n * torch.finfo(z.dtype).eps:  # linear functions span the kernel's
            return None
        projected.diagonal().add_(self.ridge * level)
        right = gram @ z - kernel.grad_x_sum(z, z, gram)
        factor = cholesky("the projected Gram matrix", projected).factor
        values = _project(torch.cholesky_solve(_project(right, basis), factor), basis)
        diagnostics = {
            "bandwidth": bandwidth.value,
            "bandwidth_fell_back": bandwidth.fell_back.to(z),
            "effective_rank": gram.trace() ** 2 / (gram * gram).sum(),
        }
        return Residual(z, values, gram, basis, factor, kernel, diagnostics)


class Whitening(NamedTuple):
    """z = L⁻¹ (x / scale) for centred x, where L Lᵀ is the (shrunk) correlation matrix."""

    scale: Float[Tensor, " d"]
    factor: Float[Tensor, "d d"]
    shrinkage: float
    jitter: float

    def apply(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Whiten centred rows."""
        z: Tensor = torch.linalg.solve_triangular(self.factor, (x / self.scale).T, upper=False)
        return z.T

    def pull_back(self, score: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The score in the coordinates of x, from the score in those of z."""
        scaled: Tensor = torch.linalg.solve_triangular(self.factor.T, score.T, upper=True)
        return scaled.T / self.scale


class Residual(NamedTuple):
    """A fitted residual: its values at the samples and what extends it to queries."""

    z: Float[Tensor, "n d"]
    values: Float[Tensor, "n d"]
    gram: Float[Tensor, "n n"]
    basis: Float[Tensor, "n e"]
    factor: Float[Tensor, "n n"]  # Cholesky, of P K P + λ I
    kernel: Kernel
    diagnostics: dict[str, Tensor]

    def at(self, queries: Float[Tensor, "q d"]) -> Float[Tensor, "q d"]:
        """The residual at whitened queries: kernel ridge regression of the values on z."""
        weights = _project(torch.cholesky_solve(self.values, self.factor), self.basis)
        # P acts on a query's row of K as well: subtract the linear fit of K · weights on {1, z}.
        design = _with_ones(self.z)
        normal = cholesky("the design of the residual", design.T @ design).factor
        linear = torch.cholesky_solve(design.T @ (self.gram @ weights), normal)
        return self.kernel.gram(queries, self.z) @ weights - _with_ones(queries) @ linear


def fit_whitening(samples: Float[Tensor, "n d"]) -> Whitening:
    """Whiten centred samples without constant features, shrinking where they are few."""
    n, dim = samples.shape
    largest = samples.abs().amax(0)  # first, so that squares neither overflow nor vanish
    scale = largest * (samples / largest).square().mean(0).sqrt()
    standard = samples / scale
    correlation = standard.T @ standard / n
    shrinkage = 0.0
    if n < _SHRINK_BELOW * dim:
        shrinkage = min(_LARGEST_SHRINKAGE, _SHRINKAGE * (dim / n) ** 3)
        correlation = (1.0 - shrinkage) * correlation
        correlation.diagonal().add_(shrinkage)
    factor, jitter = cholesky("the correlation matrix", correlation)
    return Whitening(scale, factor, shrinkage, jitter)


def _with_ones(z: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
    return torch.cat([z.new_ones(len(z), 1), z], dim=1)


def _orthonormal_basis(z: Float[Tensor, "n d"], whitening: Whitening) -> Float[Tensor, "n e"]:
    """An orthonormal basis of the span of {1, z}; exact whitening has made one already."""
    columns = _with_ones(z) / math.sqrt(len(z))
    if whitening.shrinkage == 0.0 and whitening.jitter == 0.0:
        return columns
    values, vectors = eigh("the covariance of whitened samples", columns.T @ columns)
    # Directions in which collinear features do not vary are rounding noise, not part of the span.
    span = values > math.sqrt(torch.finfo(z.dtype).eps)
    return columns @ (vectors[:, span] / values[span].sqrt())


def _project(rows: Float[Tensor, "n d"], basis: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
    return rows - basis @ (basis.T @ rows)


def _project_both_sides(
    gram: Float[Tensor, "n n"], basis: Float[Tensor, "n e"]
) -> Float[Tensor, "n n"]:
    """P K P with P = I − Q Qᵀ, in two products of width e."""
    product = gram @ basis
    half = product - 0.5 * basis @ (basis.T @ product)
    cross = half @ basis.T
    return gram - cross - cross.T


def _share(part: Float[Tensor, "n d"], whole: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """|part|² / |whole|², or 0 where the whole vanishes."""
    total = whole.square().sum()
    return torch.where(total > 0, part.square().sum() / total, 0.0)
