"""KSG: mutual information from nearest neighbours."""

import torch
from jaxtyping import Float
from torch import Tensor

from mige.bounds.base import Bound
from mige.checks import check_count
from mige.errors import InvalidInputError


class KSG(Bound):
    r"""I(x; z) ≈ ψ(k) + ψ(n) − mean_i[ψ(n_x(i) + 1) + ψ(n_z(i) + 1)], a value without parameters.

    ε_i is the distance of pair i to its k-th neighbour, the larger of the two maximum norms, and
    n_x(i), n_z(i) count the rows closer than ε_i in x alone and in z alone (algorithm 1). Neither
    an upper nor a lower bound; nearly unbiased in a few dimensions, far too low in many (at d = 8
    pairs and n = 256 already). It is a step function of the rows, so it has no gradient and nothing
    to fit. O(n²) memory.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        neighbors: k, below the number of rows.

    Raises:
        InvalidInputError: an argument is not acceptable, or there are too few rows.

    Source:
        Kraskov, Stögbauer and Grassberger, Phys. Rev. E 2004 (arXiv cond-mat/0305641).
    """

    direction = "neither"
    has_gradient = False

    def __init__(self, dim_x: int, dim_z: int, *, neighbors: int = 3) -> None:
        super().__init__(dim_x, dim_z)
        self.neighbors = check_count("neighbors", neighbors)

    def loss(self, x: Tensor, z: Tensor) -> Float[Tensor, ""]:
        """Refused: there is nothing to fit.

        Raises:
            InvalidInputError: always.
        """
        self._prepare(x, z)
        raise InvalidInputError("KSG has no parameters to fit: ask for its value at once")

    @torch.no_grad()
    def _value(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        n = len(x)
        if n <= self.neighbors:
            raise InvalidInputError(
                f"x has {n} rows: neighbors={self.neighbors} needs at least {self.neighbors + 1}"
            )
        distance_x, distance_z = torch.cdist(x, x, p=torch.inf), torch.cdist(z, z, p=torch.inf)
        joint = torch.maximum(distance_x, distance_z)
        # A row is its own nearest neighbour, so the k-th other one has rank k + 1.
        radius = joint.kthvalue(self.neighbors + 1, dim=1).values[:, None]
        # n_x + 1: the row itself counts too, its distance 0 being below the radius. Where that is 0
        # because of duplicates, nothing is below it and n_x is 0.
        counts_x = (distance_x < radius).sum(1).clamp(min=1)
        counts_z = (distance_z < radius).sum(1).clamp(min=1)
        size = torch.tensor([self.neighbors, n], dtype=x.dtype, device=x.device)
        digammas = torch.digamma(counts_x.to(x.dtype)) + torch.digamma(counts_z.to(x.dtype))
        return torch.digamma(size).sum() - digammas.mean()
