"""The driver of one attempt, the same wherever it runs: `python -m jobs.runner --attempt FILE`.

It keeps the line to the control plane (`jobs.forwarder`), has the backend train, evaluate and stage
the encoder, checks and publishes what was staged, and says how it ended: to the control plane, in
`exit.json`, and by its exit code (`jobs.states.ExitCode`). SIGTERM: training saves and stops.

torch and Ray are imported only when the first heartbeat is on its way.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from jobs.artifacts import write_atomic
from jobs.control_plane import ControlPlane, HttpControlPlane
from jobs.errors import (
    JobError,
    StaleFenceError,
    StateConflictError,
    StoppedError,
    StorageUnavailableError,
)
from jobs.exits import COMPLETED, FENCED, INTERRUPTED, UNACKNOWLEDGED, classify
from jobs.forwarder import FIRST_PAUSE_S, LONGEST_PAUSE_S, Forwarder, Watch
from jobs.reporters import FileReporter, ReportWriter, new_report
from jobs.run_directory import RunDirectory
from jobs.runner_log import configure_log
from jobs.states import ExitCode, Phase
from jobs.wire import Exit, Heartbeat, Launch, Manifest

FLUSH_S = 10.0  # for the last reports; the executor picks up what is left in the file
INTERRUPTED_FLUSH_S = 1.0  # SIGTERM mostly means that the service stops too: nobody would answer
END_TRIES = 3
GRACE_S = 20.0  # for a last checkpoint, once nobody acknowledges any more

RunRay = Callable[[Launch], None]
T = TypeVar("T")

log = structlog.get_logger()


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and drive one attempt; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m jobs.runner", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--attempt", type=Path, help="The attempt's launch file.")
    what.add_argument(
        "--standby", type=Path, metavar="HOME", help="Get ready and wait for an attempt on stdin."
    )
    arguments = parser.parse_args(argv)
    os.umask(0o077)
    configure_log()
    if arguments.standby is None:
        return drive(arguments.attempt)
    from jobs.ray_backend.warm import serve

    return serve(arguments.standby, drive)


def drive(attempt_file: Path, run_ray: RunRay | None = None) -> int:
    """Drive the attempt of a launch file to its end.

    Args:
        attempt_file: `attempt.json`.
        run_ray: what trains an attempt that asks for Ray Train; None: the plain way.

    Returns:
        The exit code, also written to `exit.json`.
    """
    launch = Launch.model_validate_json(attempt_file.read_bytes())
    structlog.contextvars.bind_contextvars(job_id=launch.job_id, fence=launch.fence)
    with HttpControlPlane(launch) as control_plane:
        return Runner(launch, control_plane, run_ray=run_ray).run().exit_code


class Runner:
    """One attempt, from the first heartbeat to `exit.json`."""

    def __init__(
        self,
        launch: Launch,
        control_plane: ControlPlane,
        *,
        run_ray: RunRay | None = None,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        """Set up; `run` begins.

        Args:
            launch: the attempt.
            control_plane: whom to tell.
            run_ray: what trains an attempt that asks for Ray Train; None: the plain way.
            leave: ends the process at once, whatever its main thread does.
        """
        self._launch, self._control_plane, self._run_ray = launch, control_plane, run_ray
        self._leave = leave
        self._directory = RunDirectory(Path(launch.storage), launch.job_id, launch.fence)
        self._interruption: Exit | None = None
        self._ended = threading.Event()
        watch = Watch(
            fenced=self._fenced,
            lost=self._lost,
            heartbeat_s=launch.heartbeat_s,
            unacknowledged_limit_s=launch.unacknowledged_limit_s,
        )
        self._forwarder = Forwarder(self._directory, control_plane, watch)

    def run(self) -> Exit:
        """Drive the attempt; returns how it ended."""
        previous = signal.signal(signal.SIGTERM, lambda *_: self._interrupt(INTERRUPTED))
        self._forwarder.start()
        log.info("attempt.started", backend=self._launch.spec.resources.backend, pid=os.getpid())
        try:
            self._train()
            self._publish()
            end = COMPLETED
        except BaseException as error:  # noqa: BLE001 - the process's boundary: every end has a reason
            end = self._end_of(error)
        finally:
            self._ended.set()
            signal.signal(signal.SIGTERM, previous)
        self._tell_end(end)
        return end

    def _train(self) -> None:
        if self._launch.spec.resources.backend == "inline":
            from jobs.worker import run_worker

            run_worker(self._launch, FileReporter(self._directory))
        elif self._run_ray is not None:
            self._run_ray(self._launch)
        else:
            from jobs.ray_backend.trainer import run_with_ray_train

            run_with_ray_train(self._launch)

    def _publish(self) -> None:
        """Check what was staged, close the door to cancels, publish."""
        import mige
        from jobs.export import MANIFEST_FILE
        from jobs.golden import GOLDEN_FILE, check_golden

        writer = ReportWriter(self._directory.reports_file)
        writer.append(new_report("phase", {"phase": Phase.PUBLISHING.value}))
        staged = self._directory.result
        check_golden(mige.load_encoder(staged), (staged / GOLDEN_FILE).read_bytes())
        manifest = Manifest.model_validate_json((staged / MANIFEST_FILE).read_bytes())
        self._forwarder.flush(FLUSH_S)
        try:
            _patiently(self._control_plane.finalize)
        except StateConflictError as error:
            raise self._stopped(error) from error
        self._forwarder.expect_end()
        published = _patiently(lambda: self._control_plane.publish(manifest))
        log.info("attempt.published", encoder_id=published.encoder_id)

    def _stopped(self, conflict: StateConflictError) -> JobError:
        """A cancel or a pause came before the end: which one it was."""
        answer = _patiently(
            lambda: self._control_plane.heartbeat(Heartbeat(phase=Phase.PUBLISHING))
        )
        return conflict if answer.command == "continue" else StoppedError(answer.command)

    def _end_of(self, error: BaseException) -> Exit:
        interruption, command = self._interruption, self._forwarder.command
        if isinstance(error, StoppedError) and command == "continue" and interruption is not None:
            log.info("attempt.interrupted")
            return interruption
        end = classify(error)
        log.info(
            "attempt.ended",
            reason=end.reason.value,
            exit_code=end.exit_code,
            message=end.message,
            exc_info=None if isinstance(error, JobError) else error,
        )
        return end

    def _tell_end(self, end: Exit) -> None:
        """Hand over the last reports and the end; `exit.json` comes last."""
        is_news = end.exit_code not in (ExitCode.OK, ExitCode.FENCED)
        flush_s = INTERRUPTED_FLUSH_S if end is INTERRUPTED else FLUSH_S
        if is_news and self._forwarder.flush(flush_s):
            self._forwarder.expect_end()
            self._say_end(end)
        self._forwarder.stop()
        self._write_exit(end)

    def _say_end(self, end: Exit) -> None:
        try:
            _patiently(lambda: self._control_plane.end(end), tries=END_TRIES)
        except StaleFenceError:
            log.info("attempt.ended_by_others")
        except JobError as error:  # the executor reads exit.json
            log.warning("end.not_told", error=str(error))

    def _interrupt(self, end: Exit) -> None:
        self._interruption = end
        self._forwarder.interrupt()

    def _fenced(self) -> None:
        """Called by the forwarder: write nothing more, end at once."""
        log.error("attempt.fenced")
        self._leave_with(FENCED)

    def _lost(self) -> None:
        """Called by the forwarder, whose thread this is: a last checkpoint, then end."""
        log.error("attempt.unacknowledged", limit_s=self._launch.unacknowledged_limit_s)
        self._interrupt(UNACKNOWLEDGED)
        self._forwarder.turn()  # writes the control file
        if not self._ended.wait(GRACE_S):
            self._leave_with(UNACKNOWLEDGED)

    def _leave_with(self, end: Exit) -> None:
        """End the process, also where its last word cannot be written (a full disk)."""
        try:
            self._write_exit(end)
        finally:
            self._leave(end.exit_code)

    def _write_exit(self, end: Exit) -> None:
        write_atomic(self._directory.exit_file, end.model_dump_json().encode())


def _patiently(request: Callable[[], T], *, tries: int | None = None) -> T:
    """Repeat a request while the control plane is away.

    Without a number of tries it goes on until the forwarder gives up and ends the process.
    """
    pause_s, failures = FIRST_PAUSE_S, 0
    while True:
        try:
            return request()
        except StorageUnavailableError:
            failures += 1
            if tries is not None and failures >= tries:
                raise
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)


if __name__ == "__main__":
    sys.exit(main())
