"""What a kernel is."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Kernel(Protocol):
    """A positive-definite function of |x − y| / bandwidth with k(x, x) = 1.

    Estimators use `gram_of` and `grad_x_sum`, which need O(mn) memory; `gram` and `grad_x` say the
    same in the plainest form.
    """

    def gram(self, x: Float[Tensor, "m d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "m n"]:
        """Entry (i, j) is k(x_i, y_j)."""
        ...

    def gram_of(self, squared: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        """The Gram matrix from squared distances."""
        ...

    def grad_x(self, x: Float[Tensor, "m d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "m n d"]:
        """Entry (i, j, :) is ∂k(x_i, y_j)/∂x_i, in 1 / units of `x`; O(mnd) memory."""
        ...

    def grad_x_sum(
        self,
        x: Float[Tensor, "m d"],
        y: Float[Tensor, "n d"],
        gram: Float[Tensor, "m n"],
    ) -> Float[Tensor, "n d"]:
        """Row j is Σ_i ∂k(x_i, y_j)/∂x_i, where `gram` is the Gram matrix of `x` and `y`."""
        ...
