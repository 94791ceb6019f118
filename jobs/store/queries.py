"""Reading jobs, attempts, events and encoders, a page at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select

from jobs.errors import NotFoundError, SpecInvalidError
from jobs.ids import Prefix, is_id
from jobs.records import AttemptRecord, EncoderRecord, EventRecord, JobRecord, Page
from jobs.states import ACTIVE_STATES, STATUSES, DesiredState, JobState, public_status
from jobs.store.rows import (
    ATTEMPT_COLUMNS,
    ENCODER_COLUMNS,
    EVENT_COLUMNS,
    JOB_COLUMNS,
    attempt_record,
    encoder_record,
    event_record,
    job_record,
)
from jobs.tables import attempts, encoders, events, jobs

MOST_ROWS: Final = 1000


def job(connection: Connection, job_id: str, project: str | None) -> JobRecord:
    """One job.

    Raises:
        NotFoundError: no such job in this project.
    """
    query = select(*JOB_COLUMNS).where(jobs.c.id == job_id)
    if project is not None:
        query = query.where(jobs.c.project == project)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError("job", job_id)
    return job_record(row)


def list_jobs(
    connection: Connection,
    *,
    project: str,
    status: str | None,
    objective: str | None,
    name: str | None,
    limit: int,
    cursor: str | None,
) -> Page[JobRecord]:
    """Jobs of a project, newest first."""
    query = select(*JOB_COLUMNS).where(jobs.c.project == project)
    if status is not None:
        query = query.where(_has_status(status))
    if objective is not None:
        query = query.where(jobs.c.objective == objective)
    if name is not None:
        query = query.where(jobs.c.name == name)
    if cursor is not None:
        _check_cursor(cursor, "job")
        last = select(jobs.c.seq).where(jobs.c.id == cursor, jobs.c.project == project)
        query = query.where(jobs.c.seq < last.scalar_subquery())
    rows = connection.execute(query.order_by(jobs.c.seq.desc()).limit(_limit(limit) + 1)).all()
    items = tuple(job_record(row) for row in rows[:limit])
    return Page(items=items, next_cursor=items[-1].id if len(rows) > limit else None)


def list_attempts(connection: Connection, job_id: str) -> list[AttemptRecord]:
    """Every attempt of a job, the first one first.

    Raises:
        NotFoundError: no such job.
    """
    job(connection, job_id, None)
    is_active = attempts.c.state == "active"
    columns = [
        case((is_active, jobs.c.hb_seq), else_=attempts.c.hb_seq).label("hb_seq")
        if column is attempts.c.hb_seq
        else column
        for column in ATTEMPT_COLUMNS
    ]
    query = (
        select(*columns)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.job_id == job_id)
        .order_by(attempts.c.fence)
    )
    return [attempt_record(row) for row in connection.execute(query)]


def list_events(
    connection: Connection,
    job_id: str,
    *,
    after: int,
    limit: int,
    kinds: Collection[str] | None,
) -> list[EventRecord]:
    """Events of a job with a number above `after`, in order.

    Raises:
        NotFoundError: no such job.
    """
    query = select(*EVENT_COLUMNS).where(events.c.job_id == job_id, events.c.seq > after)
    if kinds is not None:
        query = query.where(events.c.kind.in_(kinds))
    rows = connection.execute(query.order_by(events.c.seq).limit(_limit(limit))).all()
    if not rows:
        job(connection, job_id, None)
    return [event_record(row) for row in rows]


def encoder(connection: Connection, encoder_id: str, project: str | None) -> EncoderRecord:
    """One encoder.

    Raises:
        NotFoundError: no such encoder in this project.
    """
    query = select(*ENCODER_COLUMNS).where(encoders.c.id == encoder_id)
    if project is not None:
        query = query.where(encoders.c.project == project)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError("encoder", encoder_id)
    return encoder_record(row)


def list_encoders(
    connection: Connection, *, project: str, limit: int, cursor: str | None, job_id: str | None
) -> Page[EncoderRecord]:
    """Encoders of a project, newest first."""
    query: Select[Any] = select(*ENCODER_COLUMNS).where(encoders.c.project == project)
    if job_id is not None:
        query = query.where(encoders.c.job_id == job_id)
    if cursor is not None:
        _check_cursor(cursor, "enc")
        query = query.where(encoders.c.id < cursor)
    rows = connection.execute(query.order_by(encoders.c.id.desc()).limit(_limit(limit) + 1)).all()
    items = tuple(encoder_record(row) for row in rows[:limit])
    return Page(items=items, next_cursor=items[-1].id if len(rows) > limit else None)


def counts(connection: Connection) -> Mapping[str, int]:
    """How many jobs there are of each public status."""
    totals = dict.fromkeys(STATUSES, 0)
    query = select(jobs.c.state, jobs.c.desired_state, func.count()).group_by(
        jobs.c.state, jobs.c.desired_state
    )
    for state, desired, number in connection.execute(query):
        totals[public_status(JobState(state), DesiredState(desired))] += number
    return totals


def _has_status(status: str) -> ColumnElement[bool]:
    """The states and wishes for which `public_status` says `status`."""
    if status not in STATUSES:
        raise SpecInvalidError(
            "/status", "unknown_status", f"{status[:40]!r} is no status.", f"Use {STATUSES}."
        )
    states = [s for s in JobState if s not in ACTIVE_STATES and s == status]
    wishes = [d for d in DesiredState if public_status(JobState.RUNNING, d) == status]
    return or_(
        jobs.c.state.in_(states),
        and_(jobs.c.state.in_(ACTIVE_STATES), jobs.c.desired_state.in_(wishes)),
    )


def _check_cursor(cursor: str, prefix: Prefix) -> None:
    if not is_id(cursor, prefix):
        raise SpecInvalidError(
            "/cursor", "invalid_cursor", "The cursor is not one of ours.", "Use next_cursor as is."
        )


def _limit(limit: int) -> int:
    if not 1 <= limit <= MOST_ROWS:
        raise SpecInvalidError(
            "/limit", "out_of_range", f"{limit} is not in 1..{MOST_ROWS}.", "Ask for fewer."
        )
    return limit
