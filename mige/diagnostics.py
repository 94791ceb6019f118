"""What a person needs to trust a score, a gradient, an embedding: numbers beside the gradient.

Everything takes (..., n, d) with leading dimensions of batches and gives one number per batch, on
the input's device, without waiting for it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mige.checks import check_samples
from mige.errors import InvalidInputError
from mige.scores import ScoreEstimator

_CONSTANT = 1e-4  # standard deviation in units of the largest feature's
_ROUNDED = 1e-6  # standard deviation in units of the feature's own largest value
_DEAD_SHARE = 0.99  # of the rows that are exactly 0
_EDGE = 0.01  # of a feature's range, at either end
_SATURATED_SHARE = 0.9  # of the rows that lie there


class SteinResiduals(NamedTuple):
    """How far a score is from the identities E[s] = 0 and E[s (z − m)ᵀ] = −I, without units."""

    mean: Float[Tensor, "*b"]
    linear: Float[Tensor, "*b"]


class FeatureHealth(NamedTuple):
    """How many features say nothing, or next to nothing."""

    num_constant: Float[Tensor, "*b"]
    num_dead: Float[Tensor, "*b"]
    num_saturated: Float[Tensor, "*b"]


class GradientAgreement(NamedTuple):
    """How much of a gradient is signal, from two independent halves of a batch."""

    cosine: Float[Tensor, "*b"]
    whole_batch: Float[Tensor, "*b"]


def stein_residuals(
    score: Float[Tensor, "*b n d"], samples: Float[Tensor, "*b n d"], *, target: float = -1.0
) -> SteinResiduals:
    """Residuals of the first two Stein identities, with each feature in units of its own σ.

    mean = rms_k |E[s_k] σ_k|, linear = ‖E[s̃ z̃ᵀ] − target · I‖_F / √d over the features that vary,
    with s̃ = s σ and z̃ = (z − m) / σ. At fresh samples even exact scores of a Gaussian leave about
    √(1/n) and √(d/n), from sampling alone; at the samples it was fitted to, `gaussian_residual`
    leaves 0. Larger than both: the score is biased.

    Args:
        score: at `samples`.
        samples: what the averages are over; of the distribution that the score is of.
        target: −1 for a score; 0 for a gradient of information, which an affine map of z leaves
            unchanged.
    """
    standard, spread = _standardise(samples)
    live = spread > 0
    unit_score = score * spread
    moments = unit_score.mT @ standard / samples.shape[-2]
    moments = moments - target * torch.diag_embed(live.squeeze(-2).to(samples))
    num_live = live.sum((-2, -1)).clamp(min=1)
    mean = unit_score.mean(-2).square().sum(-1)
    return SteinResiduals(
        (mean / num_live).sqrt(), (moments.square().sum((-2, -1)) / num_live).sqrt()
    )


def held_out_stein_residuals(
    estimator: ScoreEstimator, samples: Float[Tensor, "*b n d"], *, check: bool = True
) -> SteinResiduals:
    """`stein_residuals` of scores fitted to every other row, at the rows between; both ways.

    Args:
        estimator: what is judged, at half as many samples.
        samples: at least four rows, in an order that has no period of two.
        check: as in `ScoreEstimator.score`.

    Raises:
        InvalidInputError: there are fewer than four rows.
        NumericalError: as `ScoreEstimator.score`.
    """
    first, second = _halves("samples", samples)
    residuals = [
        stein_residuals(estimator.score(fitted, other, check=check), other)
        for fitted, other in ((first, second), (second, first))
    ]
    return SteinResiduals(*((a + b) / 2 for a, b in zip(*residuals, strict=True)))


def effective_sample_size(weights: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """(Σ w)² / Σ w²: as how many equal rows weighted ones count; 0 if all weights are 0.

    Args:
        weights: not negative, in any units.

    Source:
        Kish, Survey Sampling, 1965.
    """
    total = weights.square().sum(-1)
    return torch.where(total > 0, weights.sum(-1).square() / total, 0.0)


def effective_rank(samples: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b"]:
    """(tr C)² / tr C² of the covariance C: the number of directions that vary, between 1 and d.

    0 where nothing varies. It falls when an embedding collapses to few directions.
    """
    covariance = _covariance(samples)
    total = covariance.square().sum((-2, -1))
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.where(total > 0, trace.square() / total, 0.0)


def condition_number(samples: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b"]:
    """The largest over the smallest eigenvalue of the covariance; infinite if it is singular.

    From a singular value decomposition of the centred rows, which keeps twice the digits. The
    decomposition itself waits for a CUDA device: not for every step.
    """
    centred = samples - samples.mean(-2, keepdim=True)
    values = torch.linalg.svdvals(centred)
    largest, smallest = values[..., 0], values[..., -1]
    floor = torch.finfo(samples.dtype).eps * max(samples.shape[-2:]) * largest
    full_rank = (smallest > floor) & (samples.shape[-2] > samples.shape[-1])
    return torch.where(full_rank, (largest / smallest).square(), torch.inf)


def feature_health(samples: Float[Tensor, "*b n d"]) -> FeatureHealth:
    """Count constant, dead and saturated features.

    - constant: standard deviation ≤ 1e-4 of the largest feature's (as a constant is that passed
      batch normalisation, which blows its rounding noise up), or ≤ 1e-6 of its own magnitude;
    - dead: exactly 0 in at least 99 % of the rows (a ReLU that no longer opens), constant or not;
    - saturated: varies, and at least 90 % of the rows lie within 1 % of the range's ends (a tanh or
      sigmoid at its limits; a binary feature).
    """
    spread = samples.std(-2, correction=0)
    low, high = samples.amin(-2, keepdim=True), samples.amax(-2, keepdim=True)
    magnitude = samples.abs().amax(-2)
    constant = spread <= torch.maximum(
        _CONSTANT * spread.amax(-1, keepdim=True), _ROUNDED * magnitude
    )
    dead = (samples == 0).to(samples).mean(-2) >= _DEAD_SHARE
    margin = _EDGE * (high - low)
    at_edge = ((samples <= low + margin) | (samples >= high - margin)).to(samples).mean(-2)
    saturated = ~constant & ~dead & (at_edge >= _SATURATED_SHARE)
    return FeatureHealth(*(flags.sum(-1).to(samples) for flags in (constant, dead, saturated)))


def gradient_cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The cosine between two gradients of the same parameters; 0 if one of them vanishes.

    Args:
        a: one tensor per parameter.
        b: the same parameters, in the same order.

    Raises:
        InvalidInputError: numbers or shapes differ.
    """
    if not a or [t.shape for t in a] != [t.shape for t in b]:
        raise InvalidInputError(
            f"a has the shapes {[tuple(t.shape) for t in a]} and b {[tuple(t.shape) for t in b]}: "
            "give two gradients of the same parameters, at least one"
        )
    flat_a, flat_b = (torch.cat([t.reshape(-1) for t in tensors]) for tensors in (a, b))
    return _cosine(flat_a, flat_b)


