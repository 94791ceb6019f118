"""Processes: told apart by number *and* start time, ended, counted, and where their output goes."""

import os
import sys
from pathlib import Path

import psutil

_SAME_START_S = 1.0  # two readings of one start time may differ by rounding


def own_create_time() -> float:
    """When this process started, as psutil tells it."""
    return float(psutil.Process().create_time())


def runs(pid: int, create_time: float) -> bool:
    """Whether the process `pid` that started at `create_time` still runs (a zombie does not)."""
    try:
        process = psutil.Process(pid)
        is_same = abs(process.create_time() - create_time) < _SAME_START_S
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def terminate(pid: int, create_time: float, *, grace_s: float) -> None:
    """Ask that process to end, and kill it with all its children if it has not after `grace_s`.

    Does nothing to a process that only has the same number.
    """
    if not runs(pid, create_time):
        return
    try:
        process = psutil.Process(pid)
        family = [*process.children(recursive=True), process]
        process.terminate()
    except psutil.NoSuchProcess:
        return
    _, alive = psutil.wait_procs(family, timeout=grace_s)
    for survivor in alive:
        try:
            survivor.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(alive, timeout=5.0)


def redirect_output(log_file: Path) -> None:
    """From now on what this process says, libraries in C included, is appended to `log_file`."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


class UserRegistry:
    """Which processes need the head: one empty file each, `<pid>-<start time>`."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "users"

    def add_self(self) -> None:
        """Count this process as a user until it ends."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._directory / f"{os.getpid()}-{own_create_time():.2f}").touch(mode=0o600)

    def living(self) -> int:
        """How many users run; the files of others are removed."""
        count = 0
        for entry in self._directory.glob("*-*"):
            pid, _, create_time = entry.name.partition("-")
            if runs(int(pid), float(create_time)):
                count += 1
            else:
                entry.unlink(missing_ok=True)
        return count
