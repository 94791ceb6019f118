"""The calibration card: how far one estimator is from the truth at one n and d, and what it costs.

A JSON document of its own version; `mige.calibration.plot` draws it.
"""

import math
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mige.calibration.base import Problem
from mige.calibration.measure import (
    Accuracy,
    Cost,
    compare,
    entropy_estimate,
    information_estimate,
    measure_cost,
    noise_columns,
    truth_of,
)
from mige.calibration.network import NETWORKS, NetworkEntropy
from mige.calibration.registry import PROBLEMS, SUITE
from mige.calibration.subject import Subject
from mige.checks import check_choice, check_count
from mige.errors import InvalidInputError

FORMAT_VERSION = 1

STANDARD_PROBLEMS = (*SUITE, "gain", "linear_encoder", *NETWORKS)
"""What a card measures unless told otherwise."""

QUICK_PROBLEMS = ("gauss", "mixed", "asinh", "sin", "network")
"""One of each kind: easy, ill-conditioned, bent, not linear, a whole network."""

Progress = Callable[[int, int, str], None]
"""Told (done, total, problem) before each estimate and once at the end."""


@dataclass(frozen=True, kw_only=True)
class ProblemResult:
    """One problem of a card.

    Attributes:
        accuracy: see `Accuracy`.
        seeds: how many estimates it is made from.
        curve: for a scalar parameter, its grid, truth, and mean and spread of the estimates.
    """

    accuracy: Accuracy
    seeds: int
    curve: Mapping[str, Sequence[float]] | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        curve = None if self.curve is None else {k: list(v) for k, v in self.curve.items()}
        return {**self.accuracy._asdict(), "seeds": self.seeds, "curve": curve}


@dataclass(frozen=True, kw_only=True)
class CalibrationCard:
    """An estimator's accuracy and cost at one n and d.

    Attributes:
        estimator: name of the estimator.
        options: its options.
        n: rows of a sample.
        d: width of z, and of what x has to do with z.
        dim_x: width of x: d, and independent noise beside it where it is larger.
        dtype: of the samples: "float32", say.
        device: where they were estimated: "cpu", "cuda".
        first_seed: the estimates are from this seed and those that follow it.
        complete: False if the measurement was stopped before all seeds of all problems.
        minimum_samples: the rows from which the estimator is meant to work at width d + dim_x.
        problems: results by name. What the estimator cannot do is not among them.
        cost: of one information gradient; None if the measurement was stopped before.
        versions: of the libraries.
    """

    estimator: str
    options: Mapping[str, object]
    n: int
    d: int
    dim_x: int
    dtype: str
    device: str
    first_seed: int
    complete: bool
    minimum_samples: int
    problems: Mapping[str, ProblemResult]
    cost: Cost | None
    versions: Mapping[str, str]

    @property
    def suite_error(self) -> float | None:
        """Geometric mean of the relative errors over the suite; None unless all are measured."""
        if not set(SUITE) <= self.problems.keys():
            return None
        errors = [self.problems[name].accuracy.relative_error for name in SUITE]
        return math.exp(math.fsum(map(math.log, errors)) / len(errors))

    def to_dict(self) -> dict[str, Any]:
        """The content of `card.json`; see the README for its keys."""
        return {
            "format_version": FORMAT_VERSION,
            "estimator": {"name": self.estimator, "options": dict(self.options)},
            "n": self.n,
            "d": self.d,
            "dim_x": self.dim_x,
            "dtype": self.dtype,
            "device": self.device,
            "first_seed": self.first_seed,
            "complete": self.complete,
            "minimum_samples": self.minimum_samples,
            "suite_error": self.suite_error,
            "problems": {name: result.to_dict() for name, result in self.problems.items()},
            "cost": None if self.cost is None else self.cost._asdict(),
            "versions": dict(self.versions),
        }