def gradient_agreement(
    x: Float[Tensor, "*b n dx"],
    z: Float[Tensor, "*b n dz"],
    estimator: ScoreEstimator,
    *,
    check: bool = True,
) -> GradientAgreement:
    """The cosine between gradients of I(x; z) from two independent halves of a batch.

    Of G = E[g (x − m)ᵀ] / σ_x, what a change of the embedding that is linear in x would feel; the
    halves share no rows and no scores, so their agreement is signal, whatever biases they share.
    `whole_batch` = √(2c / (1 + c)) estimates the cosine of the whole batch's gradient with the one
    of endlessly many batches (0 for c ≤ 0). Below about .3, more rows or a bank will help more than
    more steps. Costs a quarter of a gradient of the whole batch.

    Args:
        x: rows paired with those of `z`.
        z: the embedding.
        estimator: estimates both halves' gradients.
        check: as in `ScoreEstimator.score`.

    Raises:
        InvalidInputError: there are fewer than four rows, or shapes do not fit.
        NumericalError: as `ScoreEstimator.score`.

    Source:
        The correction of a half's to the whole's reliability: Spearman 1910, Brown 1910.
    """
    gradients = []
    for half_x, half_z in zip(_halves("x", x), _halves("z", z), strict=True):
        gradient = estimator.information_gradient(half_x, half_z, check=check).z
        gradients.append((gradient.mT @ _standardise(half_x.to(gradient))[0]).flatten(-2))
    cosine = _cosine(*gradients)
    positive = cosine.clamp(min=0.0)
    return GradientAgreement(cosine, (2.0 * positive / (1.0 + positive)).sqrt())


def _standardise(
    samples: Float[Tensor, "*b n d"],
) -> tuple[Float[Tensor, "*b n d"], Float[Tensor, "*b 1 d"]]:
    """Centred columns over their root mean square, and that; zeros for a constant column."""
    constant = samples.amax(-2, keepdim=True) == samples.amin(-2, keepdim=True)
    # The mean of equal values may differ from them by rounding.
    centred = torch.where(constant, 0.0, samples - samples.mean(-2, keepdim=True))
    spread = centred.square().mean(-2, keepdim=True).sqrt()
    return centred / torch.where(constant, 1.0, spread), spread


def _covariance(samples: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b d d"]:
    centred = samples - samples.mean(-2, keepdim=True)
    return centred.mT @ centred / samples.shape[-2]


def _halves(name: str, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of even and of odd number, as many of each."""
    check_samples(name, samples)
    if samples.shape[-2] < 4:
        raise InvalidInputError(
            f"{name} has {samples.shape[-2]} rows: give at least 4, two for each half"
        )
    even = samples.shape[-2] // 2 * 2
    return samples[..., 0:even:2, :], samples[..., 1:even:2, :]


def _cosine(a: Float[Tensor, "*b k"], b: Float[Tensor, "*b k"]) -> Float[Tensor, "*b"]:
    norms = a.norm(dim=-1) * b.norm(dim=-1)
    return torch.where(norms > 0, (a * b).sum(-1) / norms, 0.0)
