"""A runner's life around the training: publishing, conflicts, and ends that are always told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.build import build
from jobs.errors import (
    DivergedError,
    JobError,
    StaleFenceError,
    StateConflictError,
    StoppedError,
    StorageUnavailableError,
)
from jobs.export import export_encoder
from jobs.reporters import ControlFile, ReportWriter, new_report
from jobs.run_directory import RunDirectory
from jobs.runner import Runner
from jobs.spec import JobSpec
from jobs.states import ExitCode, Reason
from jobs.train import TrainResult
from jobs.wire import (
    Acknowledged,
    Command,
    Exit,
    Heartbeat,
    Launch,
    Manifest,
    Published,
    ReportBatch,
)

SPEC = JobSpec.model_validate(
    {
        "objective": {"kind": "mige_infomax"},
        "encoder": {"kind": "mlp", "hidden_dims": [4], "out_dim": 2},
        "data": {"kind": "digits"},
    }
).resolved()
AWAY = StorageUnavailableError("away", "wait")
RESULT = TrainResult(steps=1, epochs=1, resumed_step=None, seconds=0.0, metrics={})


class FakeControlPlane:
    """Remembers names of requests; raises the errors that are queued for a name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.ends: list[Exit] = []
        self.command = "continue"
        self.errors: dict[str, list[JobError]] = {}

    def heartbeat(self, heartbeat: Heartbeat) -> Command:
        self._called("heartbeat")
        return Command(command=self.command)

    def report(self, batch: ReportBatch) -> Acknowledged:
        self._called("report")
        return Acknowledged(lines=batch.first + len(batch.reports))

    def finalize(self) -> None:
        self._called("finalize")

    def publish(self, manifest: Manifest) -> Published:
        self._called("publish")
        return Published(encoder_id="enc_1")

    def end(self, end: Exit) -> None:
        self._called("end")
        self.ends.append(end)

    def _called(self, name: str) -> None:
        self.names.append(name)
        if self.errors.get(name):
            raise self.errors[name].pop(0)


class Attempt:
    """One attempt in a temporary directory, trained by a function of the test."""

    def __init__(self, tmp_path: Path) -> None:
        self.run = RunDirectory(tmp_path, "job_1", 1)
        self.run.root.mkdir(parents=True)
        self.control_plane = FakeControlPlane()
        self.left: list[int] = []
        self.limit_s = 60.0

    def drive(self, train: Callable[[Launch], None]) -> Exit:
        launch = Launch(
            job_id="job_1",
            fence=1,
            project="default",
            spec=SPEC,
            storage=str(self.run.storage),
            data_root=None,
            api_url="http://127.0.0.1:9",
            token="secret",
            ray_home=None,
            heartbeat_s=0.2,
            unacknowledged_limit_s=self.limit_s,
        )
        end = Runner(launch, self.control_plane, run_ray=train, leave=self.left.append).run()
        assert Exit.model_validate_json(self.run.exit_file.read_bytes()) == end
        return end

    def stage(self, launch: Launch) -> None:
        job = build(launch.spec, None, device=torch.device("cpu"))
        export_encoder(job, self.run, RESULT, {})


@pytest.fixture
def attempt(tmp_path) -> Attempt:
    return Attempt(tmp_path)


def test_what_was_staged_is_published_and_the_end_is_not_told_twice(attempt):
    end = attempt.drive(attempt.stage)
    assert (end.exit_code, end.reason) == (ExitCode.OK, Reason.COMPLETED)
    names = attempt.control_plane.names
    assert names.index("report") < names.index("finalize") < names.index("publish")
    assert "end" not in names


def test_publishing_is_tried_again_while_the_control_plane_is_away(attempt):
    attempt.control_plane.errors = {"finalize": [AWAY], "publish": [AWAY, AWAY]}
    assert attempt.drive(attempt.stage).exit_code == ExitCode.OK
    assert attempt.control_plane.names.count("publish") == 3


@pytest.mark.parametrize(
    ("command", "code"), [("cancel", ExitCode.CANCELLED), ("pause", ExitCode.PAUSED)]
)
def test_a_command_that_came_before_the_end_wins_over_it(attempt, command, code):
    conflict = StateConflictError("job_1", "running", "it was asked for")
    attempt.control_plane.errors = {"finalize": [conflict]}

    def train(launch: Launch) -> None:
        attempt.stage(launch)
        attempt.control_plane.command = command

    assert attempt.drive(train).exit_code == code
    assert "publish" not in attempt.control_plane.names


