"""Kernels between vectors as linear maps: what iterative estimators need, without the big matrix.

A vector-valued kernel Γ(x, y) is a d × d matrix for each pair. An operator is Γ between m points x
and n points y, an (m·d) × (n·d) matrix that is never formed: products of m × n matrices apply it.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from mige.kernels.base import Kernel, SmoothRadialKernel
from mige.kernels.distances import squared_distances


class KernelOperator(ABC):
    """Γ between points `x` (rows) and `y` (columns)."""

    level: float  # Γ(x, x) = level · I
    x: Float[Tensor, "*b m d"]
    y: Float[Tensor, "*b n d"]

    @abstractmethod
    def apply(self, values: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b m d"]:
        """Row i is Σ_j Γ(x_i, y_j) v_j."""

    @abstractmethod
    def divergence(self) -> Float[Tensor, "*b m d"]:
        """Row i is Σ_j div Γ(y_j, x_i), the divergence taken in y_j; 1 / units of the points."""

    @abstractmethod
    def norm_bound(self) -> Float[Tensor, "*b"]:
        """An upper bound of the largest eigenvalue, for `x` = `y`: the largest row sum of norms.

        It is never below the eigenvalue. A power iteration stops below it, and a method whose step
        relies on it then diverges.
        """

    @abstractmethod
    def effective_rank(self) -> Float[Tensor, "*b"]:
        """(tr Γ)² / (d tr Γ²), for `x` = `y`: a smooth count of its directions, per feature."""


class DiagonalOperator(KernelOperator):
    """Γ(x, y) = k(x, y) I: each coordinate by itself.

    Args:
        kernel: the scalar kernel k.
        x: rows.
        y: columns.
        squared: their squared distances, if known.
    """

    level = 1.0

    def __init__(
        self,
        kernel: Kernel,
        x: Float[Tensor, "*b m d"],
        y: Float[Tensor, "*b n d"],
        squared: Float[Tensor, "*b m n"] | None = None,
    ) -> None:
        self.kernel, self.x, self.y = kernel, x, y
        self.gram = kernel.gram_of(squared_distances(x, y) if squared is None else squared)

    def apply(self, values: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b m d"]:
        """K v."""
        return self.gram @ values

    def divergence(self) -> Float[Tensor, "*b m d"]:
        """Row i is Σ_j ∂k(y_j, x_i)/∂y_j."""
        return self.kernel.grad_x_sum(self.y, self.x, self.gram.mT)

    def norm_bound(self) -> Float[Tensor, "*b"]:
        """The largest row sum of K."""
        return self.gram.sum(-1).amax(-1)

    def effective_rank(self) -> Float[Tensor, "*b"]:
        """(tr K)² / tr K²."""
        return effective_rank(self.gram)


class CurlFreeOperator(KernelOperator):
    r"""Γ(x, y) = −σ² ∇∇ᵀ k(x − y) = σ² (w I − v δδᵀ), δ = x − y: fields that are gradients.

    A score is a gradient, so this space fits it; w and v are the kernel's slope and curvature. The
    factor σ² makes Γ a pure number, and no fourth power of a unit is formed: none overflows.

        Σ_j Γ(x_i, y_j) c_j = σ² (W c − x_i Σ_j T_ij + Σ_j T_ij y_j)_i,   T_ij = v_ij δ_ijᵀ c_j,
        div Γ(y_j, x_i) = σ² ((d + 2) v + 2 u ∂v/∂u) (x_i − y_j),   u = |x_i − y_j|²,

    so products of m × n with n × d matrices are all it takes. Here d counts the features that are
    not constant in `y`: a constant one is no dimension of the samples.

    Args:
        kernel: the scalar kernel k, whose bandwidth is σ.
        x: rows.
        y: columns.
        squared: their squared distances, if known.

    Source:
        Zhou, Shi, Zhu, ICML 2020 (arXiv 2005.10099), for its use; the products are derived here.
    """

    def __init__(
        self,
        kernel: SmoothRadialKernel,
        x: Float[Tensor, "*b m d"],
        y: Float[Tensor, "*b n d"],
        squared: Float[Tensor, "*b m n"] | None = None,
    ) -> None:
        self.kernel, self.x, self.y = kernel, x, y
        self.squared = squared_distances(x, y) if squared is None else squared
        self.slope = kernel.slope_of(self.squared) * kernel.squared_bandwidth
        self.curvature = kernel.curvature_of(self.squared)
        self.level = kernel.level

    def apply(self, values: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b m d"]:
        """Row i is Σ_j Γ(x_i, y_j) v_j, in three products."""
        along = self.x @ values.mT - (self.y * values).sum(-1)[..., None, :]  # δ_ijᵀ v_j
        along *= self.curvature
        return self.slope @ values - along.sum(-1, keepdim=True) * self.x + along @ self.y

    def divergence(self) -> Float[Tensor, "*b m d"]:
        """Row i is Σ_j div Γ(y_j, x_i)."""
        change = self.kernel.curvature_change_of(self.squared)
        weight = (self._live()[..., None, None] + 2.0) * self.curvature + change
        return weight.sum(-1, keepdim=True) * self.x - weight @ self.y

    def norm_bound(self) -> Float[Tensor, "*b"]:
        """The largest row sum of the norms of the d × d blocks: eigenvalues w and w − v u."""
        across = self.slope - self.curvature * self.squared
        return torch.maximum(self.slope.abs(), across.abs()).sum(-1).amax(-1)

    def effective_rank(self) -> Float[Tensor, "*b"]:
        """(tr Γ)² / (d tr Γ²)."""
        dim = self._live()
        across = self.slope - self.curvature * self.squared
        square = (dim - 1.0) * self.slope.square().sum((-2, -1)) + across.square().sum((-2, -1))
        return dim * (self.level * self.x.shape[-2]) ** 2 / square

    def _live(self) -> Float[Tensor, "*b"]:
        varies = self.y.amax(-2) > self.y.amin(-2)
        return varies.sum(-1).clamp(min=1).to(self.y)


def effective_rank(gram: Float[Tensor, "*b n n"]) -> Float[Tensor, "*b"]:
    """(tr K)² / tr K²: a smooth count of the directions of a Gram matrix."""
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace.square() / gram.square().sum((-2, -1))
