"""Bounds whose critic is trained by the Jensen-Shannon divergence: JSD (Deep InfoMax) and SMILE."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from mige.bounds.base import CriticBound, log_mean_exp
from mige.bounds.critics import PairScores
from mige.checks import check_positive


def jensen_shannon(scores: PairScores) -> Float[Tensor, ""]:
    """−E_p[softplus(−f)] − E_q[softplus(f)]: twice the divergence minus log 4 for the best critic.

    That critic is f = log p(x, z)/(p(x) p(z)), and training is stable: no exponential mean.
    """
    return -softplus(-scores.positives).mean() - softplus(scores.negatives).mean()


class JSD(CriticBound):
    r"""Value: NWJ's with f + 1; gradient: that of the Jensen-Shannon objective. As usual.

    `loss` trains f to be the log density ratio by the Jensen-Shannon objective, and the value puts
    it into I ≥ 1 + E_p[f] − E_q[e^f], a lower bound for every f, exact for the log ratio. As in
    Deep InfoMax and in Poole et al., the *gradient* in x and z is that of the Jensen-Shannon
    objective: bounded and stable, but of another dependence measure, and smaller than that of I
    where the dependence is strong. For a gradient of I with the same critic use `SMILE`.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        critic: a name in `CRITICS`.
        hidden: widths of the critic's hidden layers; None takes the critic's own.
        num_negatives: false pairs per row; None takes all n − 1 others.

    Raises:
        InvalidInputError: an argument is not acceptable.

    Source:
        Hjelm et al., ICLR 2019 (arXiv 1808.06670); the value, Poole et al., ICML 2019 (arXiv
        1905.06922).
    """

    direction = "lower"

    def _value(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        scores = self._scores(x, z)
        objective = jensen_shannon(scores)
        value = 1.0 + scores.positives.mean() - torch.exp(log_mean_exp(scores.negatives))
        return objective + (value - objective).detach()

    def _loss(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        return -jensen_shannon(self._scores(x, z))


class SMILE(CriticBound):
    r"""I(x; z) ≈ E_p[f] − log E_q[clip(e^f, e^−τ, e^τ)], f trained by the Jensen-Shannon objective.

    Neither an upper nor a lower bound: clipping the density ratio trades the variance of
    Donsker-Varadhan for a bias that grows with I (too high, as large ratios are cut from the
    second term). The gradient in x and z is that of the value as written; entries outside
    [−τ, τ] have none in the second term.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        critic: a name in `CRITICS`.
        hidden: widths of the critic's hidden layers; None takes the critic's own.
        num_negatives: false pairs per row; None takes all n − 1 others.
        tau: τ, above 0; infinity would be Donsker-Varadhan's value.

    Raises:
        InvalidInputError: an argument is not acceptable.

    Source:
        Song and Ermon, ICLR 2020 (arXiv 1910.06222).
    """

    direction = "neither"

    def __init__(
        self,
        dim_x: int,
        dim_z: int,
        *,
        critic: str = "separable",
        hidden: Sequence[int] | None = None,
        num_negatives: int | None = None,
        tau: float = 5.0,
    ) -> None:
        super().__init__(dim_x, dim_z, critic=critic, hidden=hidden, num_negatives=num_negatives)
        self.tau = check_positive("tau", tau)

    def _value(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        positives, negatives = self._scores(x, z)
        return positives.mean() - log_mean_exp(negatives.clamp(-self.tau, self.tau))

    def _loss(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        return -jensen_shannon(self._scores(x, z))
