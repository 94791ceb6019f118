"""The calibration card of a job: the job's own estimator and size, in bounded time, never fatal."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch

import mige
from jobs import calibrate as module
from jobs.build import BuiltJob, build
from jobs.calibrate import Calibration, calibrate_job, calibration_text
from jobs.errors import StoppedError
from jobs.spec import EvaluationSpec, JobSpec
from mige.calibration import NETWORKS, QUICK_PROBLEMS


def job(*, asked: bool = True, **changes: Any) -> BuiltJob:
    base: dict[str, Any] = {
        "objective": {"kind": "mige_infomax", "projection_dim": 3},
        "encoder": {"kind": "mlp", "hidden_dims": [4], "out_dim": 2},
        "data": {"kind": "digits"},
        "training": {"batch_size": 24},
        "evaluation": {"calibration": asked},
    }
    spec = JobSpec.model_validate(base | changes).resolved()
    return build(spec, None, device=torch.device("cpu"))


def calibrated(built: BuiltJob, told: list[dict[str, Any]] | None = None, **options: Any):
    tell = (lambda _: None) if told is None else told.append
    return calibrate_job(built, **{"obey": lambda: None, "tell": tell, **options})


@pytest.fixture(scope="module")
def done() -> tuple[Calibration, list[dict[str, Any]]]:
    told: list[dict[str, Any]] = []
    outcome = calibrated(job(), told)
    assert outcome is not None
    return outcome, told


def test_no_card_unless_asked():
    assert not EvaluationSpec().calibration
    told: list[dict[str, Any]] = []
    assert calibrated(job(asked=False), told) is None
    assert told == []


def test_the_card_is_of_the_estimator_the_batch_and_the_widths_of_the_job(done):
    card = done[0].card
    assert card.estimator == "spectral"
    assert card.options["explained"] == 0.99
    assert (card.n, card.d, card.dim_x) == (24, 2, 3)
    assert list(card.problems) == list(QUICK_PROBLEMS)
    assert {result.seeds for result in card.problems.values()} == {3}
    assert card.complete
    assert card.cost is not None


def test_the_files_are_a_document_and_a_picture(done):
    files = done[0].files()
    assert set(files) == {"calibration.json", "calibration.png"}
    assert json.loads(files["calibration.json"])["n"] == 24
    assert files["calibration.png"].startswith(b"\x89PNG")


def test_it_tells_that_it_begins_and_what_it_found(done):
    first, *_, last = done[1]
    assert first == {"done": 0, "total": 15, "problem": "gauss"}
    assert last["complete"] is True
    assert set(last["relative_error"]) == set(last["cosine"]) == set(QUICK_PROBLEMS)
    assert json.dumps(last, allow_nan=False)


def test_the_model_card_shows_the_numbers(done):
    text = calibration_text(done[0])
    error = done[0].card.problems["gauss"].accuracy.relative_error
    assert f"| gauss | {100 * error:.1f} % |" in text
    assert "with 24 samples, z of width 2 and x of width 3" in text
    assert calibration_text(None) == ""


def test_progress_is_told_every_few_seconds():
    told: list[dict[str, Any]] = []
    clock = itertools.count(step=0.3)  # asked a few times an estimate
    calibrated(job(), told, clock=lambda: float(next(clock)))
    steps = [data["done"] for data in told if "done" in data]
    assert 1 < len(steps) < 10
    assert steps == sorted(set(steps))


def test_it_ends_when_the_time_is_over_with_what_it_has():
    clock = itertools.count(step=10.0)
    outcome = calibrated(job(), clock=lambda: float(next(clock)))
    assert outcome is not None
    assert outcome.card is not None
    assert not outcome.card.complete
    assert 0 < len(outcome.card.problems) < len(QUICK_PROBLEMS)
    assert "stopped early" in calibration_text(outcome)


def test_where_not_even_one_estimate_fits_there_is_a_reason_and_no_file():
    told: list[dict[str, Any]] = []
    clock = itertools.count(step=100.0)
    outcome = calibrated(job(), told, clock=lambda: float(next(clock)))
    assert outcome is not None
    assert outcome.card is None
    assert outcome.files() == {}
    assert "more than 60 s" in told[-1]["problem"]
    assert "was not calibrated: one estimate takes more than 60 s." in calibration_text(outcome)


def test_a_command_to_stop_is_obeyed_between_the_estimates():
    asked: list[None] = []

    def obey() -> None:
        asked.append(None)
        if len(asked) == 3:
            raise StoppedError("cancel")

    with pytest.raises(StoppedError):
        calibrated(job(), obey=obey)
    assert len(asked) == 3


def test_an_estimator_that_fails_costs_the_card_and_not_the_encoder(monkeypatch):
    def failing(*_arguments: object, **_options: object) -> None:
        raise mige.NumericalError("the score holds 1 of 48 values that are NaN")

    monkeypatch.setattr(module, "calibrate", failing)
    told: list[dict[str, Any]] = []
    outcome = calibrated(job(), told)
    assert outcome == Calibration(card=None, problem="the score holds 1 of 48 values that are NaN")
    assert told == [{"problem": "the score holds 1 of 48 values that are NaN"}]


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        (
            {"objective": {"kind": "mige_infomax", "route": "conditional", "noise_std": 0.1}},
            {"n": 24, "d": 2, "dim_x": 2, "problems": tuple(NETWORKS)},
        ),
        (
            {"objective": {"kind": "mige_infomax", "projection_dim": 1, "bank_size": 40}},
            {"n": 64, "d": 2, "dim_x": 2, "problems": QUICK_PROBLEMS},
        ),
        (
            {"encoder": {"kind": "mlp", "out_dim": 600}},
            {"n": 24, "d": 600, "dim_x": 600, "problems": ("gauss", "asinh", "sin")},
        ),
    ],
)
def test_what_is_measured_follows_the_objective(monkeypatch, changes, asked):
    found: dict[str, Any] = {}

    def remember(_subject: object, **options: Any) -> None:
        found.update(options)
        raise mige.InvalidInputError("enough")

    monkeypatch.setattr(module, "calibrate", remember)
    calibrated(job(**changes))
    assert {key: found[key] for key in asked} == asked


def test_a_wide_conditional_job_is_told_why_it_has_no_card():
    objective = {"kind": "mige_infomax", "route": "conditional", "noise_std": 0.1}
    outcome = calibrated(job(objective=objective, encoder={"kind": "mlp", "out_dim": 600}))
    assert outcome == Calibration(card=None, problem="its embedding is wider than 512.")


def test_a_conditional_job_gets_a_card_too():
    built = job(
        objective={"kind": "mige_infomax", "route": "conditional", "noise_std": 0.1,
                   "estimator": {"kind": "gaussian_residual"}}
    )  # fmt: skip
    outcome = calibrated(built)
    assert outcome is not None
    assert outcome.card is not None
    assert list(outcome.card.problems) == list(NETWORKS)
    assert set(outcome.files()) == {"calibration.json", "calibration.png"}
