"""What a calibration problem is: samples that depend on a parameter, and the exact gradient."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mige.checks import check_count
from mige.errors import InvalidInputError


class Pairs(NamedTuple):
    """Rows of x paired with rows of z; only z depends on the parameter."""

    x: Float[Tensor, "*batch n d"]
    z: Float[Tensor, "*batch n d"]


class Problem(ABC):
    """A family of joint distributions of (x, z), both of width d, whose MI gradient is known.

    Leading dimensions of the parameter are a batch: a whole grid is sampled at once, every entry
    from noise of its own. Dtype and device of the answers are those of the parameter.
    """

    @abstractmethod
    def grid(self, d: int) -> Float[Tensor, "p ..."]:
        """The parameters that a calibration walks over, (p, ...) in float64, the same each time."""

    @abstractmethod
    def sample(
        self, n: int, d: int, parameter: Float[Tensor, "..."], generator: torch.Generator
    ) -> Pairs:
        """Draw n pairs per parameter; z is differentiable in the parameter.

        Args:
            n: rows.
            d: width of x and of z.
            parameter: (...,) of numbers, or (..., d, d) of matrices where the class says so.
            generator: the source of all randomness, on any device.

        Raises:
            InvalidInputError: n or d is below 1, or a parameter lies outside the family.
        """

    @abstractmethod
    def information(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """I(x; z) in nats, (...,); not differentiable everywhere: use `truth`."""

    @abstractmethod
    def truth(self, parameter: Float[Tensor, "..."], d: int) -> Float[Tensor, "..."]:
        """The exact gradient of I(x; z) in the parameter, in nats per unit, in its shape.

        Raises:
            InvalidInputError: a parameter lies outside the family.
        """


def check_correlation(rho: Float[Tensor, "..."]) -> None:
    """Raise unless every correlation lies strictly between −1 and 1.

    Raises:
        InvalidInputError: naming the largest.
    """
    largest = float(rho.detach().abs().max())
    if not largest < 1.0:
        raise InvalidInputError(f"parameter={largest:.6g}: give correlations inside (-1, 1)")


def correlation_grid() -> Float[Tensor, "p"]:  # noqa: F821  (an axis, not a name)
    """The grid of the authors' toy: 32 correlations from −0.8 to 0.8."""
    return torch.linspace(-0.8, 0.8, 32, dtype=torch.double)


def standard_normal(
    n: int, d: int, parameter: Float[Tensor, "..."], generator: torch.Generator, event: int = 0
) -> Float[Tensor, "*batch n d"]:
    """Fresh N(0, I) rows, (*batch, n, d), in the parameter's dtype and on its device.

    Args:
        n: rows.
        d: width.
        parameter: its shape without the last `event` dimensions is the batch.
        generator: the source of randomness.
        event: how many trailing dimensions one parameter has.
    """
    check_count("n", n)
    check_count("d", d)
    batch = parameter.shape[: parameter.ndim - event]
    noise = torch.randn(
        *batch, n, d, generator=generator, device=generator.device, dtype=parameter.dtype
    )
    return noise.to(parameter.device)
