"""The pool of waiting runners, with a small script in the place of the runner."""

import os
import subprocess
import sys
import time

import pytest

from jobs.spec import JobSpec
from jobs.standby import Assignment, StandbyPool, standby_directory
from jobs.wire import Launch

# Says that it is ready, then does what its one line says: writes the attempt's name to the log.
RUNNER = """
import os, sys
from pathlib import Path
from jobs.standby import Assignment, standby_directory
directory = standby_directory(Path(sys.argv[1]), os.getpid())
directory.mkdir(parents=True)
(directory / "ready").touch()
line = sys.stdin.buffer.readline()
if line:
    assignment = Assignment.parse(line)
    assignment.log_file.write_text(assignment.attempt_file.name)
"""
FAILING = "raise SystemExit(3)"


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def spec(num_workers=1, backend="ray_train"):
    return JobSpec.model_validate(
        {
            "objective": {"kind": "mige_infomax"},
            "encoder": {"kind": "mlp"},
            "data": {"kind": "digits"},
            "resources": {"num_workers": num_workers, "backend": backend},
        }
    )


@pytest.fixture
def attempt_file(tmp_path):
    def write(name="attempt.json", **resources):
        launch = Launch(
            job_id="job_1",
            fence=1,
            project="p",
            spec=spec(**resources),
            storage=str(tmp_path),
            data_root=None,
            api_url="http://127.0.0.1:1",
            token="t",
            ray_home=str(tmp_path),
            heartbeat_s=1,
            unacknowledged_limit_s=1,
        )
        path = tmp_path / name
        path.write_text(launch.model_dump_json())
        return path

    return write


class Cold:
    """Counts cold starts; what it starts lives until the test ends."""

    def __init__(self):
        self.started = []

    def __call__(self, attempt_file, log_file):
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        self.started.append(subprocess.Popen(command))
        return self.started[-1]


@pytest.fixture
def cold():
    cold = Cold()
    yield cold
    for process in cold.started:
        process.kill()
        process.wait()


@pytest.fixture
def make_pool(tmp_path, cold):
    pools = []

    def make(script=RUNNER, **options):
        options = {
            "num_cpus": 2,
            "refill_after_s": 10.0,
            "idle_s": 60.0,
            "clock": Clock(),
        } | options
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
        command = (sys.executable, "-c", script)
        pool = StandbyPool(
            tmp_path / "home", environment=environment, cold=cold, command=command, **options
        )
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()


def until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.01)


def test_a_waiting_runner_takes_the_attempt(make_pool, attempt_file, cold, tmp_path):
    pool = make_pool()
    pool.step()
    until(pool.is_ready)
    process = pool.spawn(attempt_file("attempt_7.json"), tmp_path / "log")
    assert process.wait(timeout=10) == 0
    assert (tmp_path / "log").read_text() == "attempt_7.json"
    assert cold.started == []


def test_a_runner_that_is_not_ready_yet_takes_it_too(make_pool, attempt_file, cold, tmp_path):
    pool = make_pool()
    pool.step()
    process = pool.spawn(attempt_file(), tmp_path / "log")
    assert process.wait(timeout=10) == 0
    assert cold.started == []


def test_without_a_waiting_runner_the_start_is_cold(make_pool, attempt_file, cold, tmp_path):
    pool = make_pool()
    assert pool.spawn(attempt_file(), tmp_path / "log") is cold.started[0]


def test_an_attempt_without_ray_leaves_the_waiting_runner_to_one_with(
    make_pool, attempt_file, cold, tmp_path
):
    pool = make_pool()
    pool.step()
    assert pool.spawn(attempt_file(backend="inline"), tmp_path / "log") is cold.started[0]
    assert pool.spawn(attempt_file(), tmp_path / "log").wait(timeout=10) == 0
    assert len(cold.started) == 1


