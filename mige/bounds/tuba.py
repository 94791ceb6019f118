"""TUBA: the tractable unnormalised bound of Barber and Agakov, with a learned baseline."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mige.bounds.base import CriticBound, log_mean_exp
from mige.bounds.critics import PairScores, mlp, partners
from mige.checks import check_counts


class TUBA(CriticBound):
    r"""I(x; z) ≥ 1 + E_p[f(x, z) − log a(z)] − E_q[exp(f(x, z) − log a(z))].

    A lower bound for every critic f and baseline a(z) > 0; exact where f − log a is the log density
    ratio. `NWJ` is the case a = e; a learned baseline takes the scale in z off the critic, at the
    same variance, growing like exp(I)/n.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        critic: a name in `CRITICS`.
        hidden: widths of the critic's hidden layers; None takes the critic's own.
        num_negatives: false pairs per row; None takes all n − 1 others.
        baseline_hidden: widths of the hidden layers of log a(z).

    Raises:
        InvalidInputError: an argument is not acceptable.

    Source:
        Poole et al., ICML 2019 (arXiv 1905.06922).
    """

    direction = "lower"

    def __init__(
        self,
        dim_x: int,
        dim_z: int,
        *,
        critic: str = "separable",
        hidden: Sequence[int] | None = None,
        num_negatives: int | None = None,
        baseline_hidden: Sequence[int] = (256,),
    ) -> None:
        super().__init__(dim_x, dim_z, critic=critic, hidden=hidden, num_negatives=num_negatives)
        self.log_baseline = mlp(dim_z, check_counts("baseline_hidden", baseline_hidden), 1)

    def _value(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        positives, negatives = self._scores(x, z)
        return 1.0 + positives.mean() - torch.exp(log_mean_exp(negatives))

    def _scores(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> PairScores:
        """The scores f(x_i, z_j) − log a(z_j)."""
        positives, negatives = super()._scores(x, z)
        log_baseline = self.log_baseline(z).squeeze(-1)
        of_partners = log_baseline[partners(len(z), self.num_negatives, z.device)]
        return PairScores(positives - log_baseline, negatives - of_partners)
