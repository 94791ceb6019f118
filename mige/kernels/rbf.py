"""The Gaussian (radial basis function) kernel."""

import torch
from jaxtyping import Float
from torch import Tensor

from mige.checks import check_positive
from mige.kernels.distances import squared_distances


class RBFKernel:
    r"""k(x, y) = exp(−|x − y|² / 2σ²), with bandwidth σ.

    Args:
        bandwidth: σ, in units of `x`: a number, or a 0-d tensor that a bandwidth rule gave.

    Raises:
        InvalidInputError: a bandwidth given as a number is not finite and positive.
    """

    def __init__(self, bandwidth: float | Float[Tensor, ""]) -> None:
        self.bandwidth = (
            bandwidth if isinstance(bandwidth, Tensor) else check_positive("bandwidth", bandwidth)
        )

    def gram(self, x: Float[Tensor, "m d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "m n"]:
        """Entry (i, j) is k(x_i, y_j)."""
        return self.gram_of(squared_distances(x, y))

    def gram_of(self, squared: Float[Tensor, "m n"]) -> Float[Tensor, "m n"]:
        """exp(−squared / 2σ²)."""
        return torch.exp(squared * (-0.5 / self.bandwidth**2))

    def grad_x(self, x: Float[Tensor, "m d"], y: Float[Tensor, "n d"]) -> Float[Tensor, "m n d"]:
        """Entry (i, j, :) is ∂k(x_i, y_j)/∂x_i = −(x_i − y_j) k(x_i, y_j) / σ²."""
        diff = x[:, None, :] - y[None, :, :]  # (m, n, d)
        return -diff / self.bandwidth**2 * self.gram(x, y)[:, :, None]

    def grad_x_sum(
        self,
        x: Float[Tensor, "m d"],
        y: Float[Tensor, "n d"],
        gram: Float[Tensor, "m n"],
    ) -> Float[Tensor, "n d"]:
        """Row j is −Σ_i k(x_i, y_j) (x_i − y_j) / σ² = −(Kᵀx − diag(Kᵀ1) y)_j / σ²."""
        return (gram.sum(0)[:, None] * y - gram.T @ x) / self.bandwidth**2
