"""Estimate the gradient of one problem, as a vector to hold against the truth."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mige.calibration.base import Pairs, Problem, standard_normal
from mige.calibration.gaussian import GaussianPairs
from mige.calibration.memory import peak_memory_bytes
from mige.calibration.network import NetworkEntropy
from mige.calibration.subject import Subject
from mige.checks import check_count
from mige.errors import InvalidInputError

_BATCH_BYTES = 2**26  # of the Gram matrices and rows of the samples that are estimated at once
_TIMED_SECONDS, _LONGEST_TIMED_SECONDS = 0.2, 5.0
_FEWEST_CALLS = 7
_COST_RHO = 0.5


class Accuracy(NamedTuple):
    """How estimates ĝ_s of k numbers, s = 1 … S, compare with the truth g; all without units.

    Norms are over the k numbers: the grid of a scalar parameter, or all weights.
    """

    relative_error: float  # mean over s of |ĝ_s − g| / |g|
    relative_error_std: float | None  # over s; None from one estimate, like every spread here
    bias: float  # |mean ĝ − g| / |g|; what is left of the spread in a mean of S is still in it
    spread: float | None  # root mean square of |ĝ_s − mean ĝ| / |g|
    slope: float  # mean of ⟨ĝ_s, g⟩ / |g|²: below 1 the estimate is shrunk
    slope_std: float | None
    cosine: float  # mean of ⟨ĝ_s, g⟩ / |ĝ_s||g|
    cosine_std: float | None


class Cost(NamedTuple):
    """What one information gradient of one sample costs."""

    ms: float  # median
    peak_bytes: int


def compare(estimates: Float[Tensor, "s k"], truth: Float[Tensor, " k"]) -> Accuracy:
    """Summarise estimates; see `Accuracy`.

    Raises:
        InvalidInputError: the truth vanishes.
    """
    estimates, truth = estimates.double(), truth.double()
    size = truth.norm()
    if not float(size) > 0:
        raise InvalidInputError("truth is zero throughout: give parameters where it is not")
    errors = (estimates - truth).norm(dim=1) / size
    mean = estimates.mean(0)
    along = estimates @ truth
    slopes = along / size.square()
    cosines = along / (estimates.norm(dim=1) * size).clamp(min=torch.finfo(size.dtype).tiny)
    spread = None
    if len(estimates) > 1:
        scatter = (estimates - mean).square().sum() / (len(estimates) - 1)
        spread = float(scatter.sqrt() / size)
    return Accuracy(
        float(errors.mean()),
        _std(errors),
        float((mean - truth).norm() / size),
        spread,
        float(slopes.mean()),
        _std(slopes),
        float(cosines.mean()),
        _std(cosines),
    )


def information_estimate(
    subject: Subject,
    problem: Problem,
    n: int,
    d: int,
    seed: int,
    *,
    grid: Float[Tensor, "p ..."] | None = None,
    dim_x: int | None = None,
    before_batch: Callable[[], None] | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Float[Tensor, " k"]:
    """The estimated gradient of I over a grid of parameters, from n fresh pairs for each.

    Args:
        subject: the estimator.
        problem: what it is tried on.
        n: rows of each sample.
        d: width of x and of z.
        seed: of the samples, drawn on the CPU, and of what the estimator draws.
        grid: the parameters; None is the problem's own grid.
        dim_x: None, or a width of at least d that x is filled up to with independent noise. The
            truth stays the same.
        before_batch: called before each batch of samples is estimated; may raise to stop.
        dtype: of the samples.
        device: where they are estimated; None is the CPU.

    Returns:
        One number per parameter of the grid, or per entry of a matrix, in float64 on the CPU.

    Raises:
        InvalidInputError: n or d is below 1, or does not suit the estimator.
        NumericalError: an estimate is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    grid = (problem.grid(d) if grid is None else grid).to(dtype)
    fill = noise_columns(d, dim_x)
    batch, parts = _batch(n, d, dtype), []
    for start in range(0, len(grid), batch):
        leaf = grid[start : start + batch].clone().requires_grad_()
        if before_batch is not None:
            before_batch()
        # One draw per parameter: what is drawn does not depend on how many fit in a batch.
        pairs = [_filled(problem.sample(n, d, entry, generator), fill, generator) for entry in leaf]
        x = torch.stack([pair.x for pair in pairs])
        z = torch.stack([pair.z for pair in pairs])
        on_device = z.detach().to(device or "cpu")
        rows = subject.gradient(x.to(on_device), on_device, seed).to(z)
        surrogate = (rows * z).sum(-1).mean(-1).sum()
        parts.append(torch.autograd.grad(surrogate, leaf)[0].flatten().double())
    return torch.cat(parts)


