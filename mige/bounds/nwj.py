"""The bound of Nguyen, Wainwright and Jordan, and the same as MINE-f trains it."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mige.bounds.base import CriticBound, log_mean_exp


class NWJ(CriticBound):
    r"""I(x; z) ≥ E_p[f(x, z)] − E_q[exp(f(x, z) − 1)], p = p(x, z), q = p(x) p(z).

    A lower bound for every critic f; exact where f = 1 + log p(x, z)/(p(x) p(z)). Unbiased in the
    batch, unlike Donsker-Varadhan; its variance grows like exp(I)/n, and it is looser for a critic
    that is not optimal, because f also has to find its own scale.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        critic: a name in `CRITICS`.
        hidden: widths of the critic's hidden layers; None takes the critic's own.
        num_negatives: false pairs per row; None takes all n − 1 others.

    Raises:
        InvalidInputError: an argument is not acceptable.

    Source:
        Nguyen, Wainwright and Jordan, IEEE Trans. Inf. Theory 2010 (arXiv 0809.0853).
    """

    direction = "lower"

    def _value(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        positives, negatives = self._scores(x, z)
        return positives.mean() - torch.exp(log_mean_exp(negatives) - 1.0)


class MINEF(NWJ):
    """MINE-f: the same bound as `NWJ`, with MINE's critic and one false pair per row.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        critic: a name in `CRITICS`.
        hidden: widths of the critic's hidden layers; None takes the critic's own.
        num_negatives: false pairs per row; None takes all n − 1 others.

    Raises:
        InvalidInputError: an argument is not acceptable.

    Source:
        Belghazi et al., ICML 2018 (arXiv 1801.04062): MINE in its f-divergence form.
    """

    def __init__(
        self,
        dim_x: int,
        dim_z: int,
        *,
        critic: str = "concat",
        hidden: Sequence[int] | None = None,
        num_negatives: int | None = 1,
    ) -> None:
        super().__init__(dim_x, dim_z, critic=critic, hidden=hidden, num_negatives=num_negatives)
