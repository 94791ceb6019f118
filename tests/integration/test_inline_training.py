"""An inline attempt end to end: launch file in, published encoder out, a tiny control plane."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import StoppedError
from jobs.reporters import CommandName, FileReporter
from jobs.run_directory import RunDirectory
from jobs.spec import JobSpec
from jobs.wire import Launch, Report
from jobs.worker import run_worker

TINY: dict[str, Any] = {
    "objective": {"kind": "mige_infomax"},
    "encoder": {"kind": "mlp", "hidden_dims": [32], "out_dim": 4},
    "data": {"kind": "digits"},
    "training": {"epochs": 4, "batch_size": 64, "limit_train_rows": 320},
    "checkpoint": {"every_steps": 5},
    "evaluation": {"knn": False, "limit_rows": 200},
    "resources": {"backend": "inline"},
}


class ControlPlaneServer(ThreadingHTTPServer):
    """Remembers what runners say; answers `command` to heartbeats."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[tuple[str, Any]] = []
        self.command = "continue"
        self.stale = False
        self.reports: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, name: str, body: Any) -> tuple[int, Any]:
        with self.lock:
            self.calls.append((name, body))
            if self.stale:
                return 409, {"code": "stale_fence", "detail": "a newer attempt exists"}
            if name == "heartbeat":
                return 200, {"command": self.command}
            if name == "reports":
                self.reports += body["reports"][len(self.reports) - body["first"] :]
                return 200, {"lines": len(self.reports)}
            if name == "publish":
                return 200, {"encoder_id": "enc_1"}
            return 200, {}

    def kinds(self) -> list[str]:
        with self.lock:
            return [report["kind"] for report in self.reports]

    def names(self) -> list[str]:
        with self.lock:
            return [name for name, _ in self.calls]


class _Handler(BaseHTTPRequestHandler):
    server: ControlPlaneServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer secret"
        status, answer = self.server.answer(self.path.rsplit("/", 1)[1], body)
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def control_plane() -> Iterator[ControlPlaneServer]:
    with ControlPlaneServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def prepare(storage: Path, url: str, *, fence: int = 1, **changes: Any) -> RunDirectory:
    spec = JobSpec.model_validate(TINY | changes).resolved()
    run = RunDirectory(storage, "job_1", fence)
    run.root.mkdir(parents=True)
    launch = Launch(
        job_id="job_1",
        fence=fence,
        project="default",
        spec=spec,
        storage=str(storage),
        data_root=None,
        api_url=url,
        token="secret",
        ray_home=None,
        heartbeat_s=0.2,
        unacknowledged_limit_s=60,
    )
    run.attempt_file.write_text(launch.model_dump_json())
    return run


@contextmanager
def runner(run: RunDirectory) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path.cwd())}
    with run.log_file.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.runner", "--attempt", str(run.attempt_file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def finish(run: RunDirectory, timeout_s: float = 60) -> tuple[int, dict[str, Any]]:
    with runner(run) as process:
        code = process.wait(timeout_s)
    return code, json.loads(run.exit_file.read_text())


