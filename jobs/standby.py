"""Keeps one runner process ready, so that an attempt need not wait for processes to start.

The pool starts `python -m jobs.runner --standby <home>`, which imports, connects and starts a
worker group (`jobs.ray_backend.warm`) and then waits on its stdin for one `Assignment`. A process
that got one is the runner of that attempt like any other: in a session of its own, it outlives
whoever started it. One that got none ends when its stdin closes, so none is left behind.

Imports neither torch nor Ray.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.wire import Launch

log = logging.getLogger(__name__)

# Starts the runner of an attempt: its file and its log. The default of `jobs.executors`.
Spawn = Callable[[Path, Path], "subprocess.Popen[bytes]"]

_LOOK_EVERY_S = 1.0
_GRACE_S = 5.0
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 300.0


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a waiting runner is told: one line of JSON."""

    attempt_file: Path
    log_file: Path

    def line(self) -> bytes:
        """The line that goes down the pipe."""
        fields = {"attempt_file": str(self.attempt_file), "log_file": str(self.log_file)}
        return json.dumps(fields).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> "Assignment":
        """Read the line again."""
        fields = json.loads(line)
        return cls(Path(fields["attempt_file"]), Path(fields["log_file"]))


def standby_directory(home: Path, pid: int) -> Path:
    """Where the waiting runner `pid` keeps what it needs; `ready` in it says that it is."""
    return home.absolute() / "ray" / "standby" / str(pid)


@dataclass(slots=True)
class _Waiting:
    """A runner that has no attempt yet."""

    process: "subprocess.Popen[bytes]"
    pipe: int  # descriptor that its stdin reads from
    since: float


class StandbyPool:
    """One waiting runner, replaced when it was used and processors are free again."""

    def __init__(
        self,
        home: Path,
        *,
        environment: Mapping[str, str],
        cold: Spawn,
        num_cpus: int,
        refill_after_s: float = 10.0,
        idle_s: float = 1800.0,
        min_available_bytes: int = 3 * 2**30,
        command: tuple[str, ...] = (sys.executable, "-P", "-m", "jobs.runner", "--standby"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up; `start` begins.

        Args:
            home: the service's home directory; the last argument of `command`.
            environment: the whole environment of a waiting runner.
            cold: starts a runner the plain way when none waits.
            num_cpus: no runner is got ready while jobs take so many processors or more.
            refill_after_s: how long after one was used the next is got ready; getting ready takes
                the processors that the job's own start needs.
            idle_s: a runner that waited for so long ends; the next job starts cold.
            min_available_bytes: no runner is got ready while less memory is available; it and its
                worker take about 1.8 GB.
            command: what starts a waiting runner.
            clock: monotonic seconds.
        """
        self._home = home.absolute()
        self._environment = dict(environment)
        self._cold, self._num_cpus = cold, num_cpus
        self._refill_after_s, self._idle_s = refill_after_s, idle_s
        self._min_available_bytes = min_available_bytes
        self._command, self._clock = command, clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._waiting: _Waiting | None = None
        self._busy: list[tuple[subprocess.Popen[bytes], int]] = []
        self._not_before = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._is_wanted = True

    def start(self) -> None:
        """Get the first runner ready, and watch over it in a thread."""
        self._remove_leftovers()
        self._not_before = self._clock()
        self._thread = threading.Thread(target=self._watch, name="standby", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the waiting runner. Attempts that run go on."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._dismiss()

    def spawn(self, attempt_file: Path, log_file: Path) -> "subprocess.Popen[bytes]":
        """The runner of this attempt: the waiting one, ready or not, else a new one.

        An attempt that does without Ray gets a new one: the other's worker would idle beside it.
        """
        resources = Launch.model_validate_json(attempt_file.read_bytes()).spec.resources
        with self._lock:
            process = None
            if resources.backend != "inline":
                process = self._assign(Assignment(attempt_file, log_file))
            if process is None:
                process = self._cold(attempt_file, log_file)
            self._busy.append((process, resources.num_workers * resources.cpus_per_worker))
            self._is_wanted = True
            self._not_before = self._clock() + self._refill_after_s
        return process

    def step(self) -> None:
        """Look once: replace a runner that is used or has ended, dismiss one nobody needs."""
        with self._lock:
            now = self._clock()
            self._busy = [(p, cpus) for p, cpus in self._busy if p.poll() is None]
            if self._waiting is None:
                if self._is_wanted and now >= self._not_before and self._has_room():
                    self._waiting = self._start_one(now)
            elif self._waiting.process.poll() is not None:
                self._pause_after_failure(self._waiting, now)
            elif now - self._waiting.since > self._idle_s:
                self._dismiss()
                self._is_wanted = False

    def is_ready(self) -> bool:
        """Whether a runner waits with everything done."""
        with self._lock:
            waiting = self._waiting
            return waiting is not None and self._directory(waiting).joinpath("ready").exists()

    def _watch(self) -> None:
        while True:
            try:
                self.step()
            except OSError:  # no process or no room for its log: the next look tries again
                log.exception("standby.failed")
            if self._stop.wait(_LOOK_EVERY_S):
                return

    def _has_room(self) -> bool:
        is_processor_free = sum(cpus for _, cpus in self._busy) < self._num_cpus
        available = psutil.virtual_memory().available
        return bool(is_processor_free and available >= self._min_available_bytes)

    def _start_one(self, now: float) -> _Waiting:
        self._log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        receiver, sender = os.pipe()
        try:
            with self._log_file.open("wb") as output:
                process = subprocess.Popen(  # noqa: S603 - our own module
                    [*self._command, str(self._home)],
                    cwd=self._home,
                    env=self._environment,
                    stdin=receiver,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError:
            os.close(sender)
            raise
        finally:
            os.close(receiver)
        return _Waiting(process, sender, now)

    def _assign(self, assignment: Assignment) -> "subprocess.Popen[bytes] | None":
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return None
        try:
            if waiting.process.poll() is not None:
                return None
            os.write(waiting.pipe, assignment.line())
        except BrokenPipeError:
            waiting.process.wait()
            return None
        finally:
            os.close(waiting.pipe)
        self._pause_s = _FIRST_PAUSE_S
        return waiting.process

    def _dismiss(self) -> None:
        """End the waiting runner. It has nothing to lose, and Ray ends its workers."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        os.close(waiting.pipe)
        waiting.process.terminate()
        try:
            waiting.process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            waiting.process.kill()
            waiting.process.wait()
        shutil.rmtree(self._directory(waiting), ignore_errors=True)

    def _pause_after_failure(self, waiting: _Waiting, now: float) -> None:
        log.warning(
            "standby.ended status=%s log=%s next_in_s=%g",
            waiting.process.returncode,
            self._log_file,
            self._pause_s,
        )
        self._dismiss()
        self._not_before = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _directory(self, waiting: _Waiting) -> Path:
        return standby_directory(self._home, waiting.process.pid)

    @property
    def _log_file(self) -> Path:
        return self._home / "ray" / "standby.log"

    def _remove_leftovers(self) -> None:
        """Directories of waiting runners that were killed."""
        for directory in (self._home / "ray" / "standby").glob("[0-9]*"):
            if not psutil.pid_exists(int(directory.name)):
                shutil.rmtree(directory, ignore_errors=True)
