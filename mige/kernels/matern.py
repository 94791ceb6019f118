"""Matérn kernels of smoothness 3/2 and 5/2: rougher than the Gaussian one, exponential tails."""

import torch
from jaxtyping import Float
from torch import Tensor

from mige.kernels.base import RadialKernel


class Matern32Kernel(RadialKernel):
    r"""k(x, y) = (1 + a) exp(−a) with a = √3 |x − y| / σ; once differentiable.

    Source:
        Rasmussen & Williams, Gaussian Processes for Machine Learning, section 4.2.
    """

    def gram_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """(1 + a) exp(−a)."""
        a = self._a(squared)
        return (1.0 + a) * torch.exp(-a)

    def slope_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """3 exp(−a) / σ²."""
        return torch.exp(-self._a(squared)) * (3.0 / self.squared_bandwidth)

    def _a(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        return (squared * (3.0 / self.squared_bandwidth)).sqrt()


class Matern52Kernel(RadialKernel):
    r"""k(x, y) = (1 + a + a²/3) exp(−a) with a = √5 |x − y| / σ; twice differentiable.

    Source:
        Rasmussen & Williams, Gaussian Processes for Machine Learning, section 4.2.
    """

    def gram_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """(1 + a + a²/3) exp(−a)."""
        a = self._a(squared)
        return (1.0 + a + a.square() / 3.0) * torch.exp(-a)

    def slope_of(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        """5 (1 + a) exp(−a) / 3σ²."""
        a = self._a(squared)
        return (1.0 + a) * torch.exp(-a) * (5.0 / 3.0 / self.squared_bandwidth)

    def _a(self, squared: Float[Tensor, "*b m n"]) -> Float[Tensor, "*b m n"]:
        return (squared * (5.0 / self.squared_bandwidth)).sqrt()
