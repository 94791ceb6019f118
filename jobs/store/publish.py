"""The transaction that makes an encoder exist: the job succeeds in the same commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, and_, exists, insert, select

from jobs.errors import StaleFenceError, StateConflictError
from jobs.ids import new_id
from jobs.records import EncoderRecord
from jobs.states import ExitCode, JobState, Reason
from jobs.store.leases import close_attempt
from jobs.store.moves import NewEvent, append, holds, move, now, read_job, status_event
from jobs.store.rows import ENCODER_COLUMNS, encoder_record
from jobs.tables import encoder_files, encoders, jobs
from jobs.wire import Exit, Manifest
from jobs.writer import Transaction


def published(connection: Connection, job_id: str, fence: int) -> EncoderRecord | None:
    """The encoder that this attempt published before, if it did."""
    row = connection.execute(
        select(*ENCODER_COLUMNS).where(encoders.c.job_id == job_id, encoders.c.fence == fence)
    ).one_or_none()
    return None if row is None else encoder_record(row)


def check_may_publish(connection: Connection, job_id: str, fence: int) -> None:
    """Refuse early, before any file is read; the transaction checks again.

    Raises:
        StaleFenceError: it is not the active attempt.
        StateConflictError: it did not ask to finalise.
    """
    state = connection.execute(select(jobs.c.state).where(holds(job_id, fence))).scalar()
    if state is None:
        raise StaleFenceError(job_id, fence)
    if state != JobState.FINALIZING:
        raise StateConflictError(job_id, state, "finalise before you publish.")


def publish(
    tx: Transaction, job_id: str, fence: int, manifest: Manifest, evaluation: Mapping[str, Any]
) -> EncoderRecord:
    """Store the encoder and end the job. The linearisation point of a success.

    Raises:
        StaleFenceError: it is not the active attempt, or it did not finalise.
    """
    before = read_job(tx, job_id)
    encoder_id = new_id("enc")
    values = {"encoder_id": encoder_id, "reason": Reason.COMPLETED.value, "message": None}
    if not move(tx, job_id, JobState.SUCCEEDED, where=holds(job_id, fence), values=values):
        raise StaleFenceError(job_id, fence)
    _insert(tx, encoder_id, before, fence, manifest, evaluation)
    done = Exit(exit_code=ExitCode.OK, reason=Reason.COMPLETED, message="Published.")
    close_attempt(tx, job_id, fence, done)
    after = read_job(tx, job_id)
    extra = {"encoder_id": encoder_id}
    status = status_event(before, after, actor="attempt", extra=extra)
    append(
        tx,
        job_id,
        [NewEvent(kind="encoder.published", fence=fence, data=extra), status],
        queue=True,
    )
    return encoder_record(
        tx.connection.execute(select(*ENCODER_COLUMNS).where(encoders.c.id == encoder_id)).one()
    )


def is_referenced(connection: Connection, sha256: str) -> bool:
    """Whether a published encoder has a file with this content."""
    query = select(exists().where(encoder_files.c.sha256 == sha256))
    return bool(connection.execute(query).scalar())


def is_finalizing(connection: Connection) -> bool:
    """Whether some attempt may be putting objects that no encoder refers to yet."""
    query = select(exists().where(and_(jobs.c.owner.is_not(None), jobs.c.state == "finalizing")))
    return bool(connection.execute(query).scalar())


def _insert(
    tx: Transaction,
    encoder_id: str,
    job: Row[Any],
    fence: int,
    manifest: Manifest,
    evaluation: Mapping[str, Any],
) -> None:
    tx.connection.execute(
        insert(encoders).values(
            id=encoder_id,
            job_id=job.id,
            project=job.project,
            name=job.name,
            fence=fence,
            manifest=manifest.model_dump(mode="json"),
            evaluation=dict(evaluation),
            created_at=now(),
        )
    )
    tx.connection.execute(
        insert(encoder_files),
        [
            {
                "encoder_id": encoder_id,
                "path": file.path,
                "sha256": file.sha256,
                "size_bytes": file.size_bytes,
            }
            for file in manifest.files
        ],
    )
