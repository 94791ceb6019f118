"""Non-Gaussian dependence whose truth is an integral in one dimension: z = ρ u(x) + √(1−ρ²) ε.

Coordinates are independent, so I is d times that of one pair, and I = h(z) − h(√(1−ρ²) ε). With
p(z) = ∫ p(x) N(z; ρu(x), 1−ρ²) dx the derivative is

    dI/dρ = −∫ ∂_ρ p(z) log p(z) dz + ρ/(1−ρ²)

by the trapezoidal rule, which converges exponentially for smooth integrands that vanish at both
ends; the steps resolve the narrowest Gaussian eight times, so the error is at rounding level.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mige.calibration.base import (
    Pairs,
    Problem,
    check_correlation,
    correlation_grid,
    standard_normal,
)
from mige.calibration.transforms import rotated
from mige.checks import check_choice
from mige.errors import InvalidInputError

_MODE = 0.92  # of the bimodal source, ±; its humps have standard deviation √(1 − 0.92²) = 0.39
_SIN_POWER = 0.5 * (1.0 - math.exp(-8.0))  # E sin²(2x) for x ~ N(0, 1)
_REACH = 7.0  # standard deviations beyond which a normal's mass, 3e-12, is left out
_STEPS = 8.0  # per standard deviation of the narrowest Gaussian
_LARGEST = 0.995  # |ρ|; beyond it the integral grows too fine to be cheap


class Signal(NamedTuple):
    """What is sent: the source x of unit variance, and u(x) of zero mean and unit variance."""

    apply: Callable[[Tensor], Tensor]  # u
    slope: float  # the largest |u'| within reach
    bimodal: bool  # x from two humps, else from N(0, 1)


SIGNALS: Mapping[str, Signal] = MappingProxyType(
    {
        "linear": Signal(lambda x: x, 1.0, bimodal=False),
        "bimodal": Signal(lambda x: x, 1.0, bimodal=True),
        "square": Signal(
            lambda x: (x.square() - 1.0) / math.sqrt(2.0), math.sqrt(2.0) * _REACH, bimodal=False
        ),
        "sin": Signal(
            lambda x: torch.sin(2.0 * x) / math.sqrt(_SIN_POWER),
            2.0 / math.sqrt(_SIN_POWER),
            bimodal=False,
        ),
    }
)
"""`linear` is the authors' toy; it is here for tests of the integral."""


@dataclass(frozen=True, kw_only=True)
class CoordinateChannel(Problem):
    """z = ρ u(x) + √(1−ρ²) ε, coordinate by coordinate; see the module's docstring.

    `square` and `sin` have no linear part: x and z are uncorrelated at every ρ.

    Attributes:
        signal: a name in `SIGNALS`.
        rotate: turn x and z by random orthogonal matrices afterwards: the same truth, but no
            coordinate of z depends on a coordinate of x alone.
    """

    signal: str
    rotate: bool = False

    def __post_init__(self) -> None:
        check_choice("signal", self.signal, SIGNALS.keys())

    def grid(self, d: int) -> Float[Tensor, " p"]:  # noqa: ARG002  the same at any width
        """The authors' 32 correlations."""
        return correlation_grid()

    def sample(
        self, n: int, d: int, parameter: Float[Tensor, "..."], generator: torch.Generator
    ) -> Pairs:
        """Draw pairs; the parameter is ρ."""
        check_correlation(parameter)
        signal = SIGNALS[self.signal]
        x = standard_normal(n, d, parameter, generator)
        if signal.bimodal:
            side = standard_normal(n, d, parameter, generator).sign()
            x = _MODE * side + math.sqrt(1.0 - _MODE**2) * x
        noise = standard_normal(n, d, parameter, generator)
        rho = parameter[..., None, None]
        z = rho * signal.apply(x) + (1.0 - rho.square()).sqrt() * noise
        if self.rotate:
            x, z = rotated(d, generator).forward(x), rotated(d, generator).forward(z)
        return Pairs(x, z)

    def information(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """D times the integral of one pair."""
        return d * self._over(parameter, 0)

    def truth(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """D times the derivative of one pair's integral."""
        return d * self._over(parameter, 1)

    def _over(self, parameter: Tensor, index: int) -> Tensor:
        check_correlation(parameter)
        values = [pair_information(self.signal, rho)[index] for rho in parameter.flatten().tolist()]
        return parameter.new_tensor(values).reshape(parameter.shape)


@functools.lru_cache(maxsize=1024)
def pair_information(signal: str, rho: float) -> tuple[float, float]:
    """I(x; z) of one pair in nats, and dI/dρ.

    Args:
        signal: a name in `SIGNALS`.
        rho: the correlation of u(x) and z.

    Raises:
        InvalidInputError: |ρ| is above 0.995.
    """
    if abs(rho) > _LARGEST:
        raise InvalidInputError(f"parameter={rho!r}: give correlations within ±{_LARGEST}")
    source = SIGNALS[signal]
    variance = 1.0 - rho**2
    width = math.sqrt(variance)
    hump = math.sqrt(1.0 - _MODE**2) if source.bimodal else 1.0
    edge = _REACH * hump + (_MODE if source.bimodal else 0.0)
    narrowest = min(hump, width / max(abs(rho) * source.slope, 1e-9))
    x = _grid(-edge, edge, narrowest)
    weight = _density(x, hump, bimodal=source.bimodal) * (x[1] - x[0])
    sent = source.apply(x)
    reach = _REACH * width
    z = _grid(float((rho * sent).min()) - reach, float((rho * sent).max()) + reach, width)
    error = z[:, None] - rho * sent  # (z, x)
    kernel = torch.exp(-0.5 * error.square() / variance) / math.sqrt(2.0 * math.pi * variance)
    density = kernel @ weight
    slope = error * sent / variance - rho * (error.square() / variance - 1.0) / variance
    slope = (kernel * slope) @ weight  # ∂_ρ p; the second part is that of the variance 1 − ρ²
    log_density = density.clamp(min=torch.finfo(density.dtype).tiny).log()
    step = float(z[1] - z[0])
    entropy = -float((density * log_density).sum()) * step
    information = entropy - 0.5 * math.log(2.0 * math.pi * math.e * variance)
    return information, rho / variance - float((slope * log_density).sum()) * step


def _grid(low: float, high: float, scale: float) -> Tensor:
    count = math.ceil((high - low) / scale * _STEPS) + 1
    return torch.linspace(low, high, count, dtype=torch.double)


def _density(x: Tensor, hump: float, *, bimodal: bool) -> Tensor:
    centres = (-_MODE, _MODE) if bimodal else (0.0,)
    parts = [torch.exp(-0.5 * ((x - c) / hump).square()) for c in centres]
    return torch.stack(parts).mean(0) / (hump * math.sqrt(2.0 * math.pi))
