"""Iterative solutions of Γ s = −ζ by products with Γ alone; nothing is read back from the device.

All run a fixed number of steps, so that the work is known beforehand and needs no waiting.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mige.kernels import KernelOperator


class Step(NamedTuple):
    """One step s ← s + momentum (s − s_before) − size (ζ + Γ s) / bound."""

    momentum: float
    size: float


def iterate(
    operator: KernelOperator, across: KernelOperator | None, steps: Iterable[Step]
) -> Float[Tensor, "*b n d"]:
    """Run steps from s = 0 with Γ and ζ divided by an upper bound of Γ's largest eigenvalue.

    Every step is a combination of ζ as a function and of the kernel at the samples,
    s(·) = −a ζ(·) + Γ(·, X) c, which is how it extends to queries.

    Args:
        operator: Γ between the samples.
        across: Γ between queries and samples; None asks for the score at the samples.
        steps: sizes up to 1 are safe without momentum.
    """
    bound = operator.norm_bound()[..., None, None]
    right = operator.divergence() / bound
    score = before = torch.zeros_like(right)
    weights = weights_before = torch.zeros_like(right)
    share, share_before = 0.0, 0.0
    for momentum, size in steps:
        residual = right + operator.apply(score) / bound
        if across is not None:
            weights, weights_before = (
                weights + momentum * (weights - weights_before) - size * score,
                weights,
            )
            share, share_before = share + momentum * (share - share_before) + size, share
        score, before = score + momentum * (score - before) - size * residual, score
    if across is None:
        return score
    return (across.apply(weights) - share * across.divergence()) / bound


class ConjugateGradients(NamedTuple):
    """A score and how far it is from solving its equation."""

    score: Float[Tensor, "*b n d"]
    residual: Float[Tensor, "*b"]  # |ζ + (Γ + shift) s| / |ζ| at the samples


def conjugate_gradients(
    operator: KernelOperator, across: KernelOperator | None, shift: float, *, steps: int
) -> ConjugateGradients:
    """Solve (Γ + shift · I) s = −ζ by a fixed number of steps; a step after the solution is idle.

    As in `iterate`, every quantity is a function a ζ(·) + Γ(·, X) c that is followed to the
    queries, so that what they get belongs to what the samples get, converged or not.

    Args:
        operator: Γ between the samples.
        across: Γ between queries and samples; None asks for the score at the samples.
        shift: above 0.
        steps: their number.
    """
    right = operator.divergence()
    nothing, one = torch.zeros_like(right), torch.ones_like(right[..., 0, 0])
    solution = _Function(torch.zeros_like(one), nothing, nothing)
    residual = direction = _Function(one, nothing, right)
    square = start = _square(right)
    for _ in range(steps):
        image = operator.apply(direction.values) + shift * direction.values
        length = _ratio(square, (direction.values * image).sum((-2, -1)))
        solution = solution.plus(length, direction)
        residual = _Function(
            1.0 - shift * solution.share,
            -solution.values - shift * solution.weights,
            residual.values - length[..., None, None] * image,
        )
        square, previous = _square(residual.values), square
        direction = residual.plus(_ratio(square, previous), direction)
    score = solution.values
    if across is not None:
        shared = solution.share[..., None, None] * across.divergence()
        score = shared + across.apply(solution.weights)
    return ConjugateGradients(-score, _ratio(square, start).sqrt())


class _Function(NamedTuple):
    """The function share · ζ(·) + Γ(·, X) weights, and its values at the samples."""

    share: Float[Tensor, "*b"]
    weights: Float[Tensor, "*b n d"]
    values: Float[Tensor, "*b n d"]

    def plus(self, factor: Float[Tensor, "*b"], other: "_Function") -> "_Function":
        wide = factor[..., None, None]
        return _Function(
            self.share + factor * other.share,
            self.weights + wide * other.weights,
            self.values + wide * other.values,
        )


def _square(rows: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b"]:
    return rows.square().sum((-2, -1))


def _ratio(part: Float[Tensor, "*b"], whole: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Their ratio; 0 where `whole` is not positive, NaN where it is NaN."""
    return torch.where(whole <= 0, 0.0, part / whole)
