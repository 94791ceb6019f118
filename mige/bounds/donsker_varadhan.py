"""The Donsker-Varadhan bound, and MINE's way of training its critic."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mige.bounds.base import CriticBound, log_mean_exp
from mige.checks import check_fraction


class DonskerVaradhan(CriticBound):
    r"""I(x; z) ≥ E_p[f(x, z)] − log E_q[exp f(x, z)], p = p(x, z), q = p(x) p(z).

    A lower bound for every critic f; exact where f = log p(x, z)/(p(x) p(z)) + constant. Known
    bias: the log of a batch mean is below the log of its expectation, so a finite batch reads too
    high, and the variance grows like exp(I)/n: beyond about log n nats it says nothing.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        critic: a name in `CRITICS`.
        hidden: widths of the critic's hidden layers; None takes the critic's own.
        num_negatives: false pairs per row; None takes all n − 1 others.

    Raises:
        InvalidInputError: an argument is not acceptable.

    Source:
        Donsker and Varadhan, 1983; as an estimator, Belghazi et al., ICML 2018 (arXiv 1801.04062).
    """

    direction = "lower"

    def _value(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        positives, negatives = self._scores(x, z)
        return positives.mean() - log_mean_exp(negatives)


class MINE(DonskerVaradhan):
    r"""The Donsker-Varadhan value; the critic's gradient has a running mean in its denominator.

    ∇_θ loss = −E_p[∇f] + E_q[e^f ∇f] / m with m the exponential moving average of E_q[e^f] over the
    batches of training. A batch's own mean in the denominator makes that gradient biased. Only the
    critic's training is corrected: value and information gradient are those of the batch, as in
    `DonskerVaradhan`. The defaults follow the paper: concatenated input, one false pair per row.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        critic: a name in `CRITICS`.
        hidden: widths of the critic's hidden layers; None takes the critic's own.
        num_negatives: false pairs per row; None takes all n − 1 others.
        rate: weight of the newest batch in the moving average, in (0, 1].

    Raises:
        InvalidInputError: an argument is not acceptable.

    Source:
        Belghazi et al., ICML 2018 (arXiv 1801.04062), section 3.2.
    """

    log_mean: Tensor
    num_batches: Tensor

    def __init__(
        self,
        dim_x: int,
        dim_z: int,
        *,
        critic: str = "concat",
        hidden: Sequence[int] | None = None,
        num_negatives: int | None = 1,
        rate: float = 0.01,
    ) -> None:
        super().__init__(dim_x, dim_z, critic=critic, hidden=hidden, num_negatives=num_negatives)
        self.rate = check_fraction("rate", rate)
        # In logs: the mean of exp f overflows long before f itself is unusual.
        self.register_buffer("log_mean", torch.zeros(()))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.int64))

    def _loss(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        """Minus the value, with the corrected gradient; in training mode the average moves on."""
        positives, negatives = self._scores(x, z)
        batch = log_mean_exp(negatives)
        running = self._advance(batch.detach()) if self.training else self.log_mean
        ratio = torch.exp(batch - running)  # its gradient is E_q[e^f ∇f] / m
        return -positives.mean() + ratio + (batch - ratio).detach()

    def _advance(self, batch: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Move the running mean towards this batch's and return it."""
        old = self.log_mean + torch.log1p(batch.new_tensor(-self.rate))
        moved = torch.logaddexp(old, batch + torch.log(batch.new_tensor(self.rate)))
        running = torch.where(self.num_batches == 0, batch, moved)
        # Only the state is written in place; the graph holds `running` itself.
        self.log_mean.copy_(running)
        self.num_batches.add_(1)
        return running
