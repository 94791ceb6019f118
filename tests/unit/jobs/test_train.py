"""The loop: resumes to the very same weights, obeys, tells, and never goes on from NaN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import train as loop
from jobs.build import BuiltJob, build
from jobs.errors import DivergedError, StoppedError
from jobs.reporters import CommandName
from jobs.run_directory import RunDirectory
from jobs.spec import JobSpec
from jobs.train import train
from jobs.wire import Report

CPU = torch.device("cpu")
TINY: dict[str, Any] = {
    "objective": {"kind": "mige_infomax", "noise_std": 0.1},  # noise: the generators count too
    "encoder": {"kind": "mlp", "hidden_dims": [16], "out_dim": 3},
    "data": {"kind": "digits"},
    "training": {"epochs": 4, "batch_size": 16, "limit_train_rows": 70, "schedule": "cosine"},
    "checkpoint": {"every_steps": 3},
    "resources": {"backend": "inline"},
}
TOTAL_STEPS = 16


class ScriptedReporter:
    """Keeps reports; gives a command from the n-th time on that it is asked."""

    def __init__(self, command: CommandName = "continue", *, after: int = 0) -> None:
        self.rank, self.world_size = 0, 1
        self.reports: list[Report] = []
        self.asked = 0
        self._command, self._after = command, after

    def report(self, report: Report) -> None:
        self.reports.append(report)

    def command(self) -> CommandName:
        self.asked += 1
        return self._command if self.asked > self._after else "continue"

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [report.data for report in self.reports if report.kind == kind]


def job(**changes: Any) -> BuiltJob:
    return build(JobSpec.model_validate(TINY | changes).resolved(), None, device=CPU)


def attempt(storage: Path, fence: int = 1) -> RunDirectory:
    run = RunDirectory(storage, "job_1", fence)
    run.root.mkdir(parents=True, exist_ok=True)
    return run


def weights(built: BuiltJob) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in built.module.state_dict().items()}


def assert_same(a: BuiltJob, b: BuiltJob) -> None:
    for key, value in weights(a).items():
        assert torch.equal(value, b.module.state_dict()[key]), key


def test_two_runs_of_one_spec_give_the_same_weights(tmp_path):
    first, second = job(), job()
    train(first, attempt(tmp_path / "a"), ScriptedReporter())
    torch.randn(5)  # whatever happened in the process before
    train(second, attempt(tmp_path / "b"), ScriptedReporter())
    assert_same(first, second)


@pytest.mark.parametrize("steps_before", [0, 1, 4, 7, 15])
def test_a_paused_run_goes_on_to_exactly_the_weights_of_an_unbroken_one(tmp_path, steps_before):
    whole, first, second = job(), job(), job()
    train(whole, attempt(tmp_path / "whole"), ScriptedReporter())
    with pytest.raises(StoppedError):
        train(first, attempt(tmp_path, 1), ScriptedReporter("pause", after=steps_before))
    reporter = ScriptedReporter()
    result = train(second, attempt(tmp_path, 2), reporter)
    assert reporter.of("attempt.resumed") == [{"step": steps_before, "fence": 1}]
    assert (result.resumed_step, result.steps) == (steps_before, TOTAL_STEPS)
    assert_same(whole, second)


def test_a_paused_run_goes_on_with_the_same_bank_of_past_rows(tmp_path):
    objective = {"kind": "mige_infomax", "bank_size": 40}
    whole, paused, resumed = (job(objective=objective) for _ in range(3))
    train(whole, attempt(tmp_path / "whole"), ScriptedReporter())
    with pytest.raises(StoppedError):
        train(paused, attempt(tmp_path / "parts"), ScriptedReporter("pause", after=7))
    train(resumed, attempt(tmp_path / "parts", fence=2), ScriptedReporter())
    assert_same(whole, resumed)
    assert any(key.endswith("bank.rows") for key in weights(resumed))


def test_a_lost_attempt_goes_on_from_its_last_checkpoint(tmp_path):
    whole, first, second = job(), job(), job()
    train(whole, attempt(tmp_path / "whole"), ScriptedReporter())
    with pytest.raises(StoppedError):  # a cancel saves nothing, like a kill
        train(first, attempt(tmp_path, 1), ScriptedReporter("cancel", after=8))
    reporter = ScriptedReporter()
    train(second, attempt(tmp_path, 2), reporter)
    assert reporter.of("attempt.resumed") == [{"step": 6, "fence": 1}]
    assert_same(whole, second)


def test_a_corrupt_checkpoint_is_told_and_the_one_before_is_taken(tmp_path):
    whole, first, second = job(), job(), job()
    train(whole, attempt(tmp_path / "whole"), ScriptedReporter())
    run = attempt(tmp_path, 1)
    with pytest.raises(StoppedError):
        train(first, run, ScriptedReporter("cancel", after=8))
    file = run.checkpoints / "step-00000006" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    reporter = ScriptedReporter()
    train(second, attempt(tmp_path, 2), reporter)
    (corrupt,) = reporter.of("checkpoint.corrupt")
    assert (corrupt["step"], corrupt["fence"]) == (6, 1)
    assert reporter.of("attempt.resumed") == [{"step": 3, "fence": 1}]
    assert_same(whole, second)


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, second = job(), job()
    train(first, attempt(tmp_path, 1), ScriptedReporter())
    reporter = ScriptedReporter()
    result = train(second, attempt(tmp_path, 2), reporter)
    assert result.resumed_step == result.steps == TOTAL_STEPS
    assert reporter.of("metric") == []
    assert_same(first, second)


def test_checkpoints_come_after_the_asked_steps_and_at_the_end(tmp_path):
    reporter = ScriptedReporter()
    train(job(checkpoint={"every_steps": 5, "keep": 3}), attempt(tmp_path), reporter)
    assert [c["step"] for c in reporter.of("checkpoint.created")] == [5, 10, 15, 16]


def test_checkpoints_at_the_ends_of_epochs_wait_for_their_turn(tmp_path):
    hurried, patient = ScriptedReporter(), ScriptedReporter()
    train(job(checkpoint={}), attempt(tmp_path / "a"), hurried, clock=lambda: 0.0)
    assert [c["step"] for c in hurried.of("checkpoint.created")] == [TOTAL_STEPS]
    slow = job(checkpoint={"keep": 9})
    train(slow, attempt(tmp_path / "b"), patient, clock=lambda: float(patient.asked))
    assert [c["step"] for c in patient.of("checkpoint.created")] == [4, 8, 12, 16]


def test_the_first_and_the_last_step_are_told_and_few_between(tmp_path):
    reporter = ScriptedReporter()
    train(job(), attempt(tmp_path), reporter, clock=lambda: 0.0)
    assert [m["step"] for m in reporter.of("metric")] == [1, TOTAL_STEPS]
    progress = [r.progress for r in reporter.reports if r.progress is not None]
    last = progress[-1]
    assert (last.step, last.total_steps, last.epoch, last.epochs) == (16, 16, 4, 4)
    assert last.eta_seconds == 0.0
    assert {"loss", "gradient_norm", "learning_rate", "bandwidth", "z_std"} <= set(
        reporter.of("metric")[-1]
    )


@pytest.mark.parametrize(
    ("seconds_a_step", "told"),
    [(0.001, [1, 16]), (2.0, [1, 5, 9, 13, 16]), (5.0, [1, 3, 5, 7, 9, 11, 13, 15, 16])],
)
def test_a_job_tells_so_many_metrics_and_is_never_silent_for_long(
    tmp_path, monkeypatch, seconds_a_step, told
):
    monkeypatch.setattr(loop, "REPORTS_PER_JOB", 4)
    reporter = ScriptedReporter()
    train(job(), attempt(tmp_path), reporter, clock=lambda: seconds_a_step * reporter.asked)
    assert [m["step"] for m in reporter.of("metric")] == told


def test_a_limit_of_steps_ends_the_run_early(tmp_path):
    limited = job(training=TINY["training"] | {"max_steps": 5})
    reporter = ScriptedReporter()
    assert train(limited, attempt(tmp_path), reporter).steps == 5
    assert reporter.reports[-2].progress.total_steps == 5


def test_the_learning_rate_follows_its_schedule():
    built = job()
    rates = [built.learning_rate(step) for step in range(TOTAL_STEPS)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[8] == pytest.approx(0.5e-3)
    assert rates == sorted(rates, reverse=True)
    constant = job(training=TINY["training"] | {"schedule": "constant"})
    assert {constant.learning_rate(step) for step in range(TOTAL_STEPS)} == {1e-3}


def test_a_value_that_is_not_finite_ends_the_run_for_good(tmp_path):
    built, reporter = job(), ScriptedReporter()
    with torch.no_grad():
        next(built.module.encoder.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError, match="the embedding"):
        train(built, attempt(tmp_path), reporter)
    assert reporter.of("diagnostic.nan")[0]["step"] == 0
    assert reporter.of("checkpoint.created") == []


def test_the_optimiser_steps_with_the_scheduled_learning_rate(tmp_path):
    built, used = job(), []
    built.optimizer.register_step_pre_hook(
        lambda optimizer, *_: used.append(optimizer.param_groups[0]["lr"])
    )
    train(built, attempt(tmp_path), ScriptedReporter())
    assert used == [built.learning_rate(step) for step in range(TOTAL_STEPS)]


@pytest.mark.parametrize("what", ["the loss", "the gradient"])
def test_an_infinite_loss_or_gradient_ends_the_run_for_good(tmp_path, what):
    built, reporter = job(), ScriptedReporter()
    parameter = next(built.module.encoder.parameters())
    if what == "the loss":
        built.module.objective.register_forward_hook(
            lambda _, __, output: output._replace(loss=output.loss * float("inf"))
        )
    else:
        parameter.register_hook(lambda gradient: gradient * float("inf"))
    before = parameter.detach().clone()
    with pytest.raises(DivergedError, match=what):
        train(built, attempt(tmp_path), reporter)
    assert torch.equal(parameter, before)


def test_weights_that_became_infinite_are_never_saved(tmp_path):
    built, reporter = job(checkpoint={"every_steps": 1}), ScriptedReporter()
    built.optimizer.register_step_post_hook(
        lambda *_: next(built.module.parameters()).data.fill_(float("inf"))
    )
    with pytest.raises(DivergedError, match="a weight"):
        train(built, attempt(tmp_path), reporter)
    assert reporter.of("checkpoint.created") == []


def test_a_collapsed_embedding_is_told_once(tmp_path):
    built, reporter = job(objective={"kind": "mige_infomax"}), ScriptedReporter()
    with torch.no_grad():
        for parameter in built.module.encoder.parameters():
            parameter.fill_(0.0)
    now = iter(range(100_000))
    train(built, attempt(tmp_path), reporter, clock=lambda: float(next(now)))
    assert len(reporter.of("diagnostic.collapse")) == 1


def test_the_weights_depend_on_the_seed_alone():
    assert_same(job(), job())
    other = job(seed=1).module.encoder.state_dict()
    mine = job().module.encoder.state_dict()
    assert any(not torch.equal(mine[key], other[key]) for key in mine)
