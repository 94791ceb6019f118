"""Print the start-up profile: API ready, and submit → first training step, cold and warm.

    python tests/benchmarks/startup.py [--repeats 3] [--workers 1]

Every run has a service of its own in a temporary home. The split comes from what the attempt leaves
on disk: when its files appeared and what it reported. Cold: no head runs and no runner waits.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from services.client import Client

MIGE = str(Path(sys.executable).with_name("mige"))
# Rows of the table: what the step ends with.
STAGES = {
    "placed": "the runner has the attempt",
    "head": "the Ray head answers",
    "worker": "a worker enters the loop",
    "loaded": "data, encoder and objective are built",
    "first step": "the first step is done",
    "last step": "training, evaluation and export are done",
    "published": "the encoder can be downloaded",
}


def job(num_workers: int) -> dict[str, object]:
    """A job of 20 steps on the digits."""
    return {
        "objective": {"kind": "mige_infomax"},
        "encoder": {"kind": "mlp"},
        "data": {"kind": "digits"},
        "training": {"max_steps": 20},
        "evaluation": {"linear_probe": False, "knn": False, "baselines": False},
        "resources": {"num_workers": num_workers},
    }


@contextmanager
def service(home: Path, *, standby: bool) -> Iterator[tuple[Client, float]]:
    """A running service and how long it took until it was ready."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MIGE_")}
    environment |= {"MIGE_STANDBY": str(standby).lower(), "MIGE_LOG_LEVEL": "warning"}
    started = time.time()
    command = [MIGE, "serve", "--home", str(home), "--port", str(port)]
    with (home.with_suffix(".log")).open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(port), process)
        ready_s = time.time() - started
        credentials = json.loads((home / "credentials.json").read_text())
        with Client(credentials["url"], credentials["api_key"]) as client:
            yield client, ready_s
    finally:
        process.terminate()
        process.wait(timeout=60)


def answers(port: int) -> bool:
    """Whether the API is ready."""
    request = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(request)
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    """Look every 10 ms; give up after three minutes or when the process ended."""
    deadline = time.time() + 180
    while not condition():
        if time.time() > deadline or (process is not None and process.poll() is not None):
            sys.exit("the service did not get ready; see its log beside the home")
        time.sleep(0.01)


def profile(client: Client, home: Path, num_workers: int) -> dict[str, float]:
    """Run one job; seconds from its submission to the end of each stage."""
    submitted = time.time()
    done = client.wait(client.submit(job(num_workers))["id"])
    published = time.time()
    if done["status"] != "succeeded":
        sys.exit(f"the job ended as {done['status']}: {done.get('message')}")
    (run,) = (home / "storage" / "staging" / done["id"]).glob("0*")
    reports = [json.loads(line) for line in (run / "reports.jsonl").read_text().splitlines()]
    at = {
        report["data"].get("phase", report["kind"]): datetime.fromisoformat(report["at"])
        for report in reversed(reports)
    }
    moments = {
        "placed": (run / "process.json").stat().st_mtime,
        "head": (home / "ray" / "head.json").stat().st_mtime,
        "worker": at["loading_data"].timestamp(),
        "loaded": at["training"].timestamp(),
        "first step": at["metric"].timestamp(),
        "last step": at["publishing"].timestamp(),
        "published": published,
    }
    return {stage: max(0.0, moment - submitted) for stage, moment in moments.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    ready, cold, warm, waited = [], [], [], []
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory(prefix="startup-") as folder:
            home = Path(folder) / "home"
            with service(home, standby=False) as (client, ready_s):
                ready.append(ready_s)
                cold.append(profile(client, home, arguments.workers))
            with service(home, standby=True) as (client, _):
                started = time.time()
                wait_for(lambda: any((home / "ray" / "standby").glob("*/ready")))  # noqa: B023
                waited.append(time.time() - started)
                time.sleep(1)  # the runner may still be finishing what came before `ready`
                warm.append(profile(client, home, arguments.workers))
    load = os.getloadavg()[0]
    lines = [
        f"{os.cpu_count()} processors, load {load:.1f}; medians of {arguments.repeats}, seconds",
        f"{'API ready':44}{statistics.median(ready):8.2f}",
        f"{'a runner waits, after the API was ready':44}{statistics.median(waited):8.2f}",
        f"{'from submit until':44}{'cold':>8}{'warm':>8}",
    ]
    for stage, meaning in STAGES.items():
        values = [statistics.median(run[stage] for run in runs) for runs in (cold, warm)]
        lines.append(f"{meaning:44}{values[0]:8.2f}{values[1]:8.2f}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
