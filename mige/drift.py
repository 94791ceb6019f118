"""How the moments of past samples moved, and the samples as they would be now.

An encoder that trains moves its samples' mean, scale and dependence on the input. Each of these is
taken to follow a straight line over the samples' ages (the logarithm of the scale does); the slopes
are shrunk by the positive-part James-Stein rule,

    slope ← max(0, 1 − (1 + margin) / t²) · slope,   t² = mean of (slope / its standard error)²,

so where nothing drifts nothing is changed but for noise that the samples cannot tell from zero.
Matching to a small batch's own moments instead would carry that batch's noise into every sample.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mige.linalg import cholesky_ridged

_MARGIN_SDS = 2.0  # of the mean of t² where nothing drifts
_SCALE_STEPS = 12  # of Newton's method for the line of the log variance; each is at most 1 long
_FEWEST_ROWS = 8  # on each side, for a comparison of means and scales
_ROWS_PER_COEFFICIENT = 2  # for the line of the dependence
_RIDGE = 1e-4  # of its regression, on standardised features: only for those that are collinear


class MatchedRows(NamedTuple):
    """Samples with their drift removed, and how much of it there was."""

    rows: Float[Tensor, "n d"]
    diagnostics: Mapping[str, Float[Tensor, ""]]


DIAGNOSTICS = ("bank_mean_shift", "bank_scale_shift", "bank_dependence_shift", "bank_misfit")


def match_moments(
    rows: Float[Tensor, "n d"],
    ages: Int[Tensor, " n"],
    *,
    num_current: int,
    num_fixed: int = 0,
) -> MatchedRows:
    """Past samples as they would be drawn now; current ones and fixed features stay as they are.

    Mean, scale and, given fixed features x, the linear dependence of the others on x (z = A x + …,
    with A following a line) are moved to age 0. Diagnostics, each a root mean square in units of
    its own sampling error, so that about 1 means no drift and 0 nothing to compare:

    - `bank_mean_shift`, `bank_scale_shift`: past against current samples, before matching;
    - `bank_dependence_shift`: the slope of A (0 without fixed features or with too few rows);
    - `bank_misfit`: means and scales after the lines were removed. Above about 2, what drifts does
      not follow a line over so many steps: use fewer past samples or a lower learning rate.

    Args:
        rows: the current samples first, then past ones.
        ages: in training steps; 0 for the current samples, above 0 for past ones.
        num_current: how many samples are current; at least one, and at least one is past.
        num_fixed: how many leading features never drift, such as projected images.
    """
    # From the first row on, so that constant features are exactly 0 and not rounding noise.
    origin = rows[:1]
    fixed, moving = (rows - origin).tensor_split((num_fixed,), dim=1)
    line = _Line.over(ages.to(rows))
    before = _compare(moving, num_current)
    moving, directions = _straighten(moving, line)
    after = _compare(moving, num_current)
    moving = _step(moving, after, num_current, directions)
    dependence_shift = moving.new_zeros(())
    if num_fixed and len(rows) >= 2 * _ROWS_PER_COEFFICIENT * num_fixed:
        moving, dependence_shift = _straighten_dependence(fixed, moving, line, directions)
    shifts = (
        _rms(before.mean_ratio),
        _rms(before.scale_ratio),
        dependence_shift,
        _rms(torch.cat([after.mean_ratio, after.scale_ratio])),
    )
    past = moving[num_current:] + origin[:, num_fixed:]
    matched = torch.cat([rows[num_current:, :num_fixed], past], dim=1)
    return MatchedRows(
        torch.cat([rows[:num_current], matched]), dict(zip(DIAGNOSTICS, shifts, strict=True))
    )


class _Line(NamedTuple):
    """The regression of rows on their ages, in units of the ages' standard deviation."""

    ages: Float[Tensor, "n 1"]  # 0 is now
    centred: Float[Tensor, "n 1"]

    @classmethod
    def over(cls, ages: Float[Tensor, " n"]) -> "_Line":
        unit = ages[:, None] / ages.std(correction=0)
        return cls(unit, unit - unit.mean())

    def slope(self, values: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
        return (self.centred * values).mean(0)

    def error(self, residuals: Float[Tensor, "n d"]) -> Float[Tensor, " d"]:
        """Standard error of slopes, whatever the residuals' distribution."""
        return (self.centred * residuals).square().mean(0).sqrt() / math.sqrt(len(residuals))


class _Comparison(NamedTuple):
    """Current minus past samples: means and log variances, and their sampling errors."""

    mean: Float[Tensor, " d"]
    mean_error: Float[Tensor, " d"]
    scale: Float[Tensor, " d"]
    scale_error: Float[Tensor, " d"]
    common_scale_error: Float[Tensor, ""]

    @property
    def mean_ratio(self) -> Float[Tensor, " d"]:
        return _ratio(self.mean, self.mean_error)

    @property
    def scale_ratio(self) -> Float[Tensor, " d"]:
        return _ratio(self.scale, self.scale_error)


def _compare(rows: Float[Tensor, "n d"], num_current: int) -> _Comparison:
    current, past = rows[:num_current], rows[num_current:]
    if min(len(current), len(past)) < _FEWEST_ROWS:
        zero = rows.new_zeros(rows.shape[1])
        return _Comparison(zero, zero, zero, zero, rows.new_zeros(()))
    share = 1 / len(current) + 1 / len(past)
    variances = [part.var(0, correction=1) for part in (current, past)]
    live = (variances[0] > 0) & (variances[1] > 0)
    logs = [torch.where(live, variance, 1.0).log() for variance in variances]
    excess = torch.cat(
        [
            (part - part.mean(0)).square() / torch.where(live, variance, torch.inf) - live.to(rows)
            for part, variance in zip((current, past), variances, strict=True)
        ]
    )
    return _Comparison(
        current.mean(0) - past.mean(0),
        (variances[0] / len(current) + variances[1] / len(past)).sqrt(),
        logs[0] - logs[1],
        excess.square().mean(0).sqrt() * math.sqrt(share),
        excess.mean(1).square().mean().sqrt() * math.sqrt(share),
    )


def _straighten(
    rows: Float[Tensor, "n d"], line: _Line
) -> tuple[Float[Tensor, "n d"], Float[Tensor, ""]]:
    """Rows without the lines of mean and log scale, and in how many directions they vary."""
    slope = line.slope(rows)
    residuals = rows - rows.mean(0) - line.centred * slope
    growth, excess = _log_variance_slope(residuals, line)
    directions = _directions(residuals)
    slope = _shrunk(slope, line.error(residuals), directions)
    growth = _shrunk(
        growth, line.error(excess), directions, line.error(excess.mean(1, keepdim=True)).squeeze(0)
    )
    level = rows - line.ages * slope
    centre = level.mean(0)
    return centre + (level - centre) * torch.exp(-0.5 * line.ages * growth), directions


def _log_variance_slope(
    residuals: Float[Tensor, "n d"], line: _Line
) -> tuple[Float[Tensor, " d"], Float[Tensor, "n d"]]:
    """The slope of the log variance, by maximum likelihood, and r² / variance − 1.

    Newton's steps with the expected curvature, which for a log link does not depend on the fit.
    """
    squares = residuals.square()
    live = squares.mean(0) > 0
    level = torch.where(live, squares.mean(0), 1.0).log()
    growth = torch.zeros_like(level)
    for _ in range(_SCALE_STEPS):
        excess = squares * torch.exp(-level - line.centred * growth) - live.to(squares)
        level = level + excess.mean(0).clamp(-1.0, 1.0)
        growth = growth + line.slope(excess).clamp(-1.0, 1.0)
    return growth, squares * torch.exp(-level - line.centred * growth) - live.to(squares)


def _step(
    rows: Float[Tensor, "n d"],
    comparison: _Comparison,
    num_current: int,
    directions: Float[Tensor, ""],
) -> Float[Tensor, "n d"]:
    """Past rows moved to the current mean and scale where those stand out beyond noise."""
    mean = _shrunk(comparison.mean, comparison.mean_error, directions)
    scale = _shrunk(
        comparison.scale, comparison.scale_error, directions, comparison.common_scale_error
    )
    current, past = rows[:num_current], rows[num_current:]
    centre = past.mean(0)
    return torch.cat([current, centre + mean + (past - centre) * torch.exp(0.5 * scale)])


def _straighten_dependence(
    fixed: Float[Tensor, "n p"],
    moving: Float[Tensor, "n q"],
    line: _Line,
    directions: Float[Tensor, ""],
) -> tuple[Float[Tensor, "n q"], Float[Tensor, ""]]:
    """Rows without the line of their linear dependence on fixed features, and its t.

    With standardised x and age a, z = A x + B a x + r. The error of B is that of unequal residuals
    (each counts by its leverage), since what is not linear in x varies in size with x.
    """
    count = len(fixed)
    x = fixed - fixed.mean(0)
    spread = x.square().mean(0).sqrt()
    x = x / torch.where(spread > 0, spread, torch.inf)
    target = _regress_out(x, moving - moving.mean(0))
    design = _regress_out(x, line.centred * x)
    factor = _ridged_factor(design)
    coefficients = torch.cholesky_solve(design.mT @ target / count, factor)
    fitted = design @ coefficients
    leverage = (design * torch.cholesky_solve(design.mT, factor).mT).sum(1, keepdim=True) / count
    lost = 2.0 * leverage.sum() / count  # share of the residuals' squares that the fit absorbed
    noise = (leverage * (target - fitted).square()).sum(0) / (1.0 - lost)
    squared = _mean_of_varying(torch.where(noise > 0, fitted.square().sum(0) / noise, 0.0))
    kept = _kept(squared, directions * leverage.sum())
    return moving - kept * line.ages * (x @ coefficients), squared.sqrt()


def _regress_out(x: Float[Tensor, "n p"], values: Float[Tensor, "n q"]) -> Float[Tensor, "n q"]:
    """What of the values is not linear in x."""
    coefficients = torch.cholesky_solve(x.mT @ values / len(x), _ridged_factor(x))
    return values - x @ coefficients


def _ridged_factor(design: Float[Tensor, "n p"]) -> Float[Tensor, "p p"]:
    gram = design.mT @ design / len(design)
    return cholesky_ridged(
        gram + _RIDGE * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    )


def _directions(residuals: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """(tr C)² / |C|² of the correlation matrix C: as how many independent features they count."""
    spread = residuals.square().mean(0).sqrt()
    standard = residuals / torch.where(spread > 0, spread, torch.inf)
    correlation = standard.mT @ standard / len(standard)
    total = correlation.square().sum()
    return torch.where(total > 0, correlation.trace() ** 2 / total, 1.0)


def _shrunk(
    values: Float[Tensor, " d"],
    errors: Float[Tensor, " d"],
    directions: Float[Tensor, ""],
    common_error: Float[Tensor, ""] | None = None,
) -> Float[Tensor, " d"]:
    """Values moved towards 0; given the error of their mean, the mean and the rest separately."""
    if common_error is None:
        return values * _kept(_mean_of_varying(_ratio(values, errors).square()), directions)
    # Constant features count in `values.mean()` as they do in its error, and nowhere else.
    kept = _kept(_ratio(values.mean(), common_error).square(), torch.ones_like(common_error))
    varies = errors > 0
    common = torch.where(varies, values.sum() / varies.sum().clamp(min=1), 0.0)
    return kept * common + _shrunk(values - common, errors, directions)


def _kept(squared: Float[Tensor, ""], directions: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """Max(0, 1 − (1 + margin) / t²)."""
    threshold = 1.0 + _MARGIN_SDS * (2.0 / directions).sqrt()
    return (1.0 - threshold / squared.clamp(min=torch.finfo(squared.dtype).tiny)).clamp(min=0.0)


def _ratio(values: Float[Tensor, "..."], errors: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return values / torch.where(errors > 0, errors, torch.inf)


def _rms(values: Float[Tensor, " d"]) -> Float[Tensor, ""]:
    return _mean_of_varying(values.square()).sqrt()


def _mean_of_varying(values: Float[Tensor, " d"]) -> Float[Tensor, ""]:
    """The mean over features that vary: what says nothing is 0."""
    mean: Tensor = values.sum() / (values != 0).sum().clamp(min=1)
    return mean
