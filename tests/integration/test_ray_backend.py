"""The head, Ray Train and the waiting runner for real. One head for the whole module."""

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import psutil
import pytest

from jobs.ray_backend.head import RayHead
from jobs.run_directory import RunDirectory
from jobs.spec import JobSpec
from jobs.standby import StandbyPool
from jobs.wire import Launch

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(120)]

DRIVER = str(Path(__file__).with_name("ray_driver.py"))
ENVIRONMENT = {
    key: value
    for key, value in os.environ.items()
    if key in ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
} | {"PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def head(home):
    head = RayHead(home, num_cpus=2)
    head.ensure()
    yield head
    head.stop()


@pytest.fixture
def launch(home, tmp_path):
    """Write the launch of a small job; give it and its directory."""

    def write(job_id, *, training=None, checkpoint=None, resources=None):
        spec = JobSpec.model_validate(
            {
                "objective": {"kind": "mige_infomax"},
                "encoder": {"kind": "mlp", "hidden_dims": [32]},
                "data": {"kind": "digits"},
                "training": {"batch_size": 64} | (training or {}),
                "checkpoint": checkpoint or {},
                "evaluation": {"linear_probe": False, "knn": False, "baselines": False},
                "resources": resources or {},
            }
        ).resolved()
        launch = Launch(
            job_id=job_id,
            fence=1,
            project="p",
            spec=spec,
            storage=str(tmp_path),
            data_root=None,
            api_url="http://127.0.0.1:1",
            token="t",
            ray_home=str(home),
            heartbeat_s=1,
            unacknowledged_limit_s=1,
        )
        run = RunDirectory(tmp_path, job_id, 1)
        run.root.mkdir(parents=True)
        run.attempt_file.write_text(launch.model_dump_json())
        return run

    return write


@pytest.fixture(scope="module")
def pool(home, head):
    """A waiting runner; the next one gets ready while a test uses it."""
    pool = StandbyPool(
        home,
        environment=ENVIRONMENT,
        cold=lambda *_: pytest.fail("nobody waited"),
        num_cpus=100,
        refill_after_s=0.0,
        command=(sys.executable, DRIVER, "--standby"),
    )
    pool.step()
    yield pool
    pool.close()


def drive(run):
    with run.log_file.open("wb") as log:
        command = [sys.executable, DRIVER, "--attempt", str(run.attempt_file)]
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)


def reports(run, kind):
    if not run.reports_file.exists():
        return []
    lines = [json.loads(line) for line in run.reports_file.read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def outcome(run):
    return run.root.joinpath("outcome.txt").read_text()


def until(condition, *, run=None, timeout_s=60.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        said = run.log_file.read_text()[-3000:] if run and run.log_file.exists() else ""
        assert time.monotonic() < deadline, f"took too long; the log ends with: {said}"
        time.sleep(0.05)


def train_workers(head):
    keeper = psutil.Process(head.status().pid)
    found = []
    for process in keeper.children(recursive=True):
        try:
            if process.cmdline()[:1] == ["ray::RayTrainWorker"]:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def test_a_call_without_the_token_is_refused(head):
    grpc = pytest.importorskip("grpc")
    address = head.ensure()
    with grpc.insecure_channel(address.address) as channel:
        call = channel.unary_unary("/ray.rpc.JobInfoGcsService/GetAllJobInfo")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        token = address.token_file.read_text()
        known = call(b"", timeout=10, metadata=[("authorization", f"Bearer {token}")])
    assert known  # so the call itself is sound


def test_two_workers_go_on_after_one_died_and_stop_together_when_told(head, launch):
    run = launch(
        "job_two",
        training={"epochs": 10_000},
        checkpoint={"every_steps": 20},
        resources={"num_workers": 2},
    )
    driver = drive(run)
    until(lambda: reports(run, "checkpoint.created"), run=run)
    train_workers(head)[-1].kill()
    until(lambda: reports(run, "attempt.resumed"), run=run)
    assert reports(run, "attempt.resumed")[0]["data"]["step"] >= 20
    run.control_file.write_text('{"command": "pause"}')
    assert driver.wait(timeout=60) == 3, run.log_file.read_text()[-3000:]
    assert outcome(run) == "StoppedError: stopped by the command 'pause'"
    saved = reports(run, "checkpoint.created")[-1]["data"]["step"]
    resumed = reports(run, "attempt.resumed")[0]["data"]["step"]
    assert saved >= max(resumed, reports(run, "metric")[-1]["data"]["step"])
    assert len(reports(run, "attempt.resumed")) == 1  # a stop is no failure: nothing was retried


def test_more_workers_than_processors_are_refused_at_once(head, launch):
    run = launch("job_wide", resources={"num_workers": 3})
    assert drive(run).wait(timeout=60) == 3
    assert outcome(run).startswith("SpecInvalidError: /resources/num_workers: 3 workers")


def test_a_waiting_runner_takes_its_first_step_at_once(pool, launch):
    run = launch("job_warm", training={"max_steps": 40})
    until(pool.is_ready)
    started = time.time()
    process = pool.spawn(run.attempt_file, run.log_file)
    assert process.wait(timeout=30) == 0, run.log_file.read_text()[-3000:]
    pool.step()
    first = datetime.fromisoformat(reports(run, "metric")[0]["at"]).timestamp()
    assert first - started < 5.0
    assert outcome(run) == "done"
    assert (run.result / "manifest.json").exists()


def test_the_workers_of_a_killed_runner_end(head, pool, launch):
    run = launch("job_killed", training={"epochs": 10_000})
    until(pool.is_ready)
    idle = {process.pid for process in train_workers(head)}
    process = pool.spawn(run.attempt_file, run.log_file)
    until(lambda: reports(run, "metric"), run=run)
    workers = [worker for worker in train_workers(head) if worker.pid in idle]
    assert len(workers) == 1
    process.kill()
    process.wait()
    until(lambda: not workers[0].is_running(), timeout_s=15)


def test_the_head_is_closed_to_others_ends_when_told_and_leaves_nothing(home):
    head = RayHead(home)
    address = head.ensure()
    assert address.temp_dir.stat().st_mode & 0o077 == 0
    assert list(address.temp_dir.glob("r/session_2*/logs/*"))
    keeper = psutil.Process(head.status().pid)
    family = [keeper, *keeper.children(recursive=True)]
    head.stop()
    psutil.wait_procs(family, timeout=10)
    assert [process for process in family if process.is_running()] == []
    assert head.status() is None
    assert not address.temp_dir.exists()
