"""Runs each attempt as one process group on this host, which outlives whoever started it.

What it knows is in files, so a service that starts again finds its runners: `attempt.json` says
that a start was begun, `process.json` which process it became. A start that was begun and has no
process counts as ended: a second one with the same fence could meet the first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from jobs.artifacts import (
    make_private_directory,
    read_regular,
    write_atomic,
)
from jobs.errors import ArtifactInvalidError, WorkersLostError
from jobs.executors.base import Observation
from jobs.failpoints import fp
from jobs.processes import end_group, is_running, start_mark
from jobs.run_directory import RunDirectory
from jobs.wire import Exit, Launch

# Gets the attempt file and the log; starts the runner in a session of its own.
Spawn = Callable[[Path, Path], "subprocess.Popen[bytes]"]

RUNNER_COMMAND: Final = (sys.executable, "-P", "-m", "jobs.runner", "--attempt")
# All that a runner inherits. No secrets: those of its attempt are in the attempt file.
INHERITED: Final = (
    *("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH"),
    *("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"),
)
_JSON_LIMIT: Final = 1 << 16


def runner_environment() -> dict[str, str]:
    """The whole environment of a runner: what of ours it may see."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


@dataclass(frozen=True, slots=True)
class StartRunner:
    """The plain way to start a runner: a new process, its output appended to the log."""

    command: tuple[str, ...] = RUNNER_COMMAND
    environment: Mapping[str, str] | None = None

    def __call__(self, attempt_file: Path, log_file: Path) -> subprocess.Popen[bytes]:
        """Start it.

        Raises:
            OSError: no process, or no log, could be made.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        log = os.open(log_file, flags, 0o600)
        try:
            return subprocess.Popen(  # noqa: S603 - our own module, no shell
                [*self.command, str(attempt_file)],
                cwd=attempt_file.parent,
                env=runner_environment() if self.environment is None else dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finally:
            os.close(log)


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    mark: str


class LocalProcess:
    """The executor of a single host. Used by one thread, the reconciler's."""

    def __init__(self, storage: Path, *, spawn: Spawn | None = None) -> None:
        """Set up; nothing is started.

        Args:
            storage: root of the storage directory.
            spawn: starts a runner process; None: `StartRunner()`.
        """
        self._storage = storage
        self._spawn: Spawn = StartRunner() if spawn is None else spawn
        self._children: list[subprocess.Popen[bytes]] = []

    def ensure(self, launch: Launch) -> None:
        """Start the runner of this attempt unless a start was begun before.

        Raises:
            StorageFullError: there is no room for the attempt's files.
            StorageUnavailableError: they cannot be written.
            WorkersLostError: no process could be started.
        """
        run = RunDirectory(self._storage, launch.job_id, launch.fence)
        if run.attempt_file.exists():
            return
        make_private_directory(run.root)
        write_atomic(run.attempt_file, launch.model_dump_json().encode())
        try:
            child = self._spawn(run.attempt_file, run.log_file)
        except OSError as error:
            raise WorkersLostError(
                f"The runner process could not be started: {error.strerror}.",
                "Look for a limit on processes or memory.",
            ) from error
        self._children.append(child)
        fp("spawn.after_before_recorded")
        self._record(run, child.pid)

    def observe(self, job_id: str, fence: int) -> Observation:
        """What is known of the attempt's runner now, also if another process started it."""
        self._reap()
        run = RunDirectory(self._storage, job_id, fence)
        process = self._recorded(run)
        if process is None:
            return Observation("exited" if run.attempt_file.exists() else "absent")
        if is_running(process.pid, process.mark):
            return Observation("running")
        return Observation("exited", _read_exit(run))

    def stop(self, job_id: str, fence: int, *, grace_s: float) -> None:
        """End the runner and all its children; kill what is left after `grace_s`."""
        process = self._recorded(RunDirectory(self._storage, job_id, fence))
        if process is not None:
            end_group(process.pid, process.mark, grace_s=grace_s)
        self._reap()

    def _record(self, run: RunDirectory, pid: int) -> None:
        mark = start_mark(pid) or "ended at once"
        try:
            write_atomic(run.process_file, json.dumps({"pid": pid, "mark": mark}).encode())
        except BaseException:
            end_group(pid, mark, grace_s=0)  # nobody could find it later
            raise

    def _recorded(self, run: RunDirectory) -> _Process | None:
        if not run.process_file.exists():
            return None
        try:
            fields = json.loads(read_regular(run.process_file, limit_bytes=_JSON_LIMIT))
            return _Process(pid=int(fields["pid"]), mark=str(fields["mark"]))
        except (ArtifactInvalidError, ValueError, TypeError, KeyError):
            return None  # somebody else wrote it: what it names is not for us to watch or end

    def _reap(self) -> None:
        """Collect the status of children that ended, so that no zombie stays."""
        self._children = [child for child in self._children if child.poll() is None]


def _read_exit(run: RunDirectory) -> Exit | None:
    """How the runner says it ended; None if it could not say so any more."""
    try:
        return Exit.model_validate_json(read_regular(run.exit_file, limit_bytes=_JSON_LIMIT))
    except (ArtifactInvalidError, ValidationError):
        return None