def test_an_encoder_that_fails_its_own_probe_is_not_published(attempt):
    def train(launch: Launch) -> None:
        attempt.stage(launch)
        golden = json.loads((attempt.run.result / "golden.json").read_text())
        golden["embeddings"][0][0] += 0.01
        (attempt.run.result / "golden.json").write_text(json.dumps(golden))

    end = attempt.drive(train)
    assert (end.exit_code, end.reason) == (ExitCode.INFRASTRUCTURE, Reason.ARTIFACT_INVALID)
    assert "finalize" not in attempt.control_plane.names


def test_a_stale_fence_at_the_publication_ends_without_another_word(attempt):
    attempt.control_plane.errors = {"publish": [StaleFenceError("job_1", 1)]}
    assert attempt.drive(attempt.stage).exit_code == ExitCode.FENCED
    assert "end" not in attempt.control_plane.names


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DivergedError("d", "r"), ExitCode.INFEASIBLE),
        (StoppedError("pause"), ExitCode.PAUSED),
        (MemoryError(), ExitCode.OUT_OF_MEMORY),
        (RuntimeError("a bug"), ExitCode.INFRASTRUCTURE),
    ],
)
def test_every_error_ends_the_attempt_with_a_reason_that_is_told(attempt, error, code):
    def train(launch: Launch) -> None:
        raise error

    end = attempt.drive(train)
    assert end.exit_code == code
    assert attempt.control_plane.ends == [end]


def test_the_last_reports_are_handed_over_before_the_end(attempt):
    def train(launch: Launch) -> None:
        ReportWriter(attempt.run.reports_file).append(new_report("metric"))
        raise DivergedError("d", "r")

    attempt.drive(train)
    names = attempt.control_plane.names
    assert names.index("report") < names.index("end")


def test_an_end_that_cannot_be_told_is_still_written(attempt):
    attempt.control_plane.errors = {"end": [AWAY] * 3}

    def train(launch: Launch) -> None:
        raise DivergedError("d", "r")

    assert attempt.drive(train).reason is Reason.NAN_LOSS
    assert attempt.control_plane.ends == []


def obey(attempt: Attempt) -> None:
    control = ControlFile(attempt.run.control_file)
    deadline = time.monotonic() + 10
    while control.read() == "continue" and time.monotonic() < deadline:
        time.sleep(0.01)
    raise StoppedError(control.read())


def test_sigterm_has_training_save_and_asks_for_another_attempt(attempt):
    def train(launch: Launch) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        obey(attempt)

    before = signal.getsignal(signal.SIGTERM)
    end = attempt.drive(train)
    assert (end.exit_code, end.reason) == (ExitCode.INFRASTRUCTURE, Reason.DRIVER_LOST)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_runner_that_nobody_acknowledges_saves_and_ends_itself(attempt):
    attempt.limit_s = 0.3
    attempt.control_plane.errors = {"heartbeat": [AWAY] * 1000}
    end = attempt.drive(lambda launch: obey(attempt))
    assert (end.exit_code, end.reason) == (ExitCode.INFRASTRUCTURE, Reason.LEASE_EXPIRED)


def test_a_newer_attempt_ends_the_process_at_once(attempt):
    attempt.control_plane.errors = {"heartbeat": [StaleFenceError("job_1", 1)]}

    def train(launch: Launch) -> None:
        deadline = time.monotonic() + 10
        while not attempt.left and time.monotonic() < deadline:
            time.sleep(0.01)
        raise StaleFenceError("job_1", 1)  # the process would be gone by now

    attempt.drive(train)
    assert attempt.left == [ExitCode.FENCED]


def test_a_replaced_attempt_ends_even_if_nothing_can_be_written_any_more(attempt):
    attempt.control_plane.errors = {"heartbeat": [StaleFenceError("job_1", 1)]}

    def train(launch: Launch) -> None:
        attempt.run.exit_file.mkdir()  # nothing can take its name, as on a full disk
        deadline = time.monotonic() + 10
        while not attempt.left and time.monotonic() < deadline:
            time.sleep(0.01)
        attempt.run.exit_file.rmdir()
        raise StaleFenceError("job_1", 1)

    attempt.drive(train)
    assert attempt.left == [ExitCode.FENCED]


def test_a_full_disk_silences_the_log_and_nothing_else():
    code = (
        "import structlog; from jobs.runner_log import configure_log; "
        "configure_log(open('/dev/full', 'w')); "
        "structlog.get_logger().info('an event'); print('alive')"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert found.stdout.strip() == "alive"


def test_the_runner_starts_without_torch_and_ray():
    code = (
        "import sys, jobs.runner; "
        "print(sorted({'torch', 'ray', 'mige', 'torchvision', 'sklearn'} & set(sys.modules)))"
    )
    found: Any = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert found.stdout.strip() == "[]"
