"""Claiming jobs, ending attempts: what gives a job to an attempt and takes it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, and_, insert, or_, select, update

from jobs.errors import StaleFenceError
from jobs.failpoints import fp
from jobs.retry import BACK_OFF_S, Decision, decide
from jobs.serialization import clean_text
from jobs.states import DesiredState, JobState
from jobs.store.moves import (
    NewEvent,
    append,
    holds,
    move,
    now,
    read_job,
    status_event,
)
from jobs.tables import attempts, jobs
from jobs.wire import Exit
from jobs.writer import Transaction

_LONGEST_BACK_OFF: Final = timedelta(seconds=2 * max(BACK_OFF_S))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A job in the hands of an attempt (or, with the last fence, waiting for the next one)."""

    job_id: str
    project: str
    fence: int
    hb_seq: int
    claim_hb_seq: int  # what `hb_seq` was when the attempt began: equal until its first heartbeat
    state: JobState
    desired: DesiredState
    spec: Mapping[str, Any]
    attempt_started_at: datetime | None


def active(connection: Connection) -> list[Lease]:
    """Every job that an attempt holds, oldest first."""
    query = (
        select(
            jobs,
            attempts.c.started_at.label("attempt_started_at"),
            attempts.c.hb_seq.label("claim_hb_seq"),
        )
        .join(attempts, and_(attempts.c.job_id == jobs.c.id, attempts.c.fence == jobs.c.fence))
        .where(jobs.c.owner.is_not(None))
        .order_by(jobs.c.seq)
    )
    return [
        _lease(row, row.attempt_started_at, row.claim_hb_seq) for row in connection.execute(query)
    ]


def claimable(connection: Connection, limit: int) -> list[Lease]:
    """The head of the queue: jobs that may start now, in the order in which they came."""
    query = select(jobs).where(_claimable(now())).order_by(jobs.c.seq).limit(limit)
    return [_lease(row, None, row.hb_seq) for row in connection.execute(query)]


def claim(tx: Transaction, job_id: str, *, owner: str) -> Lease | None:
    """Give a queued job to a new attempt: the fence grows by one. None if it is not to be had."""
    before = read_job(tx, job_id)
    moved = move(
        tx,
        job_id,
        JobState.LEASED,
        where=_claimable(now()),
        values={
            "fence": jobs.c.fence + 1,
            "hb_seq": jobs.c.hb_seq + 1,
            "attempts": jobs.c.attempts + 1,
            "owner": owner,
            "phase": "provisioning",
            **dict.fromkeys(("reason", "message", "remedy", "not_before", "progress")),
            "started_at": before.started_at or now(),
        },
    )
    if not moved:
        return None
    row = read_job(tx, job_id)
    started = now()
    tx.connection.execute(
        insert(attempts).values(
            job_id=job_id,
            fence=row.fence,
            owner=owner,
            state="active",
            hb_seq=row.hb_seq,
            report_lines=0,
            started_at=started,
        )
    )
    begun = NewEvent(kind="attempt.started", fence=row.fence, data={"owner": owner})
    append(tx, job_id, [begun, status_event(before, row, actor="system")], queue=True)
    fp("claim.before_commit")
    return _lease(row, started, row.hb_seq)


def end(tx: Transaction, job_id: str, fence: int, result: Exit) -> JobState:
    """End the active attempt `fence` and move its job to where `jobs.retry` says.

    Raises:
        StaleFenceError: it is not the active attempt.
    """
    state = _end(tx, job_id, fence, result, where=holds(job_id, fence))
    fp("end.before_commit")
    return state


def expire(tx: Transaction, job_id: str, fence: int, hb_seq: int, result: Exit) -> JobState:
    """End an attempt whose heartbeat counter still is `hb_seq`: one that came first wins.

    Raises:
        StaleFenceError: it is not the active attempt, or it gave a sign of life meanwhile.
    """
    where = and_(holds(job_id, fence), jobs.c.hb_seq == hb_seq)
    state = _end(tx, job_id, fence, result, where=where)
    fp("reap.before_commit")
    return state


def _end(
    tx: Transaction, job_id: str, fence: int, result: Exit, *, where: ColumnElement[bool]
) -> JobState:
    before = read_job(tx, job_id)
    decision = decide(
        result,
        desired=DesiredState(before.desired_state),
        attempts=before.attempts,
        failures=before.failures,
        max_attempts=before.max_attempts,
    )
    if not move(tx, job_id, decision.state, where=where, values=_values(decision)):
        raise StaleFenceError(job_id, fence)
    close_attempt(tx, job_id, fence, result)
    _log_end(tx, job_id, fence, before, result, decision)
    return decision.state


def close_attempt(tx: Transaction, job_id: str, fence: int, result: Exit) -> None:
    """Mark the attempt as ended, in the transaction that moves its job."""
    hb_seq = select(jobs.c.hb_seq).where(jobs.c.id == job_id).scalar_subquery()
    tx.connection.execute(
        update(attempts)
        .where(attempts.c.job_id == job_id, attempts.c.fence == fence, attempts.c.state == "active")
        .values(
            state="ended",
            hb_seq=hb_seq,
            reason=result.reason.value,
            message=clean_text(result.message),
            exit_code=result.exit_code,
            ended_at=now(),
        )
    )


def _values(decision: Decision) -> dict[str, Any]:
    delay = timedelta(seconds=decision.delay_s)
    return {
        "failures": decision.failures,
        "reason": decision.reason.value,
        "message": clean_text(decision.message),
        "remedy": None if decision.remedy is None else clean_text(decision.remedy),
        "not_before": now() + delay if decision.delay_s > 0 else None,
    }


def _log_end(
    tx: Transaction, job_id: str, fence: int, before: Row[Any], result: Exit, decision: Decision
) -> None:
    ended = NewEvent(
        kind="attempt.ended",
        fence=fence,
        data={
            "reason": result.reason.value,
            "message": clean_text(result.message),
            "exit_code": result.exit_code,
            "retry_in_s": decision.delay_s if decision.state is JobState.QUEUED else None,
        },
    )
    after = read_job(tx, job_id)
    append(tx, job_id, [ended, status_event(before, after, actor="system")], queue=True)


def _claimable(at: datetime) -> ColumnElement[bool]:
    """Queued, wanted, and not backing off. A back-off longer than any means a clock that jumped."""
    due = or_(
        jobs.c.not_before.is_(None),
        jobs.c.not_before <= at,
        jobs.c.not_before > at + _LONGEST_BACK_OFF,
    )
    return and_(jobs.c.state == JobState.QUEUED, jobs.c.desired_state == DesiredState.RUNNING, due)


def _lease(row: Row[Any], attempt_started_at: datetime | None, claim_hb_seq: int) -> Lease:
    return Lease(
        job_id=row.id,
        project=row.project,
        fence=row.fence,
        hb_seq=row.hb_seq,
        claim_hb_seq=claim_hb_seq,
        state=JobState(row.state),
        desired=DesiredState(row.desired_state),
        spec=row.spec,
        attempt_started_at=attempt_started_at,
    )


def report_lines(connection: Connection, job_id: str, fence: int) -> int:
    """How many lines of the attempt's reports are stored."""
    lines: Sequence[int] = (
        connection.execute(
            select(attempts.c.report_lines).where(
                attempts.c.job_id == job_id, attempts.c.fence == fence
            )
        )
        .scalars()
        .all()
    )
    return lines[0] if lines else 0
