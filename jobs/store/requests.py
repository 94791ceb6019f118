"""What users ask of a job: cancel, pause, resume. They write a wish; only a job at rest moves."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, select, update

from jobs.errors import StateConflictError
from jobs.failpoints import fp
from jobs.records import JobRecord
from jobs.states import DesiredState, JobState, Reason
from jobs.store.moves import any_of, append, move, now, read_job, status_event
from jobs.store.rows import JOB_COLUMNS, job_record
from jobs.tables import jobs
from jobs.writer import Transaction

_S, _D = JobState, DesiredState
_STOPPABLE = frozenset({_S.LEASED, _S.RUNNING})  # FINALIZING is too late
_REST: dict[DesiredState, JobState] = {
    _D.CANCELLED: _S.CANCELLED,
    _D.PAUSED: _S.PAUSED,
    _D.RUNNING: _S.QUEUED,
}


def request(
    tx: Transaction, job_id: str, desired: DesiredState, *, project: str, actor: str
) -> JobRecord:
    """Write what the user wants; a queued or paused job follows at once. Idempotent.

    Raises:
        NotFoundError: no such job in this project.
        StateConflictError: it has finished, is being published, or a cancel was accepted before.
    """
    before = read_job(tx, job_id, project=project)
    if not _is_so(before.state, before.desired_state, desired):
        if not (_wish(tx, job_id, desired) or _follow(tx, job_id, desired)):
            raise _conflict(job_id, JobState(before.state), DesiredState(before.desired_state))
        after = read_job(tx, job_id)
        append(tx, job_id, [status_event(before, after, actor=actor)], queue=True)
        if desired is _D.CANCELLED:
            fp("cancel.before_commit")
    return job_record(tx.connection.execute(select(*JOB_COLUMNS).where(jobs.c.id == job_id)).one())


def _is_so(state: str, wanted: str, desired: DesiredState) -> bool:
    """Whether nothing needs to change. A succeeded job is never what a cancel asked for."""
    if JobState(state).is_terminal:
        return state == _S.CANCELLED and desired is _D.CANCELLED
    return wanted == desired


def _wish(tx: Transaction, job_id: str, desired: DesiredState) -> bool:
    """Tell an active attempt. A cancel is final, so only a running or pausing job can be told."""
    open_wishes = {_D.RUNNING, _D.PAUSED} - {desired}
    guard: ColumnElement[bool] = and_(any_of(_STOPPABLE), jobs.c.desired_state.in_(open_wishes))
    result = tx.connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, guard)
        .values(desired_state=desired.value, updated_at=now(), version=jobs.c.version + 1)
    )
    return result.rowcount == 1


def _follow(tx: Transaction, job_id: str, desired: DesiredState) -> bool:
    """Move a job that no attempt holds."""
    reasons = {_D.CANCELLED: Reason.USER_CANCELLED, _D.PAUSED: Reason.USER_PAUSED}
    words = {_D.CANCELLED: "Cancelled on request.", _D.PAUSED: "Paused on request."}
    reason = reasons.get(desired)
    return move(
        tx,
        job_id,
        _REST[desired],
        where=any_of({_S.QUEUED, _S.PAUSED}),
        values={
            "desired_state": desired.value,
            "reason": None if reason is None else reason.value,
            "message": words.get(desired),
            "remedy": None,
            "not_before": None,
        },
    )


def _conflict(job_id: str, state: JobState, wanted: DesiredState) -> StateConflictError:
    if state is _S.FINALIZING:
        detail = "it is being published; this comes too late."
    elif wanted is _D.CANCELLED:
        detail = "a cancel was accepted and cannot be taken back."
    else:
        detail = "a finished job does not change."
    return StateConflictError(job_id, state.value, detail)
