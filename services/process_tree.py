"""Processes known by pid and start time: a pid alone may have passed to somebody else."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

_SAME_START_S = 1.0  # the start time is kept in clock ticks since boot; its reading may wobble
_POLL_S = 0.05


def recorded_process(file: Path) -> psutil.Process | None:
    """The process that `file` names as `{"pid", "create_time"}`, if it still runs."""
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        process = psutil.Process(state["pid"])
        same = abs(process.create_time() - state["create_time"]) < _SAME_START_S
    except (FileNotFoundError, ValueError, KeyError, TypeError, psutil.NoSuchProcess):
        return None
    return process if same and _runs(process) else None


def record_process(file: Path, pid: int) -> None:
    """Write the file that `recorded_process` reads."""
    state = {"pid": pid, "create_time": psutil.Process(pid).create_time()}
    file.write_text(json.dumps(state), encoding="utf-8")


def end_processes(leaders: Sequence[psutil.Process], grace_s: float) -> None:
    """SIGTERM to each, one shared grace, then SIGKILL to what is left of them and their children.

    Only the leaders get SIGTERM: they know in which order their own children should end.
    """
    everything = [*leaders, *(child for leader in leaders for child in _children(leader))]
    for leader in leaders:
        with suppress(psutil.NoSuchProcess):
            leader.terminate()
    deadline = time.monotonic() + grace_s
    while any(map(_runs, leaders)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    _kill(everything)


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return children


def _runs(process: psutil.Process) -> bool:
    """Whether it can still do something: a zombie whose parent does not look cannot."""
    try:
        runs: bool = process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    return runs
