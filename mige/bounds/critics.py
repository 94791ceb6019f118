"""Critics f(x, z): networks that score how well x and z belong together.

A critic is called with paired rows, `critic(x, z)`, or for every combination, `critic.pairwise`.
Cost of the latter for n rows and hidden width h: bilinear and separable O(n²) after O(n) network
rows, concat O(n² h).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mige.checks import check_counts
from mige.errors import InvalidInputError
from mige.registry import build_from_registry


class Critic(nn.Module, ABC):
    """A function of a pair, f(x, z)."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, " n"]:
        """Entry i is f(x_i, z_i)."""

    @abstractmethod
    def pairwise(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "m dz"]) -> Float[Tensor, "n m"]:
        """Entry (i, j) is f(x_i, z_j)."""


class BilinearCritic(Critic):
    """f(x, z) = xᵀ W z, with W starting at zero: no dependence until it learns some.

    Args:
        dim_x: width of x.
        dim_z: width of z.
    """

    def __init__(self, dim_x: int, dim_z: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim_x, dim_z))

    def forward(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, " n"]:
        """Entry i is f(x_i, z_i)."""
        return ((x @ self.weight) * z).sum(1)

    def pairwise(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "m dz"]) -> Float[Tensor, "n m"]:
        """Entry (i, j) is f(x_i, z_j)."""
        return (x @ self.weight) @ z.T


class SeparableCritic(Critic):
    """f(x, z) = φ(x)ᵀ ψ(z) with two networks of equal shape.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        hidden: widths of the layers; the last one is the width of φ and ψ.
    """

    def __init__(self, dim_x: int, dim_z: int, *, hidden: Sequence[int] = (256, 256, 32)) -> None:
        super().__init__()
        *inner, width = _check_hidden(hidden)
        self.embed_x = mlp(dim_x, inner, width)
        self.embed_z = mlp(dim_z, inner, width)

    def forward(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, " n"]:
        """Entry i is f(x_i, z_i)."""
        scores: Tensor = (self.embed_x(x) * self.embed_z(z)).sum(1)
        return scores

    def pairwise(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "m dz"]) -> Float[Tensor, "n m"]:
        """Entry (i, j) is f(x_i, z_j)."""
        scores: Tensor = self.embed_x(x) @ self.embed_z(z).T
        return scores


class ConcatCritic(Critic):
    """f(x, z) = network of the two concatenated.

    Args:
        dim_x: width of x.
        dim_z: width of z.
        hidden: widths of the hidden layers, at least one.
    """

    def __init__(self, dim_x: int, dim_z: int, *, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        hidden = _check_hidden(hidden)
        self.first = nn.Linear(dim_x + dim_z, hidden[0])
        self.rest = nn.Sequential(nn.ReLU(), mlp(hidden[0], hidden[1:], 1))

    def forward(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "n dz"]) -> Float[Tensor, " n"]:
        """Entry i is f(x_i, z_i)."""
        scores: Tensor = self.rest(self.first(torch.cat([x, z], dim=1))).squeeze(-1)
        return scores

    def pairwise(self, x: Float[Tensor, "n dx"], z: Float[Tensor, "m dz"]) -> Float[Tensor, "n m"]:
        """Entry (i, j) is f(x_i, z_j); holds (n, m, hidden) numbers for each layer."""
        # A linear layer of a concatenation is the sum of one layer for each part.
        weight_x, weight_z = self.first.weight.tensor_split([x.shape[1]], dim=1)
        first = (x @ weight_x.T + self.first.bias)[:, None] + (z @ weight_z.T)[None]
        scores: Tensor = self.rest(first).squeeze(-1)
        return scores


CRITICS: Mapping[str, Callable[..., Critic]] = MappingProxyType(
    {"bilinear": BilinearCritic, "concat": ConcatCritic, "separable": SeparableCritic}
)


def make_critic(name: str, dim_x: int, dim_z: int, hidden: Sequence[int] | None = None) -> Critic:
    """Build a critic of `CRITICS`; `hidden` None takes the critic's own widths.

    Raises:
        InvalidInputError: the name is unknown, a width is not an integer of at least 1, or this
            critic has no hidden layer.
    """
    options: dict[str, object] = {"dim_x": dim_x, "dim_z": dim_z}
    if hidden is not None:
        options["hidden"] = hidden
    return build_from_registry(CRITICS, "critic", name, options)


def _check_hidden(hidden: Sequence[int]) -> tuple[int, ...]:
    widths = check_counts("hidden", hidden)
    if not widths:
        raise InvalidInputError("hidden=() is empty: give at least one width")
    return widths


def mlp(dim_in: int, hidden: Sequence[int], dim_out: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise([dim_in, *hidden]):
        layers += [nn.Linear(width_in, width_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1] if hidden else dim_in, dim_out))


class PairScores(NamedTuple):
    """A critic's scores of true pairs and of pairs that do not belong together."""

    positives: Float[Tensor, " n"]  # f(x_i, z_i)
    negatives: Float[Tensor, "n k"]  # f(x_i, z_j), j from `partners`


def partners(n: int, num_negatives: int | None, device: torch.device) -> Int[Tensor, "n k"]:
    """Row i lists the j ≠ i whose z makes a false pair with x_i.

    All n − 1 others, or the next `num_negatives` rows in cyclic order. Rows are drawn
    independently, so a shift breaks the pairs as well as a random permutation does, never leaves
    one in place, and keeps the value a pure function of the rows.
    """
    rows = torch.arange(n, device=device)
    if num_negatives is None or num_negatives >= n - 1:
        return off_diagonal(rows.expand(n, n))
    return (rows[:, None] + torch.arange(1, num_negatives + 1, device=device)) % n


def score_pairs(
    critic: Critic,
    x: Float[Tensor, "n dx"],
    z: Float[Tensor, "n dz"],
    num_negatives: int | None = None,
) -> PairScores:
    """Score the true pairs and, for each x, all the others or `num_negatives` of them."""
    n = len(x)
    if num_negatives is None or num_negatives >= n - 1:
        scores = critic.pairwise(x, z)
        return PairScores(scores.diagonal(), off_diagonal(scores))
    others = z[partners(n, num_negatives, z.device)].flatten(0, 1)
    negatives: Tensor = critic(x.repeat_interleave(num_negatives, dim=0), others)
    return PairScores(critic(x, z), negatives.reshape(n, num_negatives))


def off_diagonal(matrix: Tensor) -> Tensor:
    """Drop the diagonal of an (n, n) matrix: row i of (n, n − 1) keeps its order."""
    n = len(matrix)
    # Without its first entry, the flat matrix has a diagonal entry at the end of every n + 1.
    return matrix.flatten()[1:].reshape(n - 1, n + 1)[:, :-1].reshape(n, n - 1)
