"""The inverse multiquadric kernel."""

from jaxtyping import Float
from torch import Tensor

from mige.kernels.base import SmoothRadialKernel


class IMQKernel(SmoothRadialKernel):
    r"""k(x, y) = t^(−1/2) with t = 1 + |x − y|² / 2σ²: tails as heavy as 1 / |x − y|.

    The convention here has the *twice* σ² of the Gaussian kernel under the square root. Others
    write 1 + |x − y|² / c²: then c = √2 σ. It is the rational quadratic kernel of α = 1/2 with
    bandwidth √2 σ.

    Source:
        Gorham & Mackey, ICML 2017 (arXiv 1703.01717), for its use with Stein's identity.
    """

    level = 0.5

    def gram_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """t^(−1/2)."""
        return self._t(squared).rsqrt_()

    def slope_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """t^(−3/2) / 2σ² = K³ / 2σ²."""
        return self._slope_of_gram(self.gram_of(squared))

    def curvature_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """¾ t^(−5/2) / σ²."""
        gram = self.gram_of(squared)
        return 1.5 * gram.square() * self._slope_of_gram(gram)

    def curvature_change_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """−5 ((t − 1)/t) times the curvature."""
        t = self._t(squared)
        return self.curvature_of(squared) * (-5.0 * (t - 1.0) / t)

    def _slope(
        self,
        x: Float[Tensor, "*b m d"],  # noqa: ARG002
        y: Float[Tensor, "*b n d"],  # noqa: ARG002
        gram: Float[Tensor, "*b m n"],
    ) -> Float[Tensor, "*b m n"]:
        return self._slope_of_gram(gram)

    def _slope_of_gram(self, gram: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        return gram.square().mul_(gram) * (0.5 / self.squared_bandwidth)

    def _t(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        return (squared * (0.5 / self.squared_bandwidth)).add_(1.0)
