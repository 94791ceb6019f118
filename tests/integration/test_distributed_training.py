"""Two workers under gloo train what one trains, save together and stop together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from jobs.build import build
from jobs.errors import DivergedError, StoppedError
from jobs.reporters import CommandName
from jobs.run_directory import RunDirectory
from jobs.spec import JobSpec
from jobs.train import train
from jobs.wire import Report

pytestmark = pytest.mark.slow

SPEC: dict[str, Any] = {
    "objective": {"kind": "mige_infomax"},
    "encoder": {"kind": "mlp", "hidden_dims": [16], "out_dim": 3},
    "data": {"kind": "digits"},
    "training": {"epochs": 8, "batch_size": 32, "limit_train_rows": 130, "max_steps": 30},
    "checkpoint": {"every_steps": 7},
    "resources": {"num_workers": 2},
}


class GroupReporter:
    """Rank 0 keeps the kinds of reports in a file, and it alone is told to pause."""

    def __init__(self, rank: int, world_size: int, log: Path, pause_after: int | None) -> None:
        self.rank, self.world_size = rank, world_size
        self._log, self._pause_after, self._asked = log, pause_after, 0

    def report(self, report: Report) -> None:
        if self.rank == 0:
            with self._log.open("a") as file:
                file.write(f"{report.kind} {report.data.get('step')}\n")

    def command(self) -> CommandName:
        self._asked += 1
        wanted = self._pause_after is not None and self._asked > self._pause_after
        return "pause" if wanted and self.rank == 0 else "continue"


@dataclass(frozen=True)
class Plan:
    """One attempt that a worker runs."""

    storage: Path
    fence: int = 1
    pause_after: int | None = None
    noise_std: float = 0.0
    poison: float | None = None

    @property
    def run(self) -> RunDirectory:
        return RunDirectory(self.storage, "job_1", self.fence)

    def weights(self, rank: int) -> dict[str, torch.Tensor]:
        return load_file(self.run.root / f"{rank}.safetensors")

    def outcome(self, rank: int) -> str:
        return (self.run.root / f"{rank}.txt").read_text()

    def log(self) -> str:
        return self.run.log_file.read_text()


def run_plan(plan: Plan, rank: int, world_size: int) -> None:
    objective = SPEC["objective"] | {"noise_std": plan.noise_std}
    spec = JobSpec.model_validate(SPEC | {"objective": objective}).resolved()
    job = build(spec, None, device=torch.device("cpu"))
    if plan.poison is not None:
        with torch.no_grad():
            next(job.module.parameters()).mul_(plan.poison)
    plan.run.root.mkdir(parents=True, exist_ok=True)
    outcome = "done"
    try:
        train(job, plan.run, GroupReporter(rank, world_size, plan.run.log_file, plan.pause_after))
    except (StoppedError, DivergedError) as error:
        outcome = error.code
    save_file(job.module.encoder.state_dict(), plan.run.root / f"{rank}.safetensors")
    (plan.run.root / f"{rank}.txt").write_text(outcome)


def run_rank(rank: int, store: Path, plans: tuple[Plan, ...]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for plan in plans:
        run_plan(plan, rank, 2)
        dist.barrier()  # the next attempt starts when all have left this one
    dist.destroy_process_group()


def run_two(tmp_path: Path, *plans: Plan) -> None:
    mp.spawn(run_rank, args=(tmp_path / "store", plans), nprocs=2)


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[key] - b[key]).abs().max()) for key in a)


def test_two_workers_reach_the_weights_of_one(tmp_path):
    single, pair = Plan(tmp_path / "one"), Plan(tmp_path / "two")
    run_plan(single, rank=0, world_size=1)
    run_two(tmp_path, pair)
    assert largest_difference(pair.weights(0), pair.weights(1)) == 0.0
    # The same gathered batches; only the order of float32 sums differs.
    assert largest_difference(pair.weights(0), single.weights(0)) < 1e-3


def test_two_paused_workers_go_on_to_exactly_the_same_weights(tmp_path):
    whole = Plan(tmp_path / "whole", noise_std=0.1)
    cut = Plan(tmp_path / "cut", noise_std=0.1, pause_after=2)
    rest = Plan(tmp_path / "cut", noise_std=0.1, fence=2)
    run_two(tmp_path, whole, cut, rest)
    assert (cut.outcome(0), cut.outcome(1)) == ("stopped", "stopped")
    assert "attempt.resumed 20" in rest.log()
    for rank in (0, 1):
        assert largest_difference(rest.weights(rank), whole.weights(rank)) == 0.0


def test_all_workers_stop_at_the_same_value_that_is_not_finite(tmp_path):
    plan = Plan(tmp_path, poison=float("nan"))
    run_two(tmp_path, plan)
    assert (plan.outcome(0), plan.outcome(1)) == ("nan_loss", "nan_loss")
    assert "checkpoint.created" not in plan.log()
