"""The control side is killed at every named point and started again: nothing is lost or doubled."""

import hashlib
import os
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.failpoints import FAILPOINTS
from jobs.states import JobState, Reason
from jobs.store import open_store

SCRIPT = Path(__file__).with_name("control_side_script.py")


POINTS = sorted(name for name in FAILPOINTS if not name.startswith("ckpt."))  # the trainer's own


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory) -> Path:
    """A database with all tables, made once: Alembic takes a moment."""
    home = tmp_path_factory.mktemp("empty")
    open_store(f"sqlite:///{home}/mige.db", home=home).close()
    return home / "mige.db"


def run_and_kill(home: Path, point: str) -> int:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(home)],
        env={**os.environ, "FAILPOINTS": f"{point}=kill"},
        check=False,
        timeout=60,
    )
    return done.returncode


def run_again(home: Path) -> None:
    """In this process: it saves a second for each point."""
    runpy.run_path(str(SCRIPT))["main"](home)


def check(home: Path) -> None:
    store = open_store(f"sqlite:///{home}/mige.db", home=home)
    jobs = store.jobs(project="p").items
    assert len(jobs) == 4  # one per key, however often it was asked for
    runs, fails, cancelled, succeeded = jobs
    assert succeeded.state is JobState.SUCCEEDED
    assert cancelled.state is JobState.CANCELLED
    assert (fails.state, fails.reason, fails.attempts) == (JobState.FAILED, Reason.NAN_LOSS, 2)
    assert (runs.state, runs.reason) == (JobState.QUEUED, Reason.DRIVER_LOST)
    (encoder,) = store.encoders(project="p").items
    assert succeeded.encoder_id == encoder.id
    for entry in encoder.manifest["files"]:
        file, _ = store.objects.open_object(entry["sha256"])
        with file:
            assert hashlib.sha256(file.read()).hexdigest() == entry["sha256"]
    for job in jobs:
        numbers = [event.seq for event in store.events(job.id)]
        assert numbers == list(range(1, len(numbers) + 1))
        assert not any(a.active for a in store.attempts(job.id))
    assert len(store.events(succeeded.id, kinds={"metric"})) == 1
    store.close()


def test_without_a_crash_everything_happens_once(tmp_path):
    for _ in range(2):
        run_again(tmp_path / "home")
        check(tmp_path / "home")


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_loses_and_doubles_nothing(tmp_path, empty_database, point):
    home = tmp_path / "home"
    if point != "migrate.mid":
        home.mkdir()
        shutil.copy(empty_database, home / "mige.db")
    assert run_and_kill(home, point) == -signal.SIGKILL, f"{point} was not reached"
    run_again(home)
    check(home)
