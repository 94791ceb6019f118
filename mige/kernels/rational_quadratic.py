"""The rational quadratic kernel: a mixture of Gaussian kernels of many bandwidths."""

from jaxtyping import Float
from torch import Tensor

from mige.checks import check_positive
from mige.kernels.base import SmoothRadialKernel, power_of


class RationalQuadraticKernel(SmoothRadialKernel):
    r"""k(x, y) = t^(−α) with t = 1 + |x − y|² / 2ασ²; it tends to the Gaussian kernel as α → ∞.

    Args:
        bandwidth: σ, in units of the points: a number, or a tensor with one value per batch.
        alpha: α above 0; the smaller, the heavier the tail.

    Raises:
        InvalidInputError: a number is not finite and positive.

    Source:
        Rasmussen & Williams, Gaussian Processes for Machine Learning, section 4.2.
    """

    def __init__(self, bandwidth: float | Float[Tensor, "*b"], *, alpha: float = 1.0) -> None:
        super().__init__(bandwidth)
        self.alpha = check_positive("alpha", alpha)

    def gram_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """t^(−α)."""
        return power_of(self._t(squared), -self.alpha)

    def slope_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """t^(−α−1) / σ²."""
        return power_of(self._t(squared), -self.alpha - 1.0) / self.squared_bandwidth

    def curvature_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """((α + 1)/α) t^(−α−2) / σ²."""
        factor = (self.alpha + 1.0) / self.alpha
        power = power_of(self._t(squared), -self.alpha - 2.0)
        return power * (factor / self.squared_bandwidth)

    def curvature_change_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """−2 (α + 2) ((t − 1)/t) times the curvature."""
        t = self._t(squared)
        return self.curvature_of(squared) * (-2.0 * (self.alpha + 2.0) * (t - 1.0) / t)

    def _slope(
        self,
        x: Float[Tensor, "*b m d"],  # noqa: ARG002
        y: Float[Tensor, "*b n d"],  # noqa: ARG002
        gram: Float[Tensor, "*b m n"],
    ) -> Float[Tensor, "*b m n"]:
        return power_of(gram, (self.alpha + 1.0) / self.alpha) / self.squared_bandwidth

    def _t(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        return (squared * (0.5 / self.alpha / self.squared_bandwidth)).add_(1.0)
