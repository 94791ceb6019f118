"""Upper bounds from a conditional density: CLUB and leave-one-out."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mige.bounds.base import Bound, check_num_negatives
from mige.bounds.critics import Critic, off_diagonal, score_pairs
from mige.bounds.densities import GaussianConditional


class ConditionalBound(Bound):
    """A bound made of a conditional density q(z | x), fitted by maximum likelihood.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        hidden: widths of the hidden layers of q(z | x) = N(μ(x), diag σ(x)²).

    Attributes:
        conditional: log q(z | x) as a critic. Where p(z | x) is known, assign it here.
    """

    conditional: Critic

    def __init__(self, dim_x: int, dim_z: int, *, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__(dim_x, dim_z)
        self.conditional = GaussianConditional(dim_x, dim_z, hidden=hidden)

    def _loss(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        """−E_p[log q(z | x)], in nats."""
        log_density: Tensor = self.conditional(x, z)
        return -log_density.mean()


class CLUB(ConditionalBound):
    r"""I(x; z) ≤ E_p[log p(z | x)] − E_q[log p(z | x)], p = p(x, z), q = p(x) p(z).

    An upper bound with the true p(z | x). Here the Gaussian q(z | x) stands for it (vCLUB), which
    keeps the direction only if q is closer to p(z | x) than its error under q is large: check on
    data like yours. Loose where the dependence is strong: d ρ²/(1 − ρ²) instead of
    −d/2 log(1 − ρ²) for d correlated Gaussian pairs. `num_negatives=1` is the sampled form,
    vCLUB-S.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        hidden: widths of the hidden layers of q(z | x).
        num_negatives: false pairs per row; None takes all n − 1 others.

    Raises:
        InvalidInputError: an argument is not acceptable.

    Source:
        Cheng et al., ICML 2020 (arXiv 2006.12013).
    """

    direction = "upper"

    def __init__(
        self,
        dim_x: int,
        dim_z: int,
        *,
        hidden: Sequence[int] = (256, 256),
        num_negatives: int | None = None,
    ) -> None:
        super().__init__(dim_x, dim_z, hidden=hidden)
        self.num_negatives = check_num_negatives(num_negatives)

    def _value(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        positives, negatives = score_pairs(self.conditional, x, z, self.num_negatives)
        return positives.mean() - negatives.mean()


class LeaveOneOut(ConditionalBound):
    r"""I(x; z) ≤ E[log p(z_i | x_i) − log (1/(n−1)) Σ_{j≠i} p(z_i | x_j)].

    An upper bound with the true p(z | x), tight for large n; with the Gaussian q(z | x) in its
    place, as here, neither is certain. The density of z is a kernel-like mixture over the other
    rows, which in high dimension or at strong dependence finds no neighbour: then it reads far too
    high, with a large variance.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        hidden: widths of the hidden layers of q(z | x).

    Raises:
        InvalidInputError: an argument is not acceptable.

    Source:
        Poole et al., ICML 2019 (arXiv 1905.06922), the upper bound there.
    """

    direction = "upper"

    def _value(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        scores = self.conditional.pairwise(x, z)  # (j, i): log q(z_i | x_j)
        others = torch.logsumexp(off_diagonal(scores.T), dim=1) - math.log(len(x) - 1)
        return (scores.diagonal() - others).mean()
