"""How a job changes: one guarded update and its events, in the caller's transaction.

Every move of a state goes through `move`. Its guard is part of the UPDATE, so that nothing read
before it is trusted; `jobs.states.NEXT_STATES` says from which states it may start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import JsonValue
from sqlalchemy import ColumnElement, Row, and_, bindparam, insert, select, update

from jobs.errors import NotFoundError
from jobs.ids import new_id
from jobs.states import ACTIVE_STATES, NEXT_STATES, DesiredState, JobState, public_status
from jobs.tables import events, jobs
from jobs.writer import Transaction

_INSERT_EVENTS: Final = insert(events)
_NUMBER_EVENTS: Final = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"))
    .values(last_event_seq=jobs.c.last_event_seq + bindparam("count"))
    .returning(jobs.c.last_event_seq)
)
_READ_JOB: Final = select(jobs).with_for_update()


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event that has no number yet."""

    kind: str
    data: Mapping[str, JsonValue]
    at: datetime | None = None
    fence: int = 0


def now() -> datetime:
    """The time to show to people."""
    return datetime.now(UTC)


def holds(job_id: str, fence: int) -> ColumnElement[bool]:
    """The guard of every write by an attempt: it is still the active one."""
    return and_(jobs.c.id == job_id, jobs.c.fence == fence, jobs.c.state.in_(ACTIVE_STATES))


def states_before(state: JobState) -> frozenset[JobState]:
    """The states from which `state` can be reached in one move."""
    return frozenset(before for before, after in NEXT_STATES.items() if state in after)


def move(
    tx: Transaction,
    job_id: str,
    to: JobState,
    *,
    where: ColumnElement[bool],
    values: Mapping[str, Any],
) -> bool:
    """Set a job's state and `values`, if the guard holds and the state may follow the old one."""
    result = tx.connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, where, jobs.c.state.in_(states_before(to)))
        .values(
            {
                "state": to.value,
                "updated_at": now(),
                "version": jobs.c.version + 1,
                **({"finished_at": now()} if to.is_terminal else {}),
                **({} if to.is_active else {"owner": None, "phase": None}),
                **values,
            }
        )
    )
    return result.rowcount == 1


def append(tx: Transaction, job_id: str, new: Sequence[NewEvent], *, queue: bool = False) -> None:
    """Number and store events. Numbers count from 1 without a gap, because the job row gives them.

    `queue` says that the reconciler should look: a state or a wish changed.
    """
    if not new:
        return
    numbers = {"job": job_id, "count": len(new)}
    last = tx.connection.execute(_NUMBER_EVENTS, numbers).scalar_one()
    insert_events(tx, job_id, new, first=last - len(new) + 1)
    tx.touch(job_id, queue=queue)


def insert_events(tx: Transaction, job_id: str, new: Sequence[NewEvent], *, first: int) -> None:
    """Store events under the numbers from `first` on, which the caller took from the job row."""
    tx.connection.execute(
        _INSERT_EVENTS,
        [
            {
                "job_id": job_id,
                "seq": seq,
                "id": new_id("evt"),
                "fence": event.fence,
                "kind": event.kind,
                "at": event.at or now(),
                "data": dict(event.data),
            }
            for seq, event in enumerate(new, start=first)
        ],
    )


def status_event(
    before: Row[Any] | None, after: Row[Any], *, actor: str, extra: Mapping[str, JsonValue] = {}
) -> NewEvent:
    """`job.status`: from which word to which, why, and who wanted it."""
    state, desired = JobState(after.state), DesiredState(after.desired_state)
    previous = (
        None
        if before is None
        else public_status(JobState(before.state), DesiredState(before.desired_state))
    )
    return NewEvent(
        kind="job.status",
        fence=after.fence,
        data={
            "status": public_status(state, desired),
            "previous_status": previous,
            "state": state.value,
            "phase": after.phase,
            "reason": after.reason,
            "message": after.message,
            "actor": actor,
            **extra,
        },
    )


def read_job(tx: Transaction, job_id: str, *, project: str | None = None) -> Row[Any]:
    """The whole row, locked where the database locks rows.

    Raises:
        NotFoundError: no such job in this project.
    """
    query = _READ_JOB.where(jobs.c.id == job_id)
    if project is not None:
        query = query.where(jobs.c.project == project)
    row = tx.connection.execute(query).one_or_none()
    if row is None:
        raise NotFoundError("job", job_id)
    return row


def any_of(states: Collection[JobState]) -> ColumnElement[bool]:
    """Whether a job's state is one of these."""
    return jobs.c.state.in_(states)
