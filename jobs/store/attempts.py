"""What a running attempt tells: heartbeats, reports, and that it is about to publish.

Each write is a compare-and-set on (job, fence, active): an attempt that was replaced is told so and
changes nothing.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from sqlalchemy import Row, update

from jobs.errors import StaleFenceError, StateConflictError
from jobs.failpoints import fp
from jobs.serialization import finite
from jobs.states import DesiredState, JobState, Phase
from jobs.store.leases import report_lines
from jobs.store.moves import NewEvent, append, holds, move, now, read_job, status_event
from jobs.tables import attempts, jobs
from jobs.wire import Command, Report, ReportBatch
from jobs.writer import Transaction

_COMMANDS: dict[DesiredState, Literal["continue", "cancel", "pause"]] = {
    DesiredState.RUNNING: "continue",
    DesiredState.CANCELLED: "cancel",
    DesiredState.PAUSED: "pause",
}
_TRAINS: Final = frozenset(
    {Phase.TRAINING, Phase.EVALUATING, Phase.EXPORTING, Phase.PUBLISHING}
)  # a short job may be past training when it is first heard of


def heartbeat(tx: Transaction, job_id: str, fence: int, phase: Phase) -> Command:
    """Note that the attempt lives; what it should do.

    Raises:
        StaleFenceError: it is not the active attempt.
    """
    row = _beat(tx, job_id, fence)
    _enter(tx, row, phase)
    fp("heartbeat.before_commit")
    return Command(command=_COMMANDS[DesiredState(row.desired_state)])


def ingest(tx: Transaction, job_id: str, fence: int, batch: ReportBatch) -> int:
    """Store reports that are new; counts as a heartbeat.

    Returns:
        How many lines of the attempt are stored now. Lines after a gap are not stored: the sender
        starts again from this number.

    Raises:
        StaleFenceError: it is not the active attempt.
    """
    row = _beat(tx, job_id, fence)
    stored = report_lines(tx.connection, job_id, fence)
    fresh = batch.reports[stored - batch.first :] if batch.first <= stored else ()
    if not fresh:
        return stored
    append(tx, job_id, [_event(report, fence) for report in fresh])
    _note_attempt(tx, job_id, fence, fresh, stored + len(fresh))
    _note_progress(tx, row, fresh)
    fp("ingest.before_commit")
    return stored + len(fresh)


def begin_finalize(tx: Transaction, job_id: str, fence: int) -> None:
    """From here on the job succeeds or is tried again; a cancel comes too late. Idempotent.

    Raises:
        StaleFenceError: it is not the active attempt.
        StateConflictError: a cancel or a pause came first.
    """
    before = _enter(tx, _beat(tx, job_id, fence), Phase.PUBLISHING)
    if before.state == JobState.FINALIZING:
        return
    wanted = jobs.c.desired_state == DesiredState.RUNNING
    if not move(tx, job_id, JobState.FINALIZING, where=holds(job_id, fence) & wanted, values={}):
        raise StateConflictError(
            job_id, before.state, f"{before.desired_state} was asked for; publish nothing."
        )
    after = read_job(tx, job_id)
    append(tx, job_id, [status_event(before, after, actor="attempt")], queue=True)
    fp("finalize.before_commit")


def _beat(tx: Transaction, job_id: str, fence: int) -> Row[Any]:
    """Move the heartbeat counter; the job's row."""
    row = tx.connection.execute(
        update(jobs).where(holds(job_id, fence)).values(hb_seq=jobs.c.hb_seq + 1).returning(*jobs.c)
    ).one_or_none()
    if row is None:
        raise StaleFenceError(job_id, fence)
    return row


def _enter(tx: Transaction, row: Row[Any], phase: Phase) -> Row[Any]:
    """Write the phase if it is a new one; the first that trains makes the job RUNNING."""
    starts = row.state == JobState.LEASED and phase in _TRAINS
    if row.phase == phase and not starts:
        return row
    guard = holds(row.id, row.fence)
    values = {"phase": phase.value}
    if starts:
        move(tx, row.id, JobState.RUNNING, where=guard, values=values)
        fp("running.before_commit")
    else:
        changes = {**values, "updated_at": now(), "version": jobs.c.version + 1}
        tx.connection.execute(update(jobs).where(guard).values(changes))
    after = read_job(tx, row.id)
    append(tx, row.id, [status_event(row, after, actor="attempt")], queue=starts)
    return after


def _event(report: Report, fence: int) -> NewEvent:
    data = {str(k): finite(v) for k, v in report.data.items()}
    return NewEvent(kind=report.kind, data=data, at=report.at, fence=fence)


def _note_attempt(
    tx: Transaction, job_id: str, fence: int, fresh: tuple[Report, ...], lines: int
) -> None:
    values: dict[str, int] = {"report_lines": lines}
    for report in fresh:
        step = report.data.get("step")
        if report.kind == "attempt.resumed" and isinstance(step, int):
            values["resumed_step"] = step
    tx.connection.execute(
        update(attempts)
        .where(attempts.c.job_id == job_id, attempts.c.fence == fence)
        .values(values)
    )


def _note_progress(tx: Transaction, row: Row[Any], fresh: tuple[Report, ...]) -> None:
    progress = next((r.progress for r in reversed(fresh) if r.progress is not None), None)
    if progress is None:
        return
    tx.connection.execute(
        update(jobs)
        .where(holds(row.id, row.fence))
        .values(
            progress=finite(progress.model_dump()),
            updated_at=now(),
            version=jobs.c.version + 1,
        )
    )
    if row.state == JobState.LEASED and progress.step > 0:
        _enter(tx, row, Phase.TRAINING)
