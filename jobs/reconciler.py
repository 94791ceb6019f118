"""Moves what runs toward what is wanted: starts, watches, ends attempts. The queue's only driver.

One step looks at every active attempt, then starts what fits. All it knows is in the database and
in the executor, so it may be killed anywhere: the next one adopts what runs. Before a job gets a
new attempt, the process of its last one is dead.

An attempt is expired when its heartbeat counter stood still for a whole lease time of *this*
process's monotonic clock; no clock is ever compared with another one.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from pydantic import ValidationError

from jobs.errors import (
    JobError,
    StaleFenceError,
    StorageFullError,
    StorageUnavailableError,
    WorkersLostError,
)
from jobs.executors.base import Executor
from jobs.failpoints import fp
from jobs.garbage import collect
from jobs.lease_watch import LeaseTimes, LeaseWatch, Verdict
from jobs.processes import available_cpus
from jobs.report_log import read_batches
from jobs.run_directory import run_directories
from jobs.spec import JobSpec
from jobs.states import DesiredState, JobState, Reason
from jobs.store import Lease, Store
from jobs.wire import Exit, Launch

log = structlog.get_logger(__name__)

_NO_STATUS: Final = -1  # exit code of a runner that nobody saw end


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcilerSettings:
    """What it hands to runners, and its times, in seconds."""

    api_url: str
    data_root: str | None = None
    ray_home: str | None = None
    owner: str = "local"
    num_cpus: int = field(default_factory=available_cpus)
    heartbeat_s: float = 3.0
    times: LeaseTimes = field(default_factory=LeaseTimes)
    unacknowledged_limit_s: float = 600.0  # we can kill on this host, so an outage need not
    stop_grace_s: float = 5.0  # between SIGTERM and SIGKILL
    leave_grace_s: float = 30.0  # for the runner of an attempt that has ended
    poll_s: float = 0.5
    collect_every_s: float = 600.0


class Reconciler:
    """See the module. `step` is one round; `run_forever` is the thread."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        settings: ReconcilerSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set up; nothing happens before the first step. `clock` gives monotonic seconds."""
        self._store, self._executor, self._settings = store, executor, settings
        self._clock = clock
        self._watch = LeaseWatch(settings.times, clock)
        self._active: set[tuple[str, int]] = set()
        self._leaving: dict[tuple[str, int], float] = {}  # ended attempts, since when
        self._has_looked_around = False
        self._stepped_at = clock()
        self._collected_at = clock()

    @property
    def last_step_age_s(self) -> float:
        """Seconds since a step last went through; for readiness."""
        return self._clock() - self._stepped_at

    def run_forever(self, stop: threading.Event) -> None:
        """Step until `stop` is set: at once when a job changes, else every `poll_s`."""
        feed = self._store.feed
        while not stop.is_set():
            seen = feed.queue_version()
            try:
                self.step()
                self._collect()
            except Exception:  # the thread must live: what failed now may work in a moment
                log.exception("reconciler.step_failed")
                stop.wait(self._settings.poll_s)
            feed.wait_queue(seen, self._settings.poll_s)

    def step(self) -> None:
        """Look after every active attempt, then start what fits."""
        self._look_around()
        leases = self._store.active()
        self._watch.keep(leases)
        for lease in leases:
            try:
                self._look_after(lease)
            except StaleFenceError:
                log.info("attempt.moved_on", job_id=lease.job_id, fence=lease.fence)
            except JobError:  # one attempt's trouble must not hold up the others
                log.exception("attempt.not_looked_after", job_id=lease.job_id, fence=lease.fence)
        self._see_off(leases)
        self._start_waiting()
        self._stepped_at = self._clock()

    def _look_around(self) -> None:
        """Once, before anything else: find the runners that whoever ran before us left.

        The attempt of one may have ended with that process; then `_see_off` has to know of it.
        """
        if self._has_looked_around:
            return
        for run in run_directories(self._store.storage):
            if self._executor.observe(run.job_id, run.fence).status == "running":
                self._active.add((run.job_id, run.fence))
        self._has_looked_around = True

    def _look_after(self, lease: Lease) -> None:
        verdict = self._watch.look(lease)
        seen = self._executor.observe(lease.job_id, lease.fence)
        if seen.status == "exited":
            self._finish(lease, seen.exit)
        elif seen.status == "absent":
            self._restart(lease)
        elif verdict is Verdict.SILENT:
            self._expire(lease)
        elif verdict is Verdict.OVER_TIME:
            # First the fence: a runner that is stopped says so, and would be tried again.
            self._store.end(lease.job_id, lease.fence, _OVER_TIME)
            self._stop(lease, verdict)
        elif verdict is Verdict.DISOBEDIENT:
            self._stop(lease, verdict)

    def _finish(self, lease: Lease, result: Exit | None) -> None:
        """The runner is gone: store what it left, then end the attempt."""
        run = self._store.run_directory(lease.job_id, lease.fence)
        stored = self._store.report_lines(lease.job_id, lease.fence)
        for batch in read_batches(run.reports_file, stored):
            self._store.ingest(lease.job_id, lease.fence, batch)
        state = self._store.end(lease.job_id, lease.fence, result or _VANISHED)
        reason = (result or _VANISHED).reason
        log.info("attempt.exited", job_id=lease.job_id, fence=lease.fence, reason=reason, to=state)

    def _expire(self, lease: Lease) -> None:
        self._store.expire(lease.job_id, lease.fence, lease.hb_seq, _SILENT)
        self._stop(lease, Verdict.SILENT)

    def _stop(self, lease: Lease, why: Verdict) -> None:
        log.warning("attempt.stopped", job_id=lease.job_id, fence=lease.fence, why=why.value)
        self._executor.stop(lease.job_id, lease.fence, grace_s=self._settings.stop_grace_s)

    def _restart(self, lease: Lease) -> None:
        """Nothing was ever started: the service ended between claim and start."""
        if lease.state is JobState.LEASED and lease.desired is DesiredState.RUNNING:
            self._launch(lease)
        else:
            self._store.end(lease.job_id, lease.fence, _VANISHED)

    def _see_off(self, leases: Sequence[Lease]) -> None:
        """Stop runners whose attempt has ended and that stay: they hold memory for nothing."""
        now = self._clock()
        active = {(lease.job_id, lease.fence) for lease in leases}
        for ended in self._active - active:
            self._leaving.setdefault(ended, now)
        self._active = active
        for (job_id, fence), since in list(self._leaving.items()):
            is_there = self._executor.observe(job_id, fence).status == "running"
            if is_there and now - since < self._settings.leave_grace_s:
                continue
            if is_there:
                log.warning("attempt.stopped", job_id=job_id, fence=fence, why="does_not_leave")
                self._executor.stop(job_id, fence, grace_s=self._settings.stop_grace_s)
            del self._leaving[job_id, fence]

    def _start_waiting(self) -> None:
        """Start queued jobs in the order in which they came, as long as the next one fits.

        A job that does not fit waits until it does, and those behind it wait too: smaller ones
        could keep it waiting for ever. One job always fits, however large.
        """
        waiting = self._store.claimable()
        if not waiting:
            return
        used = sum(_num_cpus(lease) for lease in self._store.active())
        for lease in waiting:
            if used and used + _num_cpus(lease) > self._settings.num_cpus:
                return
            if lease.fence:  # whatever is left of the last attempt must not meet the next one
                self._executor.stop(lease.job_id, lease.fence, grace_s=self._settings.stop_grace_s)
            claimed = self._store.claim(lease.job_id, owner=self._settings.owner)
            if claimed is not None:
                fp("claim.after_commit_before_spawn")
                used += _num_cpus(claimed)
                self._launch(claimed)

    def _launch(self, lease: Lease) -> None:
        try:
            self._executor.ensure(self._launch_message(lease))
            self._active.add((lease.job_id, lease.fence))
            log.info("attempt.launched", job_id=lease.job_id, fence=lease.fence)
        except (StorageFullError, StorageUnavailableError) as error:
            self._fail_launch(lease, Reason.STORAGE_UNAVAILABLE, error)
        except WorkersLostError as error:
            self._fail_launch(lease, Reason.DRIVER_LOST, error)
        except ValidationError as error:
            # The spec was valid when it came: a newer version of the service reads it differently.
            self._fail_launch(lease, Reason.SPEC_INVALID, error)

    def _fail_launch(self, lease: Lease, reason: Reason, error: JobError | ValidationError) -> None:
        log.warning(
            "attempt.not_launched", job_id=lease.job_id, fence=lease.fence, error=str(error)
        )
        remedy = getattr(error, "remedy", None)
        result = Exit(exit_code=_NO_STATUS, reason=reason, message=str(error)[:4000], remedy=remedy)
        self._store.end(lease.job_id, lease.fence, result)

    def _launch_message(self, lease: Lease) -> Launch:
        settings = self._settings
        return Launch(
            job_id=lease.job_id,
            fence=lease.fence,
            project=lease.project,
            spec=JobSpec.model_validate_json(json.dumps(lease.spec)),
            storage=str(self._store.storage),
            data_root=settings.data_root,
            api_url=settings.api_url,
            token=self._store.attempt_token(lease.job_id, lease.fence),
            ray_home=settings.ray_home,
            heartbeat_s=settings.heartbeat_s,
            unacknowledged_limit_s=settings.unacknowledged_limit_s,
        )

    def _collect(self) -> None:
        if self._clock() - self._collected_at >= self._settings.collect_every_s:
            self._collected_at = self._clock()
            collect(self._store)


_VANISHED: Final = Exit(
    exit_code=_NO_STATUS,
    reason=Reason.DRIVER_LOST,
    message="The runner ended without saying why: it was killed, or ran out of memory.",
    remedy="See the end of the attempt's log and the host's memory.",
)
_SILENT: Final = Exit(
    exit_code=_NO_STATUS,
    reason=Reason.LEASE_EXPIRED,
    message="The runner gave no sign of life for a whole lease.",
    remedy="See the attempt's log; the host may be overloaded.",
)
_OVER_TIME: Final = Exit(
    exit_code=_NO_STATUS,
    reason=Reason.MAX_RUNTIME_EXCEEDED,
    message="The attempt ran longer than retry.max_runtime_s.",
    remedy="Raise retry.max_runtime_s, or train less.",
)


def _num_cpus(lease: Lease) -> int:
    resources = lease.spec["resources"]
    return int(resources["num_workers"]) * int(resources["cpus_per_worker"])
