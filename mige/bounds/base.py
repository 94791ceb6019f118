"""What a bound on mutual information is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mige.bounds.critics import PairScores, make_critic, score_pairs
from mige.checks import check_count, check_rows
from mige.errors import InvalidInputError
from mige.linalg import check_finite

Direction = Literal["lower", "upper", "neither"]


class BoundGradient(NamedTuple):
    """n times the gradient of a bound in each row of z (and of x); detached.

    The same three fields, with the same meaning, as the information gradient of a score estimator.
    """

    z: Float[Tensor, "*b n dz"]
    x: Float[Tensor, "*b n dx"] | None  # None unless asked for
    diagnostics: Mapping[str, Float[Tensor, "*b"]]  # "value": the bound itself, in nats


class Bound(nn.Module, ABC):
    """A number for I(x; z) in nats, with parameters of its own that `loss` trains.

    Fit the parameters first (`fit_bound`), then ask for `value` or `information_gradient`. Rows are
    paired and drawn independently. Everything is computed in the dtype of the bound's parameters
    (`bound.double()` for float64; without parameters, the rows' own, at least float32), outside
    autocast.

    A subclass implements `_value`, and `_loss` where that is not −value.

    Args:
        dim_x: width of x.
        dim_z: width of z.

    Attributes:
        direction: whether the population value, with exact expectations, bounds I(x; z) from below
            or above whatever the parameters. Estimates from n rows scatter around it.
        has_gradient: whether the value can be differentiated in x and z.
    """

    direction: ClassVar[Direction]
    has_gradient: ClassVar[bool] = True

    def __init__(self, dim_x: int, dim_z: int) -> None:
        super().__init__()
        self.dim_x = check_count("dim_x", dim_x)
        self.dim_z = check_count("dim_z", dim_z)

    def value(self, x: Tensor, z: Tensor) -> Float[Tensor, ""]:
        """Estimate I(x; z) in nats, differentiable in x and z (unless `has_gradient` is False).

        Args:
            x: (n, dim_x), n ≥ 2, rows paired with those of `z`.
            z: (n, dim_z).

        Raises:
            InvalidInputError: a shape or dtype is wrong, or there are too few rows.
        """
        x, z = self._prepare(x, z)
        with torch.autocast(x.device.type, enabled=False):
            return self._value(x, z)

    def loss(self, x: Tensor, z: Tensor) -> Float[Tensor, ""]:
        """What the bound's own parameters minimise; arguments and errors as for `value`."""
        x, z = self._prepare(x, z)
        with torch.autocast(x.device.type, enabled=False):
            return self._loss(x, z)

    def forward(self, x: Tensor, z: Tensor) -> Float[Tensor, ""]:
        """The same as `value`."""
        return self.value(x, z)

    def information_gradient(
        self, x: Tensor, z: Tensor, *, wrt_x: bool = False, check: bool = True
    ) -> BoundGradient:
        """Compute n · ∂value/∂z_i with the parameters held fixed, and the same for x if asked.

        So Σ_i g_i · dz_i/dψ / n estimates dI/dψ, as with a score estimator's information gradient.

        Args:
            x: (n, dim_x).
            z: (n, dim_z).
            wrt_x: also return the gradient in x.
            check: refuse an answer with NaN or infinity. That waits for the device.

        Raises:
            InvalidInputError: a shape or dtype is wrong, or this bound has no gradient.
            NumericalError: the answer is not finite.
        """
        self._require_gradient()
        check_rows("x", x)
        check_rows("z", z)
        return gradient_of(self.value, x, z, wrt_x=wrt_x, check=check)

    @abstractmethod
    def _value(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        """The value for checked rows in the working dtype."""

    def _loss(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        """The loss for checked rows in the working dtype."""
        return -self._value(x, z)

    def _require_gradient(self) -> None:
        if not self.has_gradient:
            raise InvalidInputError(
                f"{type(self).__name__} gives a value and no gradient: use another bound, or a "
                "score estimator, where a gradient is needed"
            )

    def _prepare(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Check the rows, and convert them to the dtype of the parameters."""
        for name, rows, dim in (("x", x, self.dim_x), ("z", z, self.dim_z)):
            if check_rows(name, rows).shape[1] != dim:
                raise InvalidInputError(
                    f"{name} has shape {tuple(rows.shape)}: this bound was made for "
                    f"dim_{name}={dim} features"
                )
        if len(x) != len(z) or len(x) < 2:
            raise InvalidInputError(
                f"x has {len(x)} rows and z has {len(z)}: give pairs, at least 2 of them"
            )
        parameter = next(self.parameters(), None)
        if parameter is not None:
            dtype = parameter.dtype
        else:
            dtype = torch.float64 if torch.float64 in (x.dtype, z.dtype) else torch.float32
        return x.to(dtype), z.to(dtype)


class CriticBound(Bound):
    """A bound made of a critic's scores of true and of false pairs.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        critic: a name in `CRITICS`. Any other `Critic` can be assigned to the attribute afterwards.
        hidden: widths of the critic's hidden layers; None takes the critic's own.
        num_negatives: false pairs per row, by cyclic shifts; None takes all n − 1 others.

    Raises:
        InvalidInputError: the critic is unknown or a number is not an integer of at least 1.
    """

    def __init__(
        self,
        dim_x: int,
        dim_z: int,
        *,
        critic: str = "separable",
        hidden: Sequence[int] | None = None,
        num_negatives: int | None = None,
    ) -> None:
        super().__init__(dim_x, dim_z)
        self.critic = make_critic(critic, dim_x, dim_z, hidden)
        self.num_negatives = check_num_negatives(num_negatives)

    def _scores(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> PairScores:
        return score_pairs(self.critic, x, z, self.num_negatives)


def check_num_negatives(num_negatives: int | None) -> int | None:
    """Return the number if it is None or an integer of at least 1."""
    return None if num_negatives is None else check_count("num_negatives", num_negatives)


def log_mean_exp(values: Tensor) -> Float[Tensor, ""]:
    """Log of the mean of exp over all entries, without overflow."""
    return torch.logsumexp(values.flatten(), dim=0) - math.log(values.numel())


def gradient_of(
    value: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    z: Tensor,
    *,
    wrt_x: bool,
    check: bool,
) -> BoundGradient:
    """Differentiate Σ value(x, z) in z, and in x if asked, times the number of rows."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(wrt_x)
        z = z.detach().requires_grad_()
        values = value(x, z)
        gradients = torch.autograd.grad(values.sum(), (z, x) if wrt_x else (z,))
    scaled = [z.shape[-2] * gradient for gradient in gradients]
    if check:
        for name, gradient in zip(("gradient in z", "gradient in x"), scaled, strict=False):
            check_finite(name, gradient)
    return BoundGradient(scaled[0], scaled[1] if wrt_x else None, {"value": values.detach()})
