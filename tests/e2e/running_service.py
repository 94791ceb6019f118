"""A whole service on a home of its own, and what the tests do with it again and again."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import psutil

from jobs.run_directory import run_directories
from services.local_service import LocalService

TINY = {
    "name": "tiny",
    "objective": {"kind": "mige_infomax"},
    "encoder": {"kind": "mlp", "out_dim": 8, "hidden_dims": [64]},
    "data": {"kind": "digits"},
    "training": {"epochs": 2, "batch_size": 128},
    "resources": {"backend": "inline"},
}

NO_STANDBY = {"MIGE_STANDBY": "false"}  # the jobs here run without Ray


def tiny_job(*, backend="inline", num_workers=1, **training):
    """A spec that trains for a moment; `training` changes how long."""
    return {
        **TINY,
        "training": {**TINY["training"], **training},
        "resources": {"backend": backend, "num_workers": num_workers},
        "checkpoint": {"every_steps": 20},
    }


def long_job(**options):
    """A spec that trains for some seconds: long enough to be killed in the middle."""
    spec = tiny_job(epochs=1000, max_steps=300, **options)
    return {**spec, "evaluation": {"linear_probe": False, "knn": False}}


def wait_until(condition, timeout_s=60.0):
    """The first true value of `condition`."""
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return result


class Running:
    """A service with a client, and a look at the processes behind it."""

    def __init__(self, service, client):
        self.service, self.client = service, client

    def cli(self, *arguments, stdin=None):
        """Run `mige` as a person would."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MIGE_")}
        return subprocess.run(
            [sys.executable, "-m", "services.cli.main", *arguments],
            env={**kept, "MIGE_HOME": str(self.service.home)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def runner(self, job_id):
        """The process of the job's last attempt."""
        runs = [r for r in run_directories(self.service.home / "storage") if r.job_id == job_id]
        recorded = json.loads(runs[-1].process_file.read_text())
        return psutil.Process(recorded["pid"])

    def at_step(self, job_id, step):
        """Wait until a job has trained so far."""

        def reached():
            job = self.client.job(job_id)
            assert job["status"] in ("queued", "running"), job
            return job["progress"] and job["progress"]["step"] >= step

        wait_until(reached)


@contextmanager
def running(home, **options):
    """A service for the length of a block; what it printed is shown if the block fails."""
    home.mkdir(parents=True, exist_ok=True)
    service = LocalService(home, home / "service.log", **options)
    try:
        with service, service.client() as client:
            yield Running(service, client)
    except BaseException:
        sys.stderr.write(service.output(60))
        raise