def calibrate(
    subject: Subject,
    *,
    n: int,
    d: int,
    dim_x: int | None = None,
    problems: Collection[str] = STANDARD_PROBLEMS,
    seeds: int = 10,
    first_seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> CalibrationCard:
    """Measure an estimator against exact gradients.

    Goes through all problems with one seed before it takes the next, so a measurement that is
    stopped early still has something to say about each.

    Args:
        subject: the estimator; see `make_subject`.
        n: rows of each sample.
        d: width of z, and of x unless `dim_x` says otherwise.
        dim_x: width of x, at least d: independent noise fills it up, and the truth stays the same.
            So a card can have the very widths of a training.
        problems: names in `PROBLEMS` or `NETWORKS`.
        seeds: estimates per problem.
        first_seed: the first of them.
        dtype: of the samples.
        device: where to estimate; None is the CPU. The samples are drawn on the CPU.
        on_progress: told how far it is.
        should_stop: asked before each batch of samples; True ends the measurement early, perhaps
            with nothing measured. What it raises passes through.

    Raises:
        InvalidInputError: a name is unknown, a number below 1, or no problem suits the estimator.
        NumericalError: an estimate is not finite.
    """
    check_count("n", n)
    check_count("d", d)
    check_count("seeds", seeds)
    noise_columns(d, dim_x)
    suitable = _suitable(subject, problems)
    plan = [(seed, name) for seed in range(first_seed, first_seed + seeds) for name in suitable]

    def pause() -> None:
        if should_stop is not None and should_stop():
            raise _StoppedError

    def estimate(name: str, seed: int) -> Tensor:
        problem = _problem(name)
        if isinstance(problem, NetworkEntropy):
            pause()
            return entropy_estimate(subject, problem, n, d, seed, dtype=dtype, device=device)
        return information_estimate(
            subject,
            problem,
            n,
            d,
            seed,
            dim_x=dim_x,
            before_batch=pause,
            dtype=dtype,
            device=device,
        )

    estimates, complete = _collect(plan, estimate, on_progress)
    cost = None
    if complete:
        cost = measure_cost(subject, n, d, dim_x=dim_x, dtype=dtype, device=device)
        if on_progress is not None:
            on_progress(len(plan), len(plan), suitable[-1])
    return CalibrationCard(
        estimator=subject.name,
        options=subject.options,
        n=n,
        d=d,
        dim_x=dim_x or d,
        dtype=str(dtype).removeprefix("torch."),
        device="cpu" if device is None else device.type,
        first_seed=first_seed,
        complete=complete,
        minimum_samples=subject.minimum_samples(d + (dim_x or d)),
        problems={name: _result(name, torch.stack(e), d) for name, e in estimates.items()},
        cost=cost,
        versions={"python": platform.python_version(), "torch": str(torch.__version__)},
    )


class _StoppedError(Exception):
    """`should_stop` said so."""


def _collect(
    plan: Sequence[tuple[int, str]],
    estimate: Callable[[str, int], Tensor],
    on_progress: Progress | None,
) -> tuple[dict[str, list[Tensor]], bool]:
    """Make the estimates in order; whether all were made."""
    estimates: dict[str, list[Tensor]] = {}
    for done, (seed, name) in enumerate(plan):
        if on_progress is not None:
            on_progress(done, len(plan), name)
        try:
            found = estimate(name, seed)
        except _StoppedError:
            return estimates, False
        estimates.setdefault(name, []).append(found)
    return estimates, True


def _suitable(subject: Subject, problems: Collection[str]) -> list[str]:
    """The problems that this subject can be tried on, each once, in the order given."""
    for name in problems:
        check_choice("problem", name, PROBLEMS.keys() | NETWORKS.keys())
    suitable = [
        name for name in dict.fromkeys(problems) if subject.gives_scores or name in PROBLEMS
    ]
    if not suitable:
        raise InvalidInputError(
            f"problems={list(problems)!r}: {subject.name!r} can be tried on none of them; choose "
            f"at least one of {', '.join(PROBLEMS)}"
        )
    return suitable


def _problem(name: str) -> Problem | NetworkEntropy:
    return NETWORKS[name] if name in NETWORKS else PROBLEMS[name]


def _result(name: str, estimates: Float[Tensor, "s k"], d: int) -> ProblemResult:
    problem = _problem(name)
    truth = truth_of(problem, d)
    curve = None
    if not isinstance(problem, NetworkEntropy) and (grid := problem.grid(d)).ndim == 1:
        curve = {
            "parameter": grid.tolist(),
            "truth": truth.tolist(),
            "mean": estimates.mean(0).tolist(),
            "std": estimates.std(0, correction=int(len(estimates) > 1)).tolist(),
        }
    return ProblemResult(accuracy=compare(estimates, truth), seeds=len(estimates), curve=curve)
