"""The calibration card of a job: its own estimator, at its own batch and widths, beside the truth.

What a training maximises is estimated; the card says how well, on problems of the same size whose
gradient is known exactly. It takes at most about `CALIBRATION_S` and never fails a job: an encoder
is worth publishing without it.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mige
from jobs.build import BuiltJob, build_estimator
from jobs.feasibility import kernel_samples
from jobs.spec import JobSpec
from mige.calibration import (
    NETWORKS,
    QUICK_PROBLEMS,
    CalibrationCard,
    ScoreSubject,
    calibrate,
)

CALIBRATION_FILE, CALIBRATION_PLOT = "calibration.json", "calibration.png"
CALIBRATION_S = 60.0
SEEDS = 3
REPORT_EVERY_S = 5.0
WIDEST = 512
"""Beyond this width what needs d × d matrices of its own is left out: it has no pause in it."""
_DPI = 100

Clock = Callable[[], float]
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A card, or why there is none."""

    card: CalibrationCard | None
    problem: str | None = None

    def files(self) -> dict[str, bytes]:
        """What is published: the card and its picture; nothing without a card."""
        if self.card is None:
            return {}
        # On the training side only, and only where a card is asked for: a second of start-up.
        from mige.calibration.plot import draw_card

        image = io.BytesIO()
        draw_card(self.card).savefig(image, format="png", dpi=_DPI)
        text = json.dumps(self.card.to_dict(), indent=2, allow_nan=False) + "\n"
        return {CALIBRATION_FILE: text.encode(), CALIBRATION_PLOT: image.getvalue()}


def calibrate_job(
    job: BuiltJob, *, obey: Callable[[], None], tell: Tell, clock: Clock = time.monotonic
) -> Calibration | None:
    """Measure the job's estimator, if the spec asks for it.

    n is the number of rows one estimate sees, a full bank included. On the joint route z is as wide
    as the embedding and x as its projection (at least as wide as z); on the conditional route,
    where H(z) alone is estimated, there are only entropies of networks.

    Args:
        job: says which estimator, at what size, on which device.
        obey: called before each batch of samples; raises to stop.
        tell: told every few seconds how far it is (`done`, `total`, `problem`), and at the end what
            was found.
        clock: seconds; ends the measurement.

    Returns:
        None if the spec does not ask.
    """
    if not job.spec.evaluation.calibration:
        return None
    shape = _widths_and_problems(job.spec)
    if not shape["problems"]:
        return Calibration(card=None, problem=f"its embedding is wider than {WIDEST}.")
    deadline, told_at = clock() + CALIBRATION_S, clock()

    def should_stop() -> bool:
        obey()
        return clock() > deadline

    def on_progress(done: int, total: int, problem: str) -> None:
        nonlocal told_at
        if done == 0 or clock() - told_at >= REPORT_EVERY_S:
            told_at = clock()
            tell({"done": done, "total": total, "problem": problem})

    try:
        card = calibrate(
            _subject(job.spec),
            n=kernel_samples(job.spec),
            **shape,
            seeds=SEEDS,
            device=job.device,
            on_progress=on_progress,
            should_stop=should_stop,
        )
    except mige.MigeError as error:
        outcome = Calibration(card=None, problem=str(error))
    else:
        outcome = _outcome(card)
    tell(summary(outcome))
    return outcome


def summary(calibration: Calibration) -> dict[str, Any]:
    """What is told of a calibration: errors and cosines by problem, or why there are none."""
    card = calibration.card
    if card is None:
        return {"problem": calibration.problem}
    return {
        "n": card.n,
        "d": card.d,
        "dim_x": card.dim_x,
        "complete": card.complete,
        "relative_error": {k: v.accuracy.relative_error for k, v in card.problems.items()},
        "cosine": {k: v.accuracy.cosine for k, v in card.problems.items()},
    }


def calibration_text(calibration: Calibration | None) -> str:
    """The section of the model card; empty if no calibration was asked for."""
    if calibration is None:
        return ""
    card = calibration.card
    if card is None:
        return f"\n## Calibration\n\nThe estimator was not calibrated: {calibration.problem}\n"
    lines = [
        f"| {name} | {100 * a.relative_error:.1f} % | {a.slope:.2f} | {a.cosine:.3f} |"
        for name, a in ((name, result.accuracy) for name, result in card.problems.items())
    ]
    early = "" if card.complete else " The measurement was stopped early."
    return "\n".join(
        [
            "",
            "## Calibration",
            "",
            f"`{card.estimator}` with {card.n} samples, z of width {card.d} and x of width "
            f"{card.dim_x}, on problems whose gradient is known exactly.{early}",
            "",
            "| problem | relative error | slope | cosine |",
            "|---|---|---|---|",
            *lines,
            "",
            f"`{CALIBRATION_FILE}` holds all numbers, `{CALIBRATION_PLOT}` the curves.",
            "",
        ]
    )


def _outcome(card: CalibrationCard) -> Calibration:
    if card.problems:
        return Calibration(card=card)
    return Calibration(card=None, problem=f"one estimate takes more than {CALIBRATION_S:.0f} s.")


def _subject(spec: JobSpec) -> ScoreSubject:
    estimator = spec.objective.estimator
    options = estimator.model_dump(mode="json", exclude={"kind"})
    return ScoreSubject(build_estimator(estimator), estimator.kind, options)


def _widths_and_problems(spec: JobSpec) -> dict[str, Any]:
    width, projection = spec.encoder.out_dim, spec.objective.projection_dim
    problems = tuple(NETWORKS) if projection is None else QUICK_PROBLEMS  # None: conditional route
    if width > WIDEST:
        problems = tuple(name for name in problems if name not in {"mixed", *NETWORKS})
    return {"d": width, "dim_x": max(width, projection or 0), "problems": problems}
