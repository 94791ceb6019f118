"""Densities that are fitted by maximum likelihood: q(z | x) and q(z)."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mige.bounds.critics import Critic, mlp
from mige.checks import check_count, check_counts

_LOG_STD_LIMIT = 6.0  # std between 1/400 and 400 units of z: no division by a vanishing width


class GaussianConditional(Critic):
    """log q(z | x) of z | x ~ N(μ(x), diag σ(x)²), in nats; μ and log σ are one network.

    It is a critic as well: f(x, z) = log q(z | x).

    Args:
        dim_x: width of x.
        dim_z: width of z.
        hidden: widths of the hidden layers.
    """

    def __init__(self, dim_x: int, dim_z: int, *, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.network = mlp(
            check_count("dim_x", dim_x),
            check_counts("hidden", hidden),
            2 * check_count("dim_z", dim_z),
        )

    def forward(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, " n"]:
        """Entry i is log q(z_i | x_i)."""
        mean, log_std = self._parameters_at(x)
        return _log_normal((z - mean) / log_std.exp(), log_std)

    def pairwise(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "m dz"]) -> Float[Tensor, "n m"]:
        """Entry (i, j) is log q(z_j | x_i)."""
        mean, log_std = self._parameters_at(x)
        # |(z − μ)/σ|² as three matrix products instead of (n, m, dz) differences; both sides are
        # centred first, because the expansion loses digits far from the origin.
        centre = z.mean(0).detach()
        mean, z = mean - centre, z - centre
        precision = (-2.0 * log_std).exp()
        squared = precision @ z.square().T - 2.0 * (precision * mean) @ z.T
        squared = squared + (precision * mean.square()).sum(1)[:, None]
        return -0.5 * squared - (log_std.sum(1) + 0.5 * z.shape[1] * math.log(2 * math.pi))[:, None]

    def _parameters_at(self, x: Float[Tensor, "n dx"]) -> tuple[Tensor, Tensor]:
        mean, raw = self.network(x).chunk(2, dim=1)
        return mean, _LOG_STD_LIMIT * torch.tanh(raw / _LOG_STD_LIMIT)


class GaussianMixture(nn.Module):
    """log q(z) of a mixture of Gaussians with diagonal covariances, in nats.

    Args:
        dim: width of z.
        components: number of Gaussians.
    """

    def __init__(self, dim: int, *, components: int) -> None:
        super().__init__()
        shape = (check_count("components", components), check_count("dim_z", dim))
        self.logits = nn.Parameter(torch.zeros(components))
        # Started apart, or all components would stay the same one.
        self.means = nn.Parameter(0.5 * torch.randn(shape))
        self.log_stds = nn.Parameter(torch.zeros(shape))

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """Entry i is log q(z_i)."""
        standard = (z[:, None] - self.means) / self.log_stds.exp()  # (n, components, d)
        each = _log_normal(standard, self.log_stds)
        return torch.logsumexp(each + self.logits.log_softmax(0), dim=1)


def _log_normal(standard: Float[Tensor, "... d"], log_std: Float[Tensor, "... d"]) -> Tensor:
    """Sum over features of log N, of values that are already centred and divided by their std."""
    constant = 0.5 * math.log(2.0 * math.pi)
    return (-0.5 * standard.square() - log_std - constant).sum(-1)
