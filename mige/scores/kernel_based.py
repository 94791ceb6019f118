"""What the classical kernel estimators share: a kernel, its bandwidth, and how it is chosen."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mige.checks import check_positive
from mige.kernels import (
    BANDWIDTH_RULES,
    CURL_FREE_KERNELS,
    KERNELS,
    Bandwidth,
    CurlFreeOperator,
    DiagonalOperator,
    Kernel,
    KernelOperator,
    check_bandwidth,
    check_kernel,
    choose_bandwidth,
    squared_distances,
)
from mige.linalg import cholesky_ridged
from mige.scores.base import ScoreEstimate, ScoreEstimator

_TRIED_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # by the automatic rule, times `bandwidth_scale`


class Solution(NamedTuple):
    """A score, and what the method reports of itself."""

    score: Float[Tensor, "*b n d"]
    diagnostics: Mapping[str, Float[Tensor, "*b"]] = MappingProxyType({})

    def estimate(self, bandwidth: Bandwidth, operator: KernelOperator) -> ScoreEstimate:
        """Together with what every estimator with a kernel reports."""
        common = {
            "bandwidth": bandwidth.value,
            "bandwidth_fell_back": bandwidth.fell_back.to(bandwidth.value),
            "effective_rank": operator.effective_rank(),
        }
        return ScoreEstimate(self.score, {**common, **self.diagnostics})


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelScoreEstimator(ScoreEstimator):
    r"""Solves the kernel Stein identities Γ s = −ζ at the samples by some filter of Γ.

    For a kernel Γ (k I for a scalar one) and n samples, integration by parts gives, for every x,

        E[Γ(x, x′) s(x′)] = −E[div Γ(x′, x)],   the divergence taken in x′.

    With sums over samples for the expectations: Γ s = −ζ, ζ_i = Σ_j div Γ(x_j, x_i). An estimator
    of this family inverts Γ, whose small eigenvalues are noise, in a regularised way.

    Args:
        kernel: a name in `kernels`.
        kernel_options: of the kernel: {"alpha": 2.0} of a rational quadratic one.
        bandwidth: a number in units of the samples, "median" (the authors' rule), "mean" (σ² = the
            mean squared distance), or "per_dimension": every feature is divided by its standard
            deviation, then the median is taken (the score is that of the samples as they came), or
            "automatic": see below.
        bandwidth_scale: multiplies what a rule gives.

    "automatic" tries 1/4, 1/2, 1, 2 and 4 × `bandwidth_scale` × median in each batch and takes the
    one whose scores violate E_n[s zᵀ] = −I least, *in sample*; six times the work. Measured:
    relative L2 error of dI/dρ at n = 256, geometric mean over d = 8, 32 and six toys (Gaussian,
    ill-conditioned, cubed, asinh, rotated half-cube, bimodal), 10 seeds:

        estimator   fixed ¼ / ½ / 1 / 2 / 4 of the default     automatic
        stein       .272 / .102 / .077 / .092 / .143           .085
        spectral    .886 / .483 / .202 / .465 / 1.09           .211

    So it protects from a wrong scale and does not beat a tuned one. Other criteria chose worse: the
    same identities on held-out halves (stein .223), the held-out Hyvärinen loss (stein .137; 1
    seed: spectral .35), identities of quadratic, tanh and cubic functions as well (stein .12 to .16
    where the linear ones alone gave .09; 1 seed).

    Given queries, most of these estimators compute in float64 whatever comes in: what a weak
    regularisation divides there is a difference that float32 rounds away.

    Raises:
        InvalidInputError: an option is outside its range.

    Source:
        Zhou, Shi, Zhu, ICML 2020 (arXiv 2005.10099).
    """

    rules: ClassVar[tuple[str, ...]] = (*BANDWIDTH_RULES, "per_dimension", "automatic")
    extends_in_float64: ClassVar[bool] = True
    kernels: ClassVar[Mapping[str, Callable[..., object]]] = KERNELS

    kernel: str = "rbf"
    kernel_options: Mapping[str, float] = field(default_factory=dict)
    bandwidth: str | float = "median"
    bandwidth_scale: float = 1.0

    def __post_init__(self) -> None:
        check_kernel(self.kernel, self.kernel_options, kernels=self.kernels)
        check_bandwidth(self.bandwidth, rules=self.rules)
        check_positive("bandwidth_scale", self.bandwidth_scale)

    def minimum_samples(self, dim: int) -> int:  # noqa: ARG002  the kernel works at any width
        """Two: fewer have no spread."""
        return 2

    @abstractmethod
    def _solve(self, operator: DiagonalOperator, across: DiagonalOperator | None) -> Solution:
        """Solve for a scalar kernel.

        Args:
            operator: Γ between the samples.
            across: Γ between queries and samples; None asks for the score at the samples.
        """

    def _estimate(
        self, samples: Float[Tensor, "*b m d"], queries: Float[Tensor, "*b n d"] | None
    ) -> ScoreEstimate:
        if queries is not None and self.extends_in_float64 and samples.dtype != torch.float64:
            estimate = self._estimate(samples.double(), queries.double())
            numbers = {key: value.to(samples) for key, value in estimate.diagnostics.items()}
            return ScoreEstimate(estimate.score.to(samples), numbers)
        if self.bandwidth == "automatic":
            return self._estimate_automatically(samples, queries)
        if self.bandwidth == "per_dimension":
            spread = standard_deviation(samples)
            shrunk = None if queries is None else queries / spread
            estimate = self._estimate_by("median", self.bandwidth_scale, samples / spread, shrunk)
            return estimate._replace(score=estimate.score / spread)
        return self._estimate_by(self.bandwidth, self.bandwidth_scale, samples, queries)

    def _estimate_automatically(
        self, samples: Float[Tensor, "*b m d"], queries: Float[Tensor, "*b n d"] | None
    ) -> ScoreEstimate:
        """Take the scale under which the scores violate the linear Stein identities least."""
        scales = [multiple * self.bandwidth_scale for multiple in _TRIED_SCALES]
        candidates = (self._estimate_by("median", s, samples, None).score for s in scales)
        violations = torch.stack([linear_violation(samples, score) for score in candidates])
        best = samples.new_tensor(scales)[violations.argmin(0)]
        estimate = self._estimate_by("median", best, samples, queries)
        return estimate._replace(
            diagnostics={**estimate.diagnostics, "chosen_bandwidth_scale": best}
        )

    def _estimate_by(
        self,
        rule: str | float,
        scale: float | Float[Tensor, "*b"],
        samples: Float[Tensor, "*b m d"],
        queries: Float[Tensor, "*b n d"] | None,
    ) -> ScoreEstimate:
        """Estimate with a bandwidth by a rule that needs distances only."""
        squared = squared_distances(samples, samples)
        bandwidth = choose_bandwidth(rule, squared, scale=scale)
        return self._estimate_with(bandwidth, squared, samples, queries)

    def _estimate_with(
        self,
        bandwidth: Bandwidth,
        squared: Float[Tensor, "*b m m"],
        samples: Float[Tensor, "*b m d"],
        queries: Float[Tensor, "*b n d"] | None,
    ) -> ScoreEstimate:
        kernel = self._kernel(bandwidth)
        operator = DiagonalOperator(kernel, samples, samples, squared)
        across = None if queries is None else DiagonalOperator(kernel, queries, samples)
        return self._solve(operator, across).estimate(bandwidth, operator)

    def _kernel(self, bandwidth: Bandwidth) -> Kernel:
        return KERNELS[self.kernel](bandwidth.value, **self.kernel_options)


class CurlFreeScoreEstimator(KernelScoreEstimator):
    """A kernel estimator that also takes the vector-valued kernels of `CURL_FREE_KERNELS`."""

    kernels: ClassVar[Mapping[str, Callable[..., object]]] = {**KERNELS, **CURL_FREE_KERNELS}

    @abstractmethod
    def _solve_curl_free(
        self, operator: CurlFreeOperator, across: CurlFreeOperator | None
    ) -> Solution:
        """Solve for a curl-free kernel; otherwise as `_solve`."""

    def _estimate_with(
        self,
        bandwidth: Bandwidth,
        squared: Float[Tensor, "*b m m"],
        samples: Float[Tensor, "*b m d"],
        queries: Float[Tensor, "*b n d"] | None,
    ) -> ScoreEstimate:
        if self.kernel not in CURL_FREE_KERNELS:
            return super()._estimate_with(bandwidth, squared, samples, queries)
        kernel = CURL_FREE_KERNELS[self.kernel](bandwidth.value, **self.kernel_options)
        operator = CurlFreeOperator(kernel, samples, samples, squared)
        across = None if queries is None else CurlFreeOperator(kernel, queries, samples)
        return self._solve_curl_free(operator, across).estimate(bandwidth, operator)


def linear_violation(
    samples: Float[Tensor, "*b n d"], score: Float[Tensor, "*b n d"]
) -> Float[Tensor, "*b"]:
    """|E_n[s zᵀ] + I|², with z the centred samples in units of their standard deviations."""
    spread = standard_deviation(samples)
    moment = (score * spread).mT @ (samples / spread) / samples.shape[-2]
    return (moment + torch.eye(moment.shape[-1]).to(moment)).square().sum((-2, -1))


def resolvable_ridge(ridge: float, gram: Float[Tensor, "*b m n"]) -> float:
    """`ridge`, or 4 n eps if that is more: what rounding adds to a Gram matrix's eigenvalues.

    A smaller one could leave K + ridge · I without a Cholesky factor; 5e-4 at n = 1024 in float32.
    """
    return max(ridge, 4.0 * gram.shape[-1] * torch.finfo(gram.dtype).eps)


def ridged_factor(gram: Float[Tensor, "*b n n"], ridge: float) -> Float[Tensor, "*b n n"]:
    """The Cholesky factor of K + ridge · I."""
    ridged = gram.clone()
    ridged.diagonal(dim1=-2, dim2=-1).add_(ridge)
    return cholesky_ridged(ridged)


def standard_deviation(samples: Float[Tensor, "*b m d"]) -> Float[Tensor, "*b 1 d"]:
    """That of each feature of centred samples; 1 for a constant one."""
    # The largest value first, so that squares neither overflow nor vanish.
    largest = samples.abs().amax(-2, keepdim=True)
    varies = largest > 0
    largest = torch.where(varies, largest, 1.0)
    spread = (samples / largest).square().mean(-2, keepdim=True).sqrt()
    return torch.where(varies, largest * spread, 1.0)
