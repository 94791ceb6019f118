"""Processes of this host, told apart by more than a number, and whole groups ended.

A pid is given out again. What identifies a process is its pid with its *mark*: when it started,
counted from a boot that is named too, so that no change of the clock can change it.
"""

from __future__ import annotations

import os
import platform
import signal
import time
from pathlib import Path
from typing import Final

import psutil

_LOOK_EVERY_S: Final = 0.02
_KILL_WAIT_S: Final = 5.0
_ZOMBIE: Final = frozenset({psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})


def available_cpus() -> int:
    """How many processors this process may use: fewer than the host has where it is confined."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def start_mark(pid: int) -> str | None:
    """The mark of a process that runs; None if there is none, or only its zombie."""
    if platform.system() == "Linux":
        return _linux_mark(pid)
    try:
        process = psutil.Process(pid)
        return None if process.status() in _ZOMBIE else f"{process.create_time():.3f}"
    except psutil.NoSuchProcess:
        return None


def is_running(pid: int, mark: str) -> bool:
    """Whether the very process with this mark runs."""
    return start_mark(pid) == mark


def end_group(leader: int, mark: str, *, grace_s: float) -> None:
    """End a process that leads a group of its own, and all the others of the group.

    They get SIGTERM and, after `grace_s`, SIGKILL. Nothing happens if the number of the leader now
    belongs to another process: as long as one member lives, the kernel does not give it out again.
    """
    found = start_mark(leader)
    if found not in {mark, None} or not members(leader):
        return
    if grace_s > 0:
        _signal(leader, signal.SIGTERM)
        if _gone(leader, grace_s):
            return
    _signal(leader, signal.SIGKILL)
    _gone(leader, _KILL_WAIT_S)


def members(group: int) -> list[int]:
    """The processes of a group and session of that number that still run."""
    return [pid for pid in psutil.pids() if _belongs(pid, group)]


def _belongs(pid: int, group: int) -> bool:
    try:
        if os.getpgid(pid) != group or os.getsid(pid) != group:
            return False
        return psutil.Process(pid).status() not in _ZOMBIE
    except (ProcessLookupError, PermissionError, psutil.Error):
        return False  # gone, or of another user and so none of ours


def _gone(group: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while members(group):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return  # ended in between, which is what was wanted


def _linux_mark(pid: int) -> str | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="latin-1")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # proc(5): "pid (comm) state ppid ..."; comm may hold anything, so count from its last bracket.
    fields = text.rpartition(")")[2].split()
    state, start_ticks = fields[0], fields[19]
    return None if state in {"Z", "X"} else f"{boot}:{start_ticks}"
