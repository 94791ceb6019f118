"""InfoNCE: the contrastive bound."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from mige.bounds.base import CriticBound


class InfoNCE(CriticBound):
    r"""I(x; z) ≥ E[log (e^{f(x_i, z_i)} / (1/(k+1)) Σ_j e^{f(x_i, z_j)})], j over z_i and k others.

    A lower bound for every critic, and never above log(k + 1), k = n − 1 unless `num_negatives`
    says less: where I is larger, the value saturates there and the gradient fades. Small variance.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        critic: a name in `CRITICS`.
        hidden: widths of the critic's hidden layers; None takes the critic's own.
        num_negatives: k; None takes all n − 1 others.

    Raises:
        InvalidInputError: an argument is not acceptable.

    Source:
        van den Oord, Li and Vinyals, 2018 (arXiv 1807.03748); Poole et al., ICML 2019 (arXiv
        1905.06922).
    """

    direction = "lower"

    def _value(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, ""]:
        positives, negatives = self._scores(x, z)
        candidates = torch.cat([positives[:, None], negatives], dim=1)
        log_total = torch.logsumexp(candidates, dim=1)
        return (positives - log_total).mean() + math.log(candidates.shape[1])