def entropy_estimate(
    subject: Subject,
    problem: NetworkEntropy,
    n: int,
    d: int,
    seed: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Float[Tensor, " k"]:
    """The estimated entropy gradient in all weights, from n fresh rows of width d.

    Arguments as for `information_estimate`; the rows are drawn and embedded in float64.

    Raises:
        InvalidInputError: n or d is below 1, or the subject gives no scores.
        NumericalError: an estimate is not finite.
    """
    inputs = problem.inputs(n, d, torch.Generator().manual_seed(seed))
    parameter = problem.parameter(d).requires_grad_()
    z = problem.embed(inputs, parameter)
    score = subject.score(z.detach()[None].to(dtype).to(device or "cpu"))
    surrogate = -(score[0].to(z) * z).sum(-1).mean()
    return torch.autograd.grad(surrogate, parameter)[0]


def measure_cost(
    subject: Subject,
    n: int,
    d: int,
    *,
    dim_x: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Cost:
    """Time and peak memory of one information gradient of one sample of n pairs, after a warm-up.

    Args:
        subject: the estimator.
        n: rows.
        d: width of z, and of x unless `dim_x` says otherwise.
        dim_x: width of x, at least d.
        dtype: of the rows.
        device: where they are; None is the CPU.
    """
    rho = torch.tensor([_COST_RHO], dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    pairs = _filled(
        GaussianPairs().sample(n, d, rho, generator), noise_columns(d, dim_x), generator
    )
    x, z = (rows.to(device or "cpu") for rows in pairs)

    def call() -> None:
        subject.gradient(x, z, 0)

    peak = peak_memory_bytes(call, x.device)  # also the warm-up
    times: list[float] = []
    while sum(times) < _TIMED_SECONDS or len(times) < _FEWEST_CALLS:
        if sum(times) > _LONGEST_TIMED_SECONDS:
            break
        start = time.perf_counter()
        call()
        if x.is_cuda:
            torch.cuda.synchronize(x.device)
        times.append(time.perf_counter() - start)
    return Cost(1e3 * statistics.median(times), peak)


def truth_of(problem: Problem | NetworkEntropy, d: int) -> Float[Tensor, " k"]:
    """The exact gradient in the order of the estimates, float64."""
    if isinstance(problem, NetworkEntropy):
        return problem.truth(d)
    return problem.truth(problem.grid(d), d).flatten()


def noise_columns(d: int, dim_x: int | None) -> int:
    """How many columns of noise make x, of width d, `dim_x` wide; none if that is None.

    Raises:
        InvalidInputError: `dim_x` is below d.
    """
    columns = 0 if dim_x is None else check_count("dim_x", dim_x) - check_count("d", d)
    if columns < 0:
        raise InvalidInputError(f"dim_x={dim_x}: give at least the width d={d}")
    return columns


def _batch(n: int, d: int, dtype: torch.dtype) -> int:
    """How many samples to estimate at once."""
    bytes_each = n * (n + 4 * d) * dtype.itemsize
    return max(1, _BATCH_BYTES // bytes_each)


def _filled(pairs: Pairs, fill: int, generator: torch.Generator) -> Pairs:
    if fill == 0:
        return pairs
    noise = standard_normal(pairs.x.shape[-2], fill, pairs.x, generator, event=2)
    return Pairs(torch.cat([pairs.x, noise], dim=-1), pairs.z)


def _std(values: Float[Tensor, " s"]) -> float | None:
    return float(values.std()) if len(values) > 1 else None