def wait_until(condition: Any, timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def weights(run: RunDirectory) -> bytes:
    return (run.result / "encoder.safetensors").read_bytes()


LONG = {"training": {"epochs": 100_000, "batch_size": 64, "limit_train_rows": 320}}


@pytest.mark.slow
def test_an_attempt_trains_evaluates_and_publishes(tmp_path, control_plane):
    import mige

    run = prepare(tmp_path, control_plane.url)
    code, end = finish(run)
    assert (code, end["reason"]) == (0, "completed"), run.log_file.read_text()
    names = control_plane.names()
    assert names[0] == "heartbeat"
    assert names.index("finalize") < names.index("publish")
    assert "end" not in names
    phases = [r["data"]["phase"] for r in control_plane.reports if r["kind"] == "phase"]
    assert phases == ["loading_data", "training", "evaluating", "exporting", "publishing"]
    told = [body["phase"] for name, body in control_plane.calls if name == "heartbeat"]
    assert [p for p in dict.fromkeys(told) if p != "provisioning"] == phases
    last = [r for r in control_plane.reports if r["kind"] == "metric"][-1]["progress"]
    assert (last["step"], last["total_steps"]) == (20, 20)
    (manifest,) = [body for name, body in control_plane.calls if name == "publish"]
    assert {f["path"] for f in manifest["files"]} == {
        p.name for p in run.result.iterdir() if p.name != "manifest.json"
    }
    assert mige.load_encoder(run.result).config.out_dim == 4


@pytest.mark.slow
def test_a_job_publishes_the_calibration_of_its_estimator_if_it_asks(tmp_path, control_plane):
    evaluation = {"knn": False, "limit_rows": 200, "calibration": True}
    run = prepare(tmp_path, control_plane.url, evaluation=evaluation)
    code, end = finish(run)
    assert (code, end["reason"]) == (0, "completed"), run.log_file.read_text()
    (manifest,) = [body for name, body in control_plane.calls if name == "publish"]
    names = {f["path"] for f in manifest["files"]}
    assert {"calibration.json", "calibration.png"} < names
    card = json.loads((run.result / "calibration.json").read_text())
    assert (card["estimator"]["name"], card["n"], card["d"], card["dim_x"]) == (
        "spectral",
        64,
        4,
        8,
    )
    told = [r["data"] for r in control_plane.reports if r["kind"] == "calibration"]
    assert told[0]["done"] == 0
    assert told[-1]["relative_error"].keys() == card["problems"].keys()
    assert "## Calibration" in (run.result / "README.md").read_text()


class StoppedAt(FileReporter):
    """Gives a command once a phase has begun, from the n-th look on."""

    def __init__(self, run: RunDirectory, phase: str, command: CommandName, *, looks: int) -> None:
        super().__init__(run)
        self._wanted, self._command, self._looks = phase, command, looks
        self.phases: list[str] = []

    def report(self, report: Report) -> None:
        super().report(report)
        if report.kind == "phase":
            self.phases.append(report.data["phase"])

    def command(self) -> CommandName:
        if self.phases[-1] != self._wanted:
            return "continue"
        self._looks -= 1
        return self._command if self._looks < 0 else "continue"


@pytest.mark.parametrize(("command", "looks"), [("cancel", 0), ("pause", 3), ("cancel", 7)])
def test_a_command_during_the_evaluation_is_obeyed_and_the_training_kept(tmp_path, command, looks):
    run = prepare(tmp_path, "http://127.0.0.1:9")
    launch = Launch.model_validate_json(run.attempt_file.read_bytes())
    with pytest.raises(StoppedError) as stopped:
        run_worker(launch, StoppedAt(run, "evaluating", command, looks=looks))
    assert stopped.value.command == command
    assert not run.result.exists()
    again = prepare(tmp_path, "http://127.0.0.1:9", fence=2)
    run_worker(Launch.model_validate_json(again.attempt_file.read_bytes()), FileReporter(again))
    assert '"metric"' not in again.reports_file.read_text()  # nothing was trained again
    assert (again.result / "manifest.json").exists()


def test_a_command_during_the_calibration_is_obeyed(tmp_path):
    evaluation = {"linear_probe": False, "knn": False, "baselines": False, "calibration": True}
    run = prepare(tmp_path, "http://127.0.0.1:9", evaluation=evaluation)
    launch = Launch.model_validate_json(run.attempt_file.read_bytes())
    with pytest.raises(StoppedError):
        run_worker(launch, StoppedAt(run, "evaluating", "cancel", looks=5))
    assert '"calibration"' in run.reports_file.read_text()  # it had begun
    assert not run.result.exists()


@pytest.mark.slow
def test_a_killed_attempt_goes_on_to_exactly_the_same_weights(tmp_path, control_plane):
    whole = prepare(tmp_path / "whole", control_plane.url)
    run_worker(Launch.model_validate_json(whole.attempt_file.read_bytes()), FileReporter(whole))
    first = prepare(tmp_path / "cut", control_plane.url)
    with runner(first) as process:
        wait_until(lambda: list(first.checkpoints.glob("step-0000001?")))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not first.exit_file.exists()
    control_plane.reports.clear()
    second = prepare(tmp_path / "cut", control_plane.url, fence=2)
    assert finish(second)[0] == 0
    (resumed,) = [r for r in control_plane.reports if r["kind"] == "attempt.resumed"]
    assert resumed["data"]["step"] >= 10
    assert resumed["data"]["fence"] == 1
    assert weights(second) == weights(whole)


@pytest.mark.slow
def test_a_pause_saves_and_the_next_attempt_goes_on(tmp_path, control_plane):
    run = prepare(tmp_path, control_plane.url, **LONG)
    with runner(run) as process:
        wait_until(lambda: "metric" in control_plane.kinds())
        control_plane.command = "pause"
        assert process.wait(30) == 10
    assert json.loads(run.exit_file.read_text())["reason"] == "user_paused"
    assert control_plane.names()[-1] == "end"
    saved = max(int(p.name[5:]) for p in run.checkpoints.iterdir())
    told = [r["data"]["step"] for r in control_plane.reports if r["kind"] == "metric"][-1]
    assert saved >= told
    assert not run.result.exists()


@pytest.mark.slow
def test_a_cancel_ends_without_a_result(tmp_path, control_plane):
    run = prepare(tmp_path, control_plane.url, **LONG)
    with runner(run) as process:
        wait_until(lambda: "metric" in control_plane.kinds())
        control_plane.command = "cancel"
        assert process.wait(30) == 11
    assert json.loads(run.exit_file.read_text())["reason"] == "user_cancelled"
    assert not run.result.exists()


@pytest.mark.slow
def test_sigterm_saves_and_asks_for_another_attempt(tmp_path, control_plane):
    run = prepare(tmp_path, control_plane.url, **LONG, checkpoint={"every_steps": 1_000_000})
    with runner(run) as process:
        wait_until(lambda: "metric" in control_plane.kinds())
        process.terminate()
        assert process.wait(30) == 30
    assert json.loads(run.exit_file.read_text())["reason"] == "driver_lost"
    assert list(run.checkpoints.iterdir())


@pytest.mark.slow
def test_a_fenced_attempt_ends_at_once(tmp_path, control_plane):
    run = prepare(tmp_path, control_plane.url, **LONG)
    with runner(run) as process:
        wait_until(lambda: "metric" in control_plane.kinds())
        control_plane.stale = True
        assert process.wait(10) == 40
    assert json.loads(run.exit_file.read_text())["reason"] == "stale_fence"
    assert not run.result.exists()


@pytest.mark.slow
def test_a_diverging_run_publishes_nothing(tmp_path, control_plane):
    optimizer = {"kind": "adam", "learning_rate": 10.0, "weight_decay": 10.0}
    run = prepare(tmp_path, control_plane.url, **LONG, optimizer=optimizer)
    code, end = finish(run)
    assert (code, end["reason"]) == (20, "nan_loss")
    assert "learning_rate" in end["remedy"]
    assert "diagnostic.nan" in control_plane.kinds()
    assert "publish" not in control_plane.names()
    assert not run.result.exists()


@pytest.mark.slow
def test_missing_data_end_the_attempt_for_good(tmp_path, control_plane):
    run = prepare(tmp_path, control_plane.url, data={"kind": "mnist"})
    code, end = finish(run)
    assert (code, end["reason"]) == (20, "data_unavailable")
    assert "MIGE_DATA_ROOT" in end["remedy"]


@pytest.mark.slow
def test_training_goes_on_while_the_control_plane_is_away(tmp_path):
    run = prepare(tmp_path, "http://127.0.0.1:9")
    with runner(run) as process:
        wait_until((run.result / "manifest.json").exists)
        assert process.poll() is None  # it waits to publish
    assert not run.exit_file.exists()
