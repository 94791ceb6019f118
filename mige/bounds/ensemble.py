"""Many bounds of one kind at once: their networks run as batched matrix products."""

import copy
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mige.bounds.base import Bound, BoundGradient, gradient_of
from mige.errors import InvalidInputError


class BoundEnsemble(nn.Module):
    """b bounds of one class and shape, each with its own parameters and its own rows.

    Tensors have one more leading dimension than for a single bound: x is (b, n, dim_x), a value
    (b,). The members' parameters are stacked, so one optimiser step trains all of them, each as if
    alone (for optimisers that work entry by entry, as Adam does): a curve over 32 parameters of a
    problem costs one training, not 32.

    Args:
        bounds: built alike; they are copied and stay as they are.

    Raises:
        InvalidInputError: there is none, they are of different kinds, or they have no parameters.
    """

    def __init__(self, bounds: Sequence[Bound]) -> None:
        super().__init__()
        if not bounds or any(type(bound) is not type(bounds[0]) for bound in bounds):
            kinds = sorted({type(bound).__name__ for bound in bounds})
            raise InvalidInputError(f"bounds are of kinds {kinds}: give at least one, all alike")
        if next(bounds[0].parameters(), None) is None:
            raise InvalidInputError(
                f"{type(bounds[0]).__name__} has no parameters to stack: call it for each sample"
            )
        self.size = len(bounds)
        # In a tuple, so that its parameters, which are placeholders, are not taken for our own.
        self._template = (copy.deepcopy(bounds[0]).to("meta"),)
        parameters, buffers = stack_module_state(list(bounds))
        self._parameter_names, self._buffer_names = list(parameters), list(buffers)
        self.stacked = nn.ParameterList(
            nn.Parameter(tensor.detach()) for tensor in parameters.values()
        )
        for position, buffer in enumerate(buffers.values()):
            self.register_buffer(f"buffer_{position}", buffer)

    def value(self, x: Tensor, z: Tensor) -> Float[Tensor, " b"]:
        """Every member's value of its own rows, in nats; x is (b, n, dim_x), z (b, n, dim_z).

        Raises:
            InvalidInputError: a shape or dtype is wrong.
        """
        return self._call("value", x, z)

    def loss(self, x: Tensor, z: Tensor) -> Float[Tensor, " b"]:
        """Every member's loss of its own rows; their sum trains all of them."""
        return self._call("loss", x, z)

    def information_gradient(
        self, x: Tensor, z: Tensor, *, wrt_x: bool = False, check: bool = True
    ) -> BoundGradient:
        """Every member's n · ∂value/∂z_i; arguments, result and errors as for one bound."""
        return gradient_of(self.value, x, z, wrt_x=wrt_x, check=check)

    def train(self, mode: bool = True) -> "BoundEnsemble":
        """Set the training mode of all members."""
        self._template[0].train(mode)
        return super().train(mode)

    def _call(self, method: str, x: Tensor, z: Tensor) -> Float[Tensor, " b"]:
        for name, rows in (("x", x), ("z", z)):
            if rows.ndim != 3 or len(rows) != self.size:
                raise InvalidInputError(
                    f"{name} has shape {tuple(rows.shape)}: give ({self.size}, n, features), one "
                    "sample for each member"
                )
        call = _Method(self._template[0], method)
        state = {
            f"bound.{name}": tensor
            for name, tensor in zip(
                [*self._parameter_names, *self._buffer_names],
                [*self.stacked, *self.buffers()],
                strict=True,
            )
        }

        def one(state: dict[str, Tensor], x: Tensor, z: Tensor) -> Any:  # noqa: ANN401  # torch's
            return functional_call(call, state, (x, z))

        values: Tensor = vmap(one)(state, x, z)
        return values


class _Method(nn.Module):
    """Makes a method of a bound what `functional_call` calls."""

    def __init__(self, bound: Bound, method: str) -> None:
        super().__init__()
        self.bound = bound
        self._method = method

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        result: Tensor = getattr(self.bound, self._method)(x, z)
        return result
