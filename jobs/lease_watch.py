"""Judges attempts that run, by this process's own monotonic clock and nobody else's.

The database holds a counter that moves with every heartbeat. An attempt is silent when the counter
stood still for a whole lease time *of whoever watches*. A watcher that starts anew, or could not
read for a while, starts counting again: that costs one lease time, and never a healthy attempt.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from jobs.states import DesiredState, JobState
from jobs.store import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How long is too long, in seconds."""

    ttl_s: float = 15.0
    start_ttl_s: float = 60.0  # until the first heartbeat: interpreters start slowly on a full host
    cancel_grace_s: float = 20.0  # until a runner that does not obey is made to
    pause_grace_s: float = 120.0


class Verdict(Enum):
    """What to think of an attempt whose process runs."""

    FINE = "fine"
    SILENT = "lease_expired"
    OVER_TIME = "max_runtime_exceeded"
    DISOBEDIENT = "does_not_stop"


@dataclass(slots=True)
class _Watch:
    fence: int
    hb_seq: int
    moved_at: float
    started_at: float
    asked_at: float | None = None  # when a cancel or pause was first seen


class LeaseWatch:
    """Remembers what it saw of each active attempt."""

    def __init__(self, times: LeaseTimes, clock: Callable[[], float]) -> None:
        self._times, self._clock = times, clock
        self._watches: dict[str, _Watch] = {}

    def keep(self, leases: Collection[Lease]) -> None:
        """Forget every job but these."""
        active = {lease.job_id for lease in leases}
        self._watches = {k: w for k, w in self._watches.items() if k in active}

    def look(self, lease: Lease) -> Verdict:
        """Note what the lease says now, and judge."""
        now = self._clock()
        watch = self._update(lease, now)
        spoke = lease.hb_seq != lease.claim_hb_seq
        if now - watch.moved_at >= (self._times.ttl_s if spoke else self._times.start_ttl_s):
            return Verdict.SILENT
        if lease.state is JobState.FINALIZING:
            return Verdict.FINE
        limit = lease.spec["retry"]["max_runtime_s"]
        if limit is not None and now - watch.started_at >= limit:
            return Verdict.OVER_TIME
        if watch.asked_at is not None and now - watch.asked_at >= self._grace_s(lease):
            return Verdict.DISOBEDIENT
        return Verdict.FINE

    def _update(self, lease: Lease, now: float) -> _Watch:
        watch = self._watches.get(lease.job_id)
        if watch is None or watch.fence != lease.fence:
            watch = _Watch(lease.fence, lease.hb_seq, now, now - _age_s(lease))
            self._watches[lease.job_id] = watch
        if watch.hb_seq != lease.hb_seq:
            watch.hb_seq, watch.moved_at = lease.hb_seq, now
        if lease.desired is DesiredState.RUNNING:
            watch.asked_at = None
        elif watch.asked_at is None:
            watch.asked_at = now
        return watch

    def _grace_s(self, lease: Lease) -> float:
        cancelled = lease.desired is DesiredState.CANCELLED
        return self._times.cancel_grace_s if cancelled else self._times.pause_grace_s


def _age_s(lease: Lease) -> float:
    """How old an adopted attempt is; only its run-time limit depends on it, never its lease."""
    if lease.attempt_started_at is None:
        return 0.0
    return max(0.0, (datetime.now(UTC) - lease.attempt_started_at).total_seconds())
