"""Rows of the database as records."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Row

from jobs.records import (
    ApiKeyRecord,
    AttemptRecord,
    EncoderRecord,
    EventRecord,
    JobRecord,
    Progress,
)
from jobs.states import DesiredState, JobState, Phase, Reason
from jobs.tables import attempts, encoders, events, jobs

JOB_COLUMNS: Final = tuple(
    jobs.c[name]
    for name in (
        *("id", "project", "name", "spec", "state", "desired_state", "phase", "fence", "attempts"),
        *("reason", "message", "remedy", "progress", "encoder_id", "created_at", "updated_at"),
        *("started_at", "finished_at", "version"),
    )
)
ATTEMPT_COLUMNS: Final = tuple(
    attempts.c[name]
    for name in (
        *("job_id", "fence", "owner", "hb_seq", "reason", "message", "exit_code", "resumed_step"),
        *("started_at", "ended_at", "state"),
    )
)
EVENT_COLUMNS: Final = tuple(events.c)
ENCODER_COLUMNS: Final = tuple(encoders.c)


def job_record(row: Row[Any]) -> JobRecord:
    """A row of `JOB_COLUMNS`."""
    return _job_record(row._asdict())


def whole_job_record(row: Row[Any]) -> JobRecord:
    """A row of all columns of `jobs`."""
    return _job_record({column.name: row._mapping[column] for column in JOB_COLUMNS})


def _job_record(values: dict[str, Any]) -> JobRecord:
    progress = values.pop("progress")
    return JobRecord(
        **values
        | {
            "state": JobState(values["state"]),
            "desired_state": DesiredState(values["desired_state"]),
            "phase": None if values["phase"] is None else Phase(values["phase"]),
            "reason": None if values["reason"] is None else Reason(values["reason"]),
            "progress": None if progress is None else Progress(**progress),
        }
    )


def attempt_record(row: Row[Any]) -> AttemptRecord:
    """A row of `ATTEMPT_COLUMNS`."""
    values = row._asdict()
    state = values.pop("state")
    reason = values["reason"]
    return AttemptRecord(
        **values
        | {"active": state == "active", "reason": None if reason is None else Reason(reason)}
    )


def event_record(row: Row[Any]) -> EventRecord:
    """A row of `EVENT_COLUMNS`."""
    return EventRecord(**row._asdict())


def encoder_record(row: Row[Any]) -> EncoderRecord:
    """A row of `ENCODER_COLUMNS`."""
    return EncoderRecord(**row._asdict())


def key_record(row: Row[Any]) -> ApiKeyRecord:
    """A row of the API keys, without the hash of its secret."""
    return ApiKeyRecord(
        id=row.id,
        name=row.name,
        project=row.project,
        scopes=frozenset(row.scopes),
        expires_at=row.expires_at,
    )
