"""Accepting a job: job row, first event and idempotency row in one transaction."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select

from jobs.errors import IdempotencyConflictError, QuotaExceededError
from jobs.failpoints import fp
from jobs.ids import new_id
from jobs.records import JobRecord
from jobs.serialization import canonical
from jobs.spec import JobSpec
from jobs.states import DesiredState, JobState
from jobs.store.moves import NewEvent, insert_events, now, status_event
from jobs.store.rows import JOB_COLUMNS, job_record, whole_job_record
from jobs.tables import idempotency_keys, jobs
from jobs.writer import Transaction

KEEP_KEYS: Final = timedelta(days=7)
# Built once: putting statements together costs more than running them.
_INSERT_JOB: Final = insert(jobs).returning(*jobs.c)
_INSERT_KEY: Final = insert(idempotency_keys)
_FIND_KEY: Final = select(idempotency_keys.c.job_id, idempotency_keys.c.fingerprint).where(
    idempotency_keys.c.project == bindparam("project"), idempotency_keys.c.key == bindparam("key")
)
_COUNT_QUEUED: Final = (
    select(func.count())
    .select_from(jobs)
    .where(jobs.c.project == bindparam("project"), jobs.c.state == JobState.QUEUED)
)


@dataclass(frozen=True, slots=True)
class Submission:
    """The job, and whether it was there already under the same idempotency key."""

    job: JobRecord
    replayed: bool


def submit(
    tx: Transaction,
    spec: JobSpec,
    *,
    project: str,
    actor: str,
    idempotency_key: str | None,
    fingerprint: str | None,
    max_queued: int,
) -> Submission:
    """Store a job, or find the one that this key stored before.

    On PostgreSQL two first uses of a key at once end in an integrity error for one of them, and
    its retry finds the job of the other; on SQLite there is one writer.

    Raises:
        IdempotencyConflictError: the key came with another body before.
        QuotaExceededError: the project has `max_queued` jobs waiting.
    """
    body = spec.resolved().model_dump(mode="json")
    fingerprint = fingerprint or hashlib.sha256(canonical(body)).hexdigest()
    if idempotency_key is not None:
        found = earlier(tx.connection, project, idempotency_key, fingerprint)
        if found is not None:
            return Submission(found, replayed=True)
    _check_quota(tx, project, max_queued)
    row = _insert_job(tx, project, spec, body)
    if idempotency_key is not None:
        key = {"project": project, "key": idempotency_key, "fingerprint": fingerprint}
        made = {"job_id": row.id, "created_at": row.created_at}
        tx.connection.execute(_INSERT_KEY, key | made)
    created = NewEvent(kind="job.created", data={"actor": actor, "name": spec.name})
    insert_events(tx, row.id, [created, status_event(None, row, actor=actor)], first=1)
    tx.touch(row.id, queue=True)
    fp("submit.before_commit")
    return Submission(whole_job_record(row), replayed=False)


def forget_old_keys(tx: Transaction) -> int:
    """Drop idempotency keys that are older than `KEEP_KEYS`; how many."""
    return tx.connection.execute(
        delete(idempotency_keys).where(idempotency_keys.c.created_at < now() - KEEP_KEYS)
    ).rowcount


def earlier(connection: Connection, project: str, key: str, fingerprint: str) -> JobRecord | None:
    """The job that this key stored before.

    Raises:
        IdempotencyConflictError: the key came with another body then.
    """
    row = connection.execute(_FIND_KEY, {"project": project, "key": key}).one_or_none()
    if row is None:
        return None
    if row.fingerprint != fingerprint:
        raise IdempotencyConflictError(key)
    job = connection.execute(select(*JOB_COLUMNS).where(jobs.c.id == row.job_id)).one()
    return job_record(job)


def _check_quota(tx: Transaction, project: str, max_queued: int) -> None:
    queued = tx.connection.execute(_COUNT_QUEUED, {"project": project}).scalar_one()
    if queued >= max_queued:
        raise QuotaExceededError(
            f"The project has {queued} queued jobs; {max_queued} is the most.",
            "Wait until some have run, or cancel some.",
        )


def _insert_job(tx: Transaction, project: str, spec: JobSpec, body: dict[str, object]) -> Row[Any]:
    at = now()
    values = {
        "id": new_id("job"),
        "project": project,
        "name": spec.name,
        "objective": spec.objective.kind,
        "spec": body,
        "state": JobState.QUEUED,
        "desired_state": DesiredState.RUNNING,
        "fence": 0,
        "hb_seq": 0,
        "attempts": 0,
        "failures": 0,
        "max_attempts": spec.retry.max_attempts,
        "last_event_seq": 2,  # its first two events
        "version": 1,
        "created_at": at,
        "updated_at": at,
    }
    return tx.connection.execute(_INSERT_JOB, values).one()
