"""A Gaussian score plus a kernel residual: exact for linear functions, sharp for the rest."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mige.checks import check_count, check_flag, check_fraction, check_positive
from mige.kernels import (
    KERNELS,
    check_bandwidth,
    check_kernel,
    choose_bandwidth,
    squared_distances,
)
from mige.regression import shear
from mige.scores.base import (
    InformationGradient,
    LiveSamples,
    ScoreEstimate,
    ScoreEstimator,
    both_diagnostics,
)
from mige.scores.residual import (
    Residual,
    cutoff_residual,
    landmark_residual,
    ridge_residual,
)
from mige.scores.whitening import Whitening, fit_whitening, never_shrunk
from mige.transport import transport_margins

_ENTROPY_LANDMARKS = 4  # times as many as for a single score
_FEWEST_FREE_SAMPLES = 16  # of n − 1 − d, for a residual worth fitting; also n / 16


class Smoothing(NamedTuple):
    """How much of the residual's detail is given up."""

    ridge: float
    landmarks: int | None


class GaussianResidualEstimator(ScoreEstimator):
    r"""Whitens the samples, takes the Gaussian score there, and adds a kernel residual.

    With whitened samples Z (n × d), the Gaussian score is −Z. The residual solves the kernel Stein
    identities K s = B on functions that are orthogonal, in sample, to {1, z}:

        R = B + K Z,   P = I − D (DᵀD)⁻¹ Dᵀ,  D = [1, Z],
        (P K P + λ I) s_r = P R,   λ = ridge · mean diagonal of P K P,   S = s_r − Z,

    pulled back to the samples' coordinates. So E_n[s] = 0 and E_n[s (z − m)ᵀ] = −I hold exactly
    while n ≥ 2d, and the estimate is affine-equivariant. With fewer samples the correlation matrix
    C is shrunk, (1 − a) C + a I with a = .05 (d/n)³ ≤ .5; with fewer than max(16, n/16) samples to
    spare (n − 1 − d) the residual is left out and the Gaussian score remains. One Cholesky
    factorisation of size n; time O(n³), memory O(n²); with landmarks O(n m (m + d)) and O(n m).

    An information gradient has two more steps, which change no information. The margins of x and z
    are mapped towards normal ones (`mige.transport`), so that skewed, bounded or heavy-tailed
    margins cost next to nothing; and what x predicts of z beyond the linear is taken out of z
    (`mige.regression`), so that non-linear dependence is seen at all. Both are gated: where nothing
    is significant, nothing happens. A score alone has neither.

    At queries the residual is the kernel ridge regression, with the same λ, of its values at the
    samples: smoother than those values, also at a query that equals a sample. Extensions that
    agree with them there were tried and are far worse elsewhere. A single score is noisy (relative
    error .35 / .49 / .28 on Gaussians at (n, d) = (200, 2), (200, 8), (1000, 8), and .41 / .56 /
    .27 at fresh points); what is accurate is averages, such as gradients.

    Measured (authors' toy, n = 256, relative L2 error of dI/dρ): 3.0 / 2.3 / 1.6 % at d = 8 / 16 /
    32, where exact scores give 3.2 / 2.3 / 1.7 on the same samples.

    Diagnostics besides the common ones: `shrinkage`, `jitter` (added to the correlation matrix),
    `residual_used`; of a pair also `joint_transported` (share of transport in the margins) and
    `joint_sheared` (features of x in use); with `residual` also `bandwidth` (whitened units),
    `bandwidth_fell_back`, `effective_rank`, `residual_share` (its share of the whitened score's
    square).

    Args:
        ridge: of the residual, relative to the mean diagonal of P K P. A single score, and the
            small difference of two that an information gradient is, suffer from noise: a strong
            ridge is best for both.
        entropy_ridge: the same for `entropy_score`, whose averages suffer from bias: a weak one.
            It also takes four times as many landmarks.
        explained: None, or a share in (0, 1]: solve by spectral cut-off of P K P instead of the
            ridge, as `spectral` does. Slower (it needs eigenvalues), not more accurate.
        residual: False leaves the plain Gaussian score.
        kernel: a name in `KERNELS`.
        kernel_options: of the kernel: {"alpha": 2.0} of a rational quadratic one.
        bandwidth: a rule in `BANDWIDTH_RULES`, or a fixed number in whitened units (of order
            √(2d)).
        bandwidth_scale: multiplies what the rule gives.
        landmarks: where there are more than 4 × this many samples, the residual takes the Nyström
            form with this many evenly spaced rows as landmarks; None: never. At n = 2048 256 of
            them take a tenth of the time (CPU) and cost a tenth of the accuracy where the residual
            matters (spirals: 57 for 52 % at d = 8), nothing elsewhere.
        transport: map the margins of x and z before an information gradient. It assumes that
            margins are smooth; columns that look normal, and columns with atoms, stay as they are.
        shear: take significant non-linear regressions of z on x out of z before an information
            gradient.

    Raises:
        InvalidInputError: an option is outside its range.

    Source:
        Derived for this project; the family of filters is in Zhou, Shi, Zhu, ICML 2020
        (arXiv 2005.10099).
    """

    def __init__(
        self,
        *,
        ridge: float = 1.0,
        entropy_ridge: float = 0.01,
        explained: float | None = None,
        residual: bool = True,
        kernel: str = "rbf",
        kernel_options: Mapping[str, float] = MappingProxyType({}),
        bandwidth: str | float = "mean",
        bandwidth_scale: float = 1.5,
        landmarks: int | None = 256,
        transport: bool = True,
        shear: bool = True,
    ) -> None:
        self.ridge = check_positive("ridge", ridge)
        self.entropy_ridge = check_positive("entropy_ridge", entropy_ridge)
        self.explained = None if explained is None else check_fraction("explained", explained)
        self.residual = check_flag("residual", residual)
        self.kernel, self.kernel_options = kernel, check_kernel(kernel, kernel_options)
        self.bandwidth = check_bandwidth(bandwidth)
        self.bandwidth_scale = check_positive("bandwidth_scale", bandwidth_scale)
        self.transport = check_flag("transport", transport)
        self.shear = check_flag("shear", shear)
        self.landmarks = None if landmarks is None else check_count("landmarks", landmarks)

    def minimum_samples(self, dim: int) -> int:
        """Half the width: with fewer samples shrinkage saturates and most of C is invented."""
        return max(2, math.ceil(dim / 2))

    def _estimate(
        self, samples: Float[Tensor, "*b m d"], queries: Float[Tensor, "*b n d"] | None
    ) -> ScoreEstimate:
        return self._estimate_with(self._smoothing(), samples, queries)

    def _entropy_score(self, samples: Float[Tensor, "*b m d"]) -> ScoreEstimate:
        return self._estimate_with(self._smoothing(for_entropy=True), samples, None)

    def _smoothing(self, *, for_entropy: bool = False) -> "Smoothing":
        """A strong one for single scores and their differences, a weak one for averages."""
        if not for_entropy:
            return Smoothing(self.ridge, self.landmarks)
        count = self.landmarks
        return Smoothing(self.entropy_ridge, None if count is None else _ENTROPY_LANDMARKS * count)

    def _estimate_with(
        self,
        smoothing: "Smoothing",
        samples: Float[Tensor, "*b m d"],
        queries: Float[Tensor, "*b n d"] | None,
    ) -> ScoreEstimate:
        whitening = fit_whitening(samples)
        z = whitening.apply(samples)
        targets = None if queries is None else whitening.apply(queries)
        white = self._white_score(z, targets, whitening.num_live, smoothing)
        return ScoreEstimate(
            whitening.pull_back(white.score), {**_of(whitening), **white.diagnostics}
        )

    def _information_gradient(
        self, x: Float[Tensor, "*b n dx"], z: Float[Tensor, "*b n dz"], *, wrt_x: bool
    ) -> InformationGradient:
        rows = torch.cat([z, x], dim=-1)
        live, width = LiveSamples.of(rows), z.shape[-1]
        rows = live.shift(rows)
        slopes = torch.ones_like(rows)
        diagnostics = {**live.diagnostics()}
        if self.transport:
            moved = transport_margins(rows)
            rows, slopes = moved.values - moved.values.mean(-2, keepdim=True), moved.slopes
            diagnostics["transported"] = moved.weights.mean(-1)
        z_rows, x_rows = rows[..., :width], rows[..., width:]
        marginal, joint = self._scores_of(z_rows, x_rows)
        gradient = joint.score - marginal.score
        if wrt_x:
            swapped = self._scores_of(x_rows, z_rows)
            gradient_x = swapped[1].score - swapped[0].score
            gradient = torch.cat([gradient, gradient_x], dim=-1)
        else:
            live, slopes = live.leading(width), slopes[..., :width]
        gradient = live.blank(slopes * gradient)
        live_z = live.leading(width)
        return InformationGradient(
            gradient[..., :width],
            gradient[..., width:] if wrt_x else None,
            both_diagnostics(
                {**live_z.diagnostics(), **marginal.diagnostics},
                {**diagnostics, **joint.diagnostics},
            ),
        )

    def _scores_of(
        self, z: Float[Tensor, "*b n dz"], x: Float[Tensor, "*b n dx"]
    ) -> tuple[ScoreEstimate, ScoreEstimate]:
        """The score of z, and the z block of the score of (x, z), for centred rows."""
        width, smoothing = z.shape[-1], self._smoothing()
        sheared = shear(z, x) if self.shear else None
        rows = torch.cat([z if sheared is None else sheared.values, x], dim=-1)
        whitening = fit_whitening(rows)
        white = whitening.apply(rows)
        if sheared is None and never_shrunk(*rows.shape[-2:]):
            whitening_z = whitening.leading(width, (z != 0).any(-2).sum(-1).to(z))
            white_z = white[..., :width]
        else:
            whitening_z = fit_whitening(z)
            white_z = whitening_z.apply(z)
        joint = self._white_score(white, None, whitening.num_live, smoothing)
        marginal = self._white_score(white_z, None, whitening_z.num_live, smoothing)
        joint_score = whitening.pull_back(joint.score)[..., :width]
        diagnostics = {**_of(whitening), **joint.diagnostics}
        if sheared is not None:
            joint_score = sheared.project_out(joint_score)
            diagnostics["sheared"] = (sheared.basis != 0).any(-2).sum(-1).to(z)
        return (
            ScoreEstimate(
                whitening_z.pull_back(marginal.score), {**_of(whitening_z), **marginal.diagnostics}
            ),
            ScoreEstimate(joint_score, diagnostics),
        )

    def _white_score(
        self,
        z: Float[Tensor, "*b n d"],
        targets: Float[Tensor, "*b q d"] | None,
        num_live: Float[Tensor, "*b"],
        smoothing: "Smoothing",
    ) -> ScoreEstimate:
        """The score in whitened coordinates, at `targets` or the samples."""
        points = z if targets is None else targets
        num_samples, dim = z.shape[-2:]
        # Constant features may make room for a residual, but hardly more than every other one.
        hopeless = num_samples - 1 - dim / 2 < _FEWEST_FREE_SAMPLES
        if hopeless or not self.residual:
            return ScoreEstimate(-points, {"residual_used": torch.zeros_like(z[..., 0, 0])})
        fit, diagnostics = self._fit(z, targets, smoothing)
        enough = num_samples - 1 - num_live >= max(_FEWEST_FREE_SAMPLES, num_samples / 16)
        part = fit.at_samples if fit.at_queries is None else fit.at_queries
        part = torch.where(enough[..., None, None], part, 0.0)
        score = part - points
        diagnostics["residual_used"] = fit.used * enough
        diagnostics["residual_share"] = _share(part, score)
        return ScoreEstimate(score, diagnostics)

    def _fit(
        self,
        z: Float[Tensor, "*b n d"],
        targets: Float[Tensor, "*b q d"] | None,
        smoothing: "Smoothing",
    ) -> tuple[Residual, dict[str, Float[Tensor, "*b"]]]:
        """The residual by the form that the options and the number of samples ask for."""
        count, num_samples = smoothing.landmarks, z.shape[-2]
        centres = z
        if count is not None and self.explained is None and num_samples > 4 * count:
            centres = z[..., _evenly_spaced(num_samples, count, z.device), :]
        squared = squared_distances(centres, centres)
        bandwidth = choose_bandwidth(self.bandwidth, squared, scale=self.bandwidth_scale)
        kernel = KERNELS[self.kernel](bandwidth.value, **self.kernel_options)
        if self.explained is not None:
            fit = cutoff_residual(z, kernel.gram_of(squared), kernel, self.explained, targets)
        elif centres is z:
            fit = ridge_residual(z, kernel.gram_of(squared), kernel, smoothing.ridge, targets)
        else:
            fit = landmark_residual(z, centres, kernel, smoothing.ridge, targets)
        return fit, {
            "bandwidth": bandwidth.value,
            "bandwidth_fell_back": bandwidth.fell_back.to(z),
            "effective_rank": fit.effective_rank,
        }


def _evenly_spaced(num_samples: int, count: int, device: torch.device) -> Int[Tensor, " m"]:
    """Row numbers: fixed for a shape, so that the same samples give the same score."""
    return torch.linspace(0, num_samples - 1, count, device=device).round().long()


def _of(whitening: Whitening) -> dict[str, Float[Tensor, "*b"]]:
    return {"shrinkage": whitening.shrinkage, "jitter": whitening.jitter}


def _share(part: Float[Tensor, "*b n d"], whole: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b"]:
    """|part|² / |whole|², or 0 where the whole vanishes."""
    total = whole.square().sum((-2, -1))
    return torch.where(total > 0, part.square().sum((-2, -1)) / total, 0.0)
