"""Train a bound's own parameters."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mige.bounds.base import Bound
from mige.bounds.ensemble import BoundEnsemble
from mige.checks import check_count, check_positive
from mige.errors import InvalidInputError
from mige.linalg import check_finite

Sampler = Callable[[], tuple[Tensor, Tensor]]
"""Gives the pairs (x, z) of the next step."""


def fit_bound(
    bound: Bound | BoundEnsemble,
    sampler: Sampler,
    *,
    steps: int,
    learning_rate: float = 1e-3,
) -> Float[Tensor, "steps ..."]:
    """Minimise `bound.loss` with Adam; the bound's parameters change in place.

    Args:
        bound: a bound, or an ensemble, whose members do not influence one another.
        sampler: called once a step. Fresh draws every time for what the bound can do at best;
            `minibatches(x, z, ...)` for a fixed sample, which a critic with many parameters
            overfits within a few hundred steps; the more so if rows keep their order, where a bound
            with few false pairs per row sees the same ones at every step.
        steps: number of Adam steps.
        learning_rate: Adam's.

    Returns:
        The loss before each step, detached. A bound without parameters (KSG) has nothing to fit
        and gives no losses.

    Raises:
        InvalidInputError: `steps` or `learning_rate` is out of range, or the sampler's rows do not
            fit the bound.
        NumericalError: a loss was not finite.
    """
    check_count("steps", steps)
    check_positive("learning_rate", learning_rate)
    parameters = list(bound.parameters())
    if not parameters:
        return torch.zeros(0)
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    was_training = bound.training
    bound.train()
    losses = []
    for _ in range(steps):
        loss = bound.loss(*sampler())
        optimizer.zero_grad()
        torch.autograd.backward(loss.sum())
        optimizer.step()
        losses.append(loss.detach())
    bound.train(was_training)
    history = torch.stack(losses)
    check_finite("loss", history)
    return history


def minibatches(
    x: Float[Tensor, "*b n dx"],
    z: Float[Tensor, "*b n dz"],
    *,
    batch_size: int,
    generator: torch.Generator,
) -> Sampler:
    """A sampler of `batch_size` rows of a fixed sample, all different, in a new order each time.

    Args:
        x: rows, on the device of the generator.
        z: paired with those of `x`.
        batch_size: from 2 to n; n takes all rows every time, in another order.
        generator: chooses the rows.

    Raises:
        InvalidInputError: `batch_size` is out of range.
    """
    n = x.shape[-2]
    if check_count("batch_size", batch_size) > n or batch_size < 2:
        raise InvalidInputError(f"batch_size={batch_size}: give a number from 2 to the {n} rows")

    def next_batch() -> tuple[Tensor, Tensor]:
        rows = torch.randperm(n, generator=generator, device=generator.device)[:batch_size]
        return x[..., rows, :], z[..., rows, :]

    return next_batch
