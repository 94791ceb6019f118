"""The Tikhonov estimator: ridge regression of the score in a space of functions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mige.checks import check_count, check_positive
from mige.errors import InvalidInputError
from mige.kernels import (
    CURL_FREE_KERNELS,
    CurlFreeOperator,
    DiagonalOperator,
    choose_bandwidth,
    squared_distances,
)
from mige.linalg import cholesky
from mige.scores.base import ScoreEstimate
from mige.scores.iterations import conjugate_gradients
from mige.scores.kernel_based import (
    CurlFreeScoreEstimator,
    Solution,
    resolvable_ridge,
    ridged_factor,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class TikhonovEstimator(CurlFreeScoreEstimator):
    r"""Minimises the error of the score plus λ times its squared norm in the kernel's space.

    With n samples and nλ = n · regularization · level (level = the diagonal of Γ(x, x)),

        at the samples   s = −(Γ + nλ I)⁻¹ ζ,
        elsewhere        s(q) = −(ζ(q) + Γ(q, X) s) / nλ,

    one function: at a query that equals a sample it is the score of that sample. Far from all
    samples it vanishes.

    Scalar kernels take one Cholesky factorisation: time O(n³ / 3), memory O(n²). Curl-free kernels
    take conjugate gradients, three products of n × n with n × d matrices a step, nothing larger;
    they stop after `iterations`, converged or not, and `solver_residual` says how far it
    is. Stopping early is a regularisation of its own.

    `landmarks` of the n samples, evenly spaced in their order, make it Nyström's method: the score
    is sought among Σ_j k(·, x_j) c_j over the landmarks only, time O(n m² + m³), memory O(nm), and
    the bandwidth's rule sees the landmarks only. Rows must come in random order. Scalar kernels.

    The defaults are of the same sweep as those of `stein`. There curl-free kernels of 2 to 4 ×
    median with 1e-6 gave .083 to .084 (rbf) and .083 to .115 (imq), `stein` .089.

    Measured (authors' toy, n = 256, relative L2 error of dI/dρ at d = 8 / 16 / 32, 8 seeds):
    3.4 / 3.2 / 5.7 %; with 64 landmarks 3.4 / 3.5 / 19.8; 3 seeds: 3.3 / 2.6 / 2.7 with
    curl_free_rbf, 3.8 / 3.1 / 4.1 with curl_free_imq.

    Diagnostics besides the common ones: `bandwidth` (units of the samples), `bandwidth_fell_back`,
    `effective_rank` (of the landmarks, where there are any); curl-free kernels `solver_residual`.

    Args:
        regularization: λ relative to the diagonal of Γ, above 0. At least 4 eps is used with scalar
            kernels, below which rounding rules.
        iterations: steps of the conjugate gradients; curl-free kernels only.
        landmarks: their number; None, or as many as samples, takes all.
        kernel: a name in `KERNELS` or `CURL_FREE_KERNELS`.
        kernel_options, bandwidth, bandwidth_scale: see `KernelScoreEstimator`.

    Raises:
        InvalidInputError: an option is outside its range.

    Source:
        Zhou, Shi, Zhu, ICML 2020 (arXiv 2005.10099).
    """

    bandwidth_scale: float = 3.0
    regularization: float = 3e-6
    iterations: int = 100
    landmarks: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("regularization", self.regularization)
        check_count("iterations", self.iterations)
        if self.landmarks is not None:
            check_count("landmarks", self.landmarks)
            if self.kernel in CURL_FREE_KERNELS:
                raise InvalidInputError(
                    f"landmarks={self.landmarks} with kernel={self.kernel!r}: landmarks need one "
                    "of the scalar kernels, or leave landmarks=None"
                )

    def _solve(self, operator: DiagonalOperator, across: DiagonalOperator | None) -> Solution:
        shift = resolvable_ridge(self.regularization * operator.x.shape[-2], operator.gram)
        score = -torch.cholesky_solve(operator.divergence(), ridged_factor(operator.gram, shift))
        if across is not None:
            score = -(across.divergence() + across.apply(score)) / shift
        return Solution(score)

    def _solve_curl_free(
        self, operator: CurlFreeOperator, across: CurlFreeOperator | None
    ) -> Solution:
        shift = self.regularization * operator.x.shape[-2] * operator.level
        solved = conjugate_gradients(operator, across, shift, steps=self.iterations)
        return Solution(solved.score, {"solver_residual": solved.residual})

    def _estimate_by(
        self,
        rule: str | float,
        scale: float | Float[Tensor, "*b"],
        samples: Float[Tensor, "*b m d"],
        queries: Float[Tensor, "*b n d"] | None,
    ) -> ScoreEstimate:
        num = samples.shape[-2]
        if self.landmarks is None or self.landmarks >= num:
            return super()._estimate_by(rule, scale, samples, queries)
        chosen = torch.arange(self.landmarks, device=samples.device) * num // self.landmarks
        marks = samples.index_select(-2, chosen)
        squared = squared_distances(marks, marks)
        bandwidth = choose_bandwidth(rule, squared, scale=scale)
        kernel = self._kernel(bandwidth)
        operator = DiagonalOperator(kernel, marks, marks, squared)
        among = DiagonalOperator(kernel, marks, samples)
        across = None if queries is None else DiagonalOperator(kernel, queries, marks)
        solution = Solution(self._solve_nystrom(operator, among, across))
        return solution.estimate(bandwidth, operator)

    def _solve_nystrom(
        self, operator: DiagonalOperator, among: DiagonalOperator, across: DiagonalOperator | None
    ) -> Float[Tensor, "*b n d"]:
        """The score in the span of the kernel at the landmarks.

        Args:
            operator: Γ between the landmarks.
            among: Γ between landmarks and samples.
            across: Γ between queries and landmarks; None asks for the score at the samples.
        """
        factor = cholesky(operator.gram).factor
        features: Tensor = torch.linalg.solve_triangular(factor, among.gram, upper=False)
        right: Tensor = torch.linalg.solve_triangular(factor, among.divergence(), upper=False)
        shift = resolvable_ridge(self.regularization * among.y.shape[-2], among.gram)
        weights = torch.cholesky_solve(right, ridged_factor(features @ features.mT, shift))
        if across is None:
            return -features.mT @ weights
        spread: Tensor = torch.linalg.solve_triangular(factor.mT, weights, upper=True)
        return -across.apply(spread)
