"""DoE: the difference of two fitted entropies."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from mige.bounds.club import ConditionalBound
from mige.bounds.densities import GaussianMixture


class EntropyDifference(ConditionalBound):
    r"""I(x; z) ≈ E[−log q(z)] − E[−log q(z | x)], both fitted by maximum likelihood.

    Neither an upper nor a lower bound: each term bounds its entropy from above, so their errors
    partly cancel. No exponential means, hence no limit like log n, but the value is no better than
    the two families: a mixture of Gaussians for q(z), a Gaussian with a diagonal covariance for
    q(z | x). A family that holds the truth flatters it on Gaussian test problems.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        hidden: widths of the hidden layers of q(z | x).
        components: number of Gaussians in q(z).

    Raises:
        InvalidInputError: an argument is not acceptable.

    Source:
        McAllester and Stratos, AISTATS 2020 (arXiv 1811.04251).
    """

    direction = "neither"

    def __init__(
        self,
        dim_x: int,
        dim_z: int,
        *,
        hidden: Sequence[int] = (256, 256),
        components: int = 8,
    ) -> None:
        super().__init__(dim_x, dim_z, hidden=hidden)
        self.marginal = GaussianMixture(dim_z, components=components)

    def _value(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        conditional, marginal = self._log_densities(x, z)
        return (conditional - marginal).mean()

    def _loss(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        """The two cross entropies, E[−log q(z | x)] + E[−log q(z)], in nats."""
        conditional, marginal = self._log_densities(x, z)
        return -(conditional + marginal).mean()

    def _log_densities(
        self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Log q(z_i | x_i) and log q(z_i)."""
        return self.conditional(x, z), self.marginal(z)