def test_a_waiting_runner_that_died_is_not_used(make_pool, attempt_file, cold, tmp_path):
    pool = make_pool(FAILING)
    pool.step()
    until(lambda: pool._waiting.process.poll() is not None)
    assert pool.spawn(attempt_file(), tmp_path / "log") is cold.started[0]


def test_the_next_runner_is_got_ready_some_time_after_one_was_used(
    make_pool, attempt_file, tmp_path
):
    clock = Clock()
    pool = make_pool(clock=clock, refill_after_s=10.0)
    pool.spawn(attempt_file(), tmp_path / "log")
    clock.now += 9.9
    pool.step()
    assert pool._waiting is None
    clock.now += 0.2
    pool.step()
    until(pool.is_ready)


def test_no_runner_is_got_ready_while_jobs_take_all_processors(
    make_pool, attempt_file, cold, tmp_path
):
    clock = Clock()
    pool = make_pool(clock=clock, num_cpus=2)
    pool.spawn(attempt_file(num_workers=2), tmp_path / "log")
    clock.now += 60
    pool.step()
    assert pool._waiting is None
    cold.started[0].kill()
    cold.started[0].wait()
    pool.step()
    until(pool.is_ready)


def test_no_runner_is_got_ready_while_memory_is_short(make_pool):
    pool = make_pool(min_available_bytes=2**60)
    pool.step()
    assert pool._waiting is None


def test_a_runner_nobody_needs_ends_and_comes_back_with_the_next_job(
    make_pool, attempt_file, tmp_path
):
    clock = Clock()
    pool = make_pool(clock=clock, idle_s=60.0)
    pool.step()
    until(pool.is_ready)
    process = pool._waiting.process
    clock.now += 61
    pool.step()
    assert process.poll() is not None
    clock.now += 600
    pool.step()
    assert pool._waiting is None
    pool.spawn(attempt_file(), tmp_path / "log")
    clock.now += 600
    pool.step()
    until(pool.is_ready)


def test_a_runner_that_cannot_get_ready_is_tried_again_ever_more_slowly(make_pool):
    clock = Clock()
    pool = make_pool(FAILING, clock=clock)
    pauses = []
    for _ in range(4):
        started = clock.now
        pool.step()
        while pool._waiting is None:
            clock.now += 1
            pool.step()
        pauses.append(clock.now - started)
        until(lambda: pool._waiting.process.poll() is not None)
        pool.step()
    assert pauses == [0, 5, 10, 20]


def test_closing_ends_the_waiting_runner_and_no_other(make_pool, attempt_file, cold, tmp_path):
    pool = make_pool()
    pool.spawn(attempt_file(), tmp_path / "log")
    pool._not_before = 0.0
    pool.step()
    until(pool.is_ready)
    process = pool._waiting.process
    pool.close()
    assert process.poll() is not None
    assert not standby_directory(tmp_path / "home", process.pid).exists()
    assert cold.started[0].poll() is None


def test_a_waiting_runner_ends_when_its_starter_dies(tmp_path):
    receiver, sender = os.pipe()
    command = [sys.executable, "-c", RUNNER, str(tmp_path)]
    with subprocess.Popen(command, stdin=receiver, env=os.environ | {"PYTHONPATH": "."}) as runner:
        os.close(receiver)
        os.close(sender)
        assert runner.wait(timeout=10) == 0


def test_leftovers_of_killed_runners_are_removed(make_pool, tmp_path):
    home = tmp_path / "home"
    for pid in (2**22 - 1, os.getpid()):
        standby_directory(home, pid).mkdir(parents=True)
    pool = make_pool()
    pool.start()
    until(pool.is_ready)
    assert not standby_directory(home, 2**22 - 1).exists()
    assert standby_directory(home, os.getpid()).exists()


def test_an_assignment_survives_the_trip_through_the_pipe(tmp_path):
    assignment = Assignment(tmp_path / "a b\n.json", tmp_path / "ü.txt")
    assert assignment.line().count(b"\n") == 1
    assert Assignment.parse(assignment.line()) == assignment
