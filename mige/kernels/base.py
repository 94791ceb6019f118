"""What a kernel is, and what all functions of a distance share."""

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from mige.checks import check_positive
from mige.kernels.distances import squared_distances


@runtime_checkable
class Kernel(Protocol):
    """A positive-definite function of |x − y| / bandwidth with k(x, x) = 1.

    Leading dimensions are batches. Estimators use `gram_of` and `grad_x_sum`, which need O(mn)
    memory; `gram` and `grad_x` say the same in the plainest form.
    """

    def gram(
        self, x: Float[Tensor, "*b m d"], y: Float[Tensor, "*b n d"]
    ) -> Float[Tensor, "*b m n"]:
        """Entry (i, j) is k(x_i, y_j)."""
        ...

    def gram_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """The Gram matrix from squared distances."""
        ...

    def slope_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """The slope w = −2 ∂k/∂|x − y|² ≥ 0: ∂k/∂x = −w (x − y); 1 / squared units of `x`."""
        ...

    def grad_x(
        self, x: Float[Tensor, "*b m d"], y: Float[Tensor, "*b n d"]
    ) -> Float[Tensor, "*b m n d"]:
        """Entry (i, j, :) is ∂k(x_i, y_j)/∂x_i, in 1 / units of `x`; O(mnd) memory."""
        ...

    def grad_x_sum(
        self,
        x: Float[Tensor, "*b m d"],
        y: Float[Tensor, "*b n d"],
        gram: Float[Tensor, "*b m n"],
        moments: Float[Tensor, "*b n e"] | None = None,
    ) -> Float[Tensor, "*b n d"]:
        """Row j is Σ_i ∂k(x_i, y_j)/∂x_i, where `gram` is the Gram matrix of `x` and `y`.

        `moments` = gramᵀ [1, x], if a caller has it already, saves some kernels the same product.
        """
        ...


class RadialKernel(ABC):
    """Implements `Kernel` from a function of the squared distance and its slope.

    Args:
        bandwidth: σ, in units of the points: a number, or a tensor with one value per batch, as the
            bandwidth rules give it.

    Raises:
        InvalidInputError: a bandwidth given as a number is not finite and positive.
    """

    def __init__(self, bandwidth: float | Float[Tensor, "*b"]) -> None:
        self.bandwidth = (
            bandwidth if isinstance(bandwidth, Tensor) else check_positive("bandwidth", bandwidth)
        )

    @abstractmethod
    def gram_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """The Gram matrix from squared distances."""

    @abstractmethod
    def slope_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """The slope w = −2 ∂k/∂|x − y|² ≥ 0: ∂k/∂x = −w (x − y); 1 / squared units of `x`."""

    def gram(
        self, x: Float[Tensor, "*b m d"], y: Float[Tensor, "*b n d"]
    ) -> Float[Tensor, "*b m n"]:
        """Entry (i, j) is k(x_i, y_j)."""
        return self.gram_of(squared_distances(x, y))

    def grad_x(
        self, x: Float[Tensor, "*b m d"], y: Float[Tensor, "*b n d"]
    ) -> Float[Tensor, "*b m n d"]:
        """Entry (i, j, :) is ∂k(x_i, y_j)/∂x_i = −w_ij (x_i − y_j)."""
        diff = x[..., :, None, :] - y[..., None, :, :]  # (*b, m, n, d)
        return -self.slope_of(squared_distances(x, y))[..., None] * diff

    def grad_x_sum(
        self,
        x: Float[Tensor, "*b m d"],
        y: Float[Tensor, "*b n d"],
        gram: Float[Tensor, "*b m n"],
        moments: Float[Tensor, "*b n e"] | None = None,  # noqa: ARG002  for kernels whose w is K
    ) -> Float[Tensor, "*b n d"]:
        """Row j is −Σ_i w_ij (x_i − y_j) = (diag(wᵀ1) y − wᵀx)_j."""
        slope = self._slope(x, y, gram)
        return slope.sum(-2)[..., None] * y - slope.mT @ x

    def _slope(
        self,
        x: Float[Tensor, "*b m d"],
        y: Float[Tensor, "*b n d"],
        gram: Float[Tensor, "*b m n"],  # noqa: ARG002  kernels whose slope follows from it override
    ) -> Float[Tensor, "*b m n"]:
        return self.slope_of(squared_distances(x, y))

    @property
    def squared_bandwidth(self) -> float | Float[Tensor, "*b 1 1"]:
        """σ², of a shape that broadcasts with a batch of Gram matrices."""
        if isinstance(self.bandwidth, Tensor):
            return self.bandwidth.square()[..., None, None]
        return self.bandwidth**2


class SmoothRadialKernel(RadialKernel):
    """A radial kernel with the derivatives that its curl-free version needs.

    With the slope w as a function of u = |x − y|² and v = −2 ∂w/∂u, the curvature:
    −∇∇ᵀ k = w I − v (x − y)(x − y)ᵀ. `level` is σ² w at u = 0.
    """

    level: float = 1.0

    @abstractmethod
    def curvature_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """The curvature σ² v ≥ 0, in 1 / squared units of the points."""

    @abstractmethod
    def curvature_change_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """Its change 2 u ∂(σ² v)/∂u, in 1 / squared units of the points."""


def power_of(base: Tensor, exponent: float) -> Tensor:
    """`base` ** `exponent`, with roots where they do: several times faster than a general power."""
    whole = round(2.0 * exponent)
    if 2.0 * exponent != whole or abs(whole) > 12:
        return base**exponent
    result = base ** (abs(whole) // 2) if abs(whole) >= 2 else torch.ones_like(base)
    if abs(whole) % 2:
        result = result * base.sqrt()
    return result if whole >= 0 else result.reciprocal()
