import json
import os
import signal
import stat
import sys
import time
from pathlib import Path

import pytest

from jobs.artifacts import write_atomic
from jobs.errors import StorageFullError, WorkersLostError
from jobs.executors.base import Executor
from jobs.executors.local_process import LocalProcess, StartRunner, runner_environment
from jobs.failpoints import FailpointError
from jobs.processes import members, start_mark
from jobs.run_directory import RunDirectory
from jobs.states import Reason
from jobs.wire import Exit, Launch

JOB = "job_" + "1" * 32
SLEEP = "import time; time.sleep(60)"
SAYS_GOODBYE = """
import pathlib, sys
attempt = pathlib.Path(sys.argv[1])
(attempt.parent / "exit.json").write_text(
    '{"exit_code": 20, "reason": "nan_loss", "message": "diverged"}')
sys.exit(20)
"""
WITH_CHILD = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


class Runner:
    """Starts fake runners and remembers them, so that none is left behind."""

    def __init__(self, code: str) -> None:
        self.start = StartRunner(command=(sys.executable, "-c", code))
        self.started = []

    def __call__(self, attempt_file: Path, log_file: Path):
        self.started.append(self.start(attempt_file, log_file))
        return self.started[-1]


@pytest.fixture
def runner():
    made = []

    def make(code: str) -> Runner:
        made.append(Runner(code))
        return made[-1]

    yield make
    for process in (p for r in made for p in r.started):
        for pid in members(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def launch(tmp_path, spec):
    def make(fence: int = 1) -> Launch:
        return Launch(
            job_id=JOB,
            fence=fence,
            project="p",
            spec=spec,
            storage=str(tmp_path),
            data_root=None,
            api_url="http://127.0.0.1:1",
            token="secret",
            ray_home=None,
            heartbeat_s=3,
            unacknowledged_limit_s=600,
        )

    return make


def wait_for(condition, timeout_s: float = 10.0):
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
    return found


def run_of(tmp_path, fence: int = 1) -> RunDirectory:
    return RunDirectory(tmp_path, JOB, fence)


def test_it_is_an_executor(tmp_path):
    assert isinstance(LocalProcess(tmp_path), Executor)


def test_an_attempt_is_started_once_with_its_private_files(tmp_path, runner, launch):
    fake = runner("import sys; print('hello', len(sys.argv))" + "\n" + SLEEP)
    executor = LocalProcess(tmp_path, spawn=fake)
    assert executor.observe(JOB, 1).status == "absent"
    executor.ensure(launch())
    executor.ensure(launch())
    assert len(fake.started) == 1
    assert executor.observe(JOB, 1).status == "running"
    run = run_of(tmp_path)
    assert Launch.model_validate_json(run.attempt_file.read_bytes()) == launch()
    assert stat.S_IMODE(run.attempt_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(run.root.stat().st_mode) == 0o700
    process = fake.started[0]
    recorded = json.loads(run.process_file.read_text())
    assert recorded == {"pid": process.pid, "mark": start_mark(process.pid)}
    assert os.getsid(process.pid) == process.pid  # it does not end with who started it


def test_how_a_runner_ended_is_read_from_its_file(tmp_path, runner, launch):
    executor = LocalProcess(tmp_path, spawn=runner(SAYS_GOODBYE))
    executor.ensure(launch())
    wait_for(lambda: executor.observe(JOB, 1).status == "exited")
    expected = Exit(exit_code=20, reason=Reason.NAN_LOSS, message="diverged")
    assert executor.observe(JOB, 1).exit == expected


@pytest.mark.parametrize("left", [None, "", "{", '{"exit_code": 0}', "symlink"])
def test_a_runner_that_could_not_say_how_it_ended_is_still_seen_to_have_ended(
    tmp_path, runner, launch, left
):
    fake = runner(SLEEP)
    executor = LocalProcess(tmp_path, spawn=fake)
    executor.ensure(launch())
    if left == "symlink":
        run_of(tmp_path).exit_file.symlink_to("/etc/passwd")
    elif left is not None:
        run_of(tmp_path).exit_file.write_text(left)
    os.kill(fake.started[0].pid, signal.SIGKILL)
    seen = wait_for(lambda: (o := executor.observe(JOB, 1)).status == "exited" and o)
    assert seen.exit is None
    executor.observe(JOB, 1)
    assert fake.started[0].returncode == -signal.SIGKILL  # it was collected: no zombie stays


def test_an_executor_that_starts_anew_finds_what_runs(tmp_path, runner, launch):
    fake = runner(SLEEP)
    LocalProcess(tmp_path, spawn=fake).ensure(launch())
    adopted = LocalProcess(tmp_path, spawn=fake)
    assert adopted.observe(JOB, 1).status == "running"
    adopted.ensure(launch())
    assert len(fake.started) == 1
    adopted.stop(JOB, 1, grace_s=5)
    assert adopted.observe(JOB, 1).status == "exited"


def test_a_recycled_process_number_is_not_taken_for_the_runner(tmp_path, runner, launch):
    executor = LocalProcess(tmp_path, spawn=runner(SLEEP))
    executor.ensure(launch())
    file = run_of(tmp_path).process_file
    file.write_text(json.dumps({"pid": os.getpid(), "mark": "boot:1"}))
    assert executor.observe(JOB, 1).status == "exited"
    executor.stop(JOB, 1, grace_s=0)  # and we are still here


@pytest.mark.parametrize("written", ["", "[]", "{}", '{"pid": "x", "mark": 1}', "symlink"])
def test_a_process_file_that_somebody_else_wrote_is_not_followed(tmp_path, runner, launch, written):
    executor = LocalProcess(tmp_path, spawn=runner(SLEEP))
    executor.ensure(launch())
    file = run_of(tmp_path).process_file
    file.unlink()
    if written == "symlink":
        (tmp_path / "other").write_text(json.dumps({"pid": os.getpid(), "mark": "m"}))
        file.symlink_to(tmp_path / "other")
    else:
        file.write_text(written)
    assert executor.observe(JOB, 1).status == "exited"
    executor.stop(JOB, 1, grace_s=0)


def test_stop_ends_the_children_too(tmp_path, runner, launch):
    fake = runner(WITH_CHILD)
    executor = LocalProcess(tmp_path, spawn=fake)
    executor.ensure(launch())
    child = int(wait_for(run_of(tmp_path).log_file.read_text))
    executor.stop(JOB, 1, grace_s=5)
    assert start_mark(child) is None
    assert executor.observe(JOB, 1).status == "exited"
    executor.stop(JOB, 1, grace_s=5)
    executor.stop(JOB, 9, grace_s=5)  # never started: nothing to do


def test_two_attempts_do_not_share_anything(tmp_path, runner, launch):
    executor = LocalProcess(tmp_path, spawn=runner(SLEEP))
    executor.ensure(launch(1))
    executor.ensure(launch(2))
    executor.stop(JOB, 1, grace_s=5)
    assert executor.observe(JOB, 1).status == "exited"
    assert executor.observe(JOB, 2).status == "running"


def test_the_runner_sees_an_allowed_environment_and_no_input(tmp_path, runner, launch, monkeypatch):
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    monkeypatch.setenv("MIGE_API_KEY", "secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    code = "import os, sys; print(sorted(os.environ), repr(sys.stdin.read()), os.getcwd())"
    executor = LocalProcess(tmp_path, spawn=runner(code))
    executor.ensure(launch())
    wait_for(lambda: executor.observe(JOB, 1).status == "exited")
    text = run_of(tmp_path).log_file.read_text()
    assert "'OMP_NUM_THREADS'" in text
    assert "PASSWORD" not in text
    assert "MIGE" not in text
    assert "''" in text
    assert "secret" not in str(runner_environment())


def test_the_log_is_appended_to_and_a_planted_link_is_refused(tmp_path, runner, launch):
    run = run_of(tmp_path)
    run.root.mkdir(parents=True)
    run.log_file.write_text("before\n")
    executor = LocalProcess(tmp_path, spawn=runner("print('after')"))
    executor.ensure(launch())
    wait_for(lambda: executor.observe(JOB, 1).status == "exited")
    assert run.log_file.read_text() == "before\nafter\n"
    planted = run_of(tmp_path, 2)
    planted.root.mkdir()
    planted.log_file.symlink_to(tmp_path / "victim")
    with pytest.raises(WorkersLostError):
        executor.ensure(launch(2))
    assert not (tmp_path / "victim").exists()


def test_a_program_that_is_missing_is_a_lost_worker(tmp_path, launch):
    executor = LocalProcess(tmp_path, spawn=StartRunner(command=("/no/such/program",)))
    with pytest.raises(WorkersLostError, match="could not be started"):
        executor.ensure(launch())
    assert executor.observe(JOB, 1).status == "exited"  # never a second start with this fence


def test_a_full_disk_before_the_start_starts_nothing(tmp_path, runner, launch, monkeypatch):
    fake = runner(SLEEP)
    executor = LocalProcess(tmp_path, spawn=fake)
    monkeypatch.setenv("FAILPOINTS", "stage.mid_write=enospc")
    with pytest.raises(StorageFullError):
        executor.ensure(launch())
    assert fake.started == []
    monkeypatch.delenv("FAILPOINTS")
    executor.ensure(launch())
    assert executor.observe(JOB, 1).status == "running"


def test_a_start_whose_process_was_not_recorded_counts_as_ended(
    tmp_path, runner, launch, monkeypatch
):
    fake = runner(SLEEP)
    monkeypatch.setenv("FAILPOINTS", "spawn.after_before_recorded=raise")
    with pytest.raises(FailpointError):
        LocalProcess(tmp_path, spawn=fake).ensure(launch())
    monkeypatch.delenv("FAILPOINTS")
    executor = LocalProcess(tmp_path, spawn=fake)
    assert executor.observe(JOB, 1).status == "exited"
    executor.ensure(launch())
    assert len(fake.started) == 1


def test_a_process_that_cannot_be_recorded_is_ended(tmp_path, runner, launch, monkeypatch):
    fake = runner(SLEEP)

    def no_room_for_its_number(path, data):
        if path.name == "process.json":
            raise StorageFullError("There is no room.", "Free some.")
        write_atomic(path, data)

    monkeypatch.setattr("jobs.executors.local_process.write_atomic", no_room_for_its_number)
    with pytest.raises(StorageFullError):
        LocalProcess(tmp_path, spawn=fake).ensure(launch())
    assert fake.started[0].wait(10) == -signal.SIGKILL
