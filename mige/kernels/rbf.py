"""The Gaussian (radial basis function) kernel."""

from jaxtyping import Float
from torch import Tensor

from mige.kernels.base import SmoothRadialKernel


class RBFKernel(SmoothRadialKernel):
    r"""k(x, y) = exp(−|x − y|² / 2σ²), with bandwidth σ."""

    def gram_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """exp(−squared / 2σ²)."""
        return (squared * (-0.5 / self.squared_bandwidth)).exp_()

    def slope_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """K / σ²."""
        return self.gram_of(squared) / self.squared_bandwidth

    def curvature_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """K / σ²."""
        return self.slope_of(squared)

    def curvature_change_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """−(squared / σ²) K / σ²."""
        return self.curvature_of(squared) * (squared / -self.squared_bandwidth)

    def grad_x_sum(
        self,
        x: Float[Tensor, "*b m d"],
        y: Float[Tensor, "*b n d"],
        gram: Float[Tensor, "*b m n"],
        moments: Float[Tensor, "*b n e"] | None = None,
    ) -> Float[Tensor, "*b n d"]:
        """Row j is −Σ_i k(x_i, y_j) (x_i − y_j) / σ² = −(Kᵀx − diag(Kᵀ1) y)_j / σ²."""
        if moments is None:
            return (gram.sum(-2)[..., None] * y - gram.mT @ x) / self.squared_bandwidth
        return (moments[..., :1] * y - moments[..., 1:]) / self.squared_bandwidth
