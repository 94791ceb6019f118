"""Carries reports and heartbeats from a run directory to the control plane, and commands back.

A thread of the runner. It never blocks training: while the control plane is away, reports stay in
their file and it tries again with growing, jittered pauses.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from jobs.artifacts import write_atomic
from jobs.control_plane import ControlPlane
from jobs.errors import ArtifactInvalidError, StaleFenceError, StorageUnavailableError
from jobs.report_tail import ReportTail
from jobs.reporters import CommandName
from jobs.run_directory import RunDirectory
from jobs.states import Phase
from jobs.wire import Command, Heartbeat, Report, ReportBatch

LOOK_EVERY_S = 0.1
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 3.0  # the longest stays far below a lease's time to live

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What the forwarder calls when the attempt cannot go on; each is called at most once.

    `fenced`: a newer attempt exists. `lost`: nobody acknowledged anything for
    `unacknowledged_limit_s`.
    """

    fenced: Callable[[], None]
    lost: Callable[[], None]
    heartbeat_s: float
    unacknowledged_limit_s: float


class Forwarder:
    """One attempt's line to the control plane.

    `turn` does what is due now and is all there is to test; `start` calls it from a thread.
    """

    def __init__(
        self,
        run: RunDirectory,
        control_plane: ControlPlane,
        watch: Watch,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run, self._control_plane, self._watch, self._clock = run, control_plane, watch, clock
        self._tail = ReportTail(run.reports_file)
        self._phase = Phase.PROVISIONING
        self._command: CommandName = "continue"
        self._written: CommandName = "continue"
        self._interrupted = False
        self._expects_end = False
        self._over = False
        self._heartbeat_at = self._retry_at = self._acknowledged_at = clock()
        self._pause_s = FIRST_PAUSE_S
        self._forwards = 0  # how often everything there was got forwarded
        self._thread = threading.Thread(target=self._loop, name="forwarder", daemon=True)

    @property
    def command(self) -> CommandName:
        """What the control plane said last."""
        return self._command

    def start(self) -> None:
        """Begin, with a heartbeat at once."""
        self._thread.start()

    def interrupt(self) -> None:
        """Have training save and stop, as at a pause. Safe in a signal handler."""
        self._interrupted = True

    def expect_end(self) -> None:
        """From now on the attempt may be over at any time: being stale is no news."""
        self._expects_end = True

    def flush(self, timeout_s: float) -> bool:
        """Wait until every report so far is stored; False if that took too long."""
        deadline = time.monotonic() + timeout_s
        wanted = self._forwards + 2  # the one under way may have looked before the last report
        while self._forwards < wanted and not self._over and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S / 4)
        return self._forwards >= wanted

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._over = True
        self._thread.join()

    def turn(self) -> None:
        """Do what is due."""
        now = self._clock()
        self._write_control()
        if now < self._retry_at:
            self._check_lost(now)
            return
        try:
            if now >= self._heartbeat_at:
                self._beat()
            self._forward()
            self._pause_s = FIRST_PAUSE_S
        except StorageUnavailableError as error:
            log.warning("control_plane.unavailable", error=str(error), pause_s=self._pause_s)
            self._back_off(now)
            self._check_lost(self._clock())
        except StaleFenceError:
            self._over = True
            if not self._expects_end:
                self._watch.fenced()

    def _loop(self) -> None:
        while not self._over:
            try:
                self.turn()
            except Exception:  # the thread must live on: without heartbeats the lease runs out
                log.exception("forwarder.failed")
                self._back_off(self._clock())
            time.sleep(LOOK_EVERY_S)

    def _back_off(self, now: float) -> None:
        self._retry_at = now + self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311
        self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)

    def _beat(self) -> None:
        answer = self._control_plane.heartbeat(Heartbeat(phase=self._phase))
        now = self._clock()
        self._acknowledged_at, self._heartbeat_at = now, now + self._watch.heartbeat_s
        self._command = answer.command
        self._write_control()

    def _forward(self) -> None:
        while (batch := self._tail.next_batch()) is not None:
            self._enter_phases(batch)
            self._tail.acknowledge(self._send(batch))
            self._acknowledged_at = self._clock()
        self._forwards += 1

    def _send(self, batch: ReportBatch) -> int:
        try:
            return self._control_plane.report(batch).lines
        except ArtifactInvalidError:
            # Refused for good: say so in place of the reports, or nothing after them would pass.
            log.exception("reports.refused", first=batch.first, count=len(batch.reports))
            refused = tuple(
                Report(kind="diagnostic.refused", at=report.at, data={"kind": report.kind})
                for report in batch.reports
            )
            return self._control_plane.report(batch.model_copy(update={"reports": refused})).lines

    def _enter_phases(self, batch: ReportBatch) -> None:
        """Tell each new phase at once: the job's state depends on it."""
        for report in batch.reports:
            if report.kind == "phase" and report.data.get("phase") != self._phase:
                self._phase = Phase(report.data["phase"])
                self._beat()

    def _write_control(self) -> None:
        wanted: CommandName = self._command
        if wanted == "continue" and self._interrupted:
            wanted = "pause"
        if wanted != self._written:
            content = Command(command=wanted).model_dump_json().encode()
            write_atomic(self._run.control_file, content)
            self._written = wanted

    def _check_lost(self, now: float) -> None:
        if now - self._acknowledged_at > self._watch.unacknowledged_limit_s and not self._over:
            self._over = True
            self._watch.lost()
