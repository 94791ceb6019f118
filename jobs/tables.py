"""The tables, with every rule that the database itself can keep.

They hold what must be true whatever the code does: one active attempt per job, one encoder per job,
a succeeded job has an encoder, an active job has an owner, a finished job never changes its state.
Written for SQLite and PostgreSQL; only the trigger differs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeDecorator

from jobs.states import ACTIVE_STATES, NEXT_STATES, DesiredState, JobState


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC timestamp. SQLite drops the zone, so it is taken off and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database: UTC, without a zone where the database keeps none."""
        if value is None:
            return None
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database: always aware."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


def _in(column: str, values: frozenset[Any] | tuple[Any, ...]) -> str:
    """`column IN (...)` for constants of this package; no outside string gets here."""
    return f"{column} IN ({', '.join(sorted(repr(str(v)) for v in values))})"


TERMINAL_STATES = frozenset(s for s in NEXT_STATES if s.is_terminal)
_JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_SERIAL = BigInteger().with_variant(Integer(), "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

jobs = Table(
    "jobs",
    metadata,
    Column("seq", _SERIAL, primary_key=True, autoincrement=True),  # the order of the queue
    Column("id", String(64), nullable=False),
    Column("project", String(64), nullable=False),
    Column("name", String(64)),
    Column("objective", String(64), nullable=False),
    Column("spec", _JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("desired_state", String(16), nullable=False),
    Column("phase", String(32)),
    Column("fence", Integer, nullable=False),  # number of the newest attempt
    Column("hb_seq", BigInteger, nullable=False),  # moves with every claim and heartbeat
    Column("owner", String(128)),
    Column("attempts", Integer, nullable=False),  # started so far
    Column("failures", Integer, nullable=False),  # of them, those that used up the budget
    Column("max_attempts", Integer, nullable=False),
    Column("not_before", UtcDateTime),  # back-off; the only wall time that a decision reads
    Column("reason", String(64)),
    Column("message", Text),
    Column("remedy", Text),
    Column("progress", _JSON),
    Column("encoder_id", String(64)),
    Column("last_event_seq", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    UniqueConstraint("id"),
    CheckConstraint(_in("state", tuple(JobState)), name="state_known"),
    CheckConstraint(_in("desired_state", tuple(DesiredState)), name="desired_state_known"),
    CheckConstraint("(state = 'succeeded') = (encoder_id IS NOT NULL)", name="succeeded_encoder"),
    CheckConstraint(f"({_in('state', ACTIVE_STATES)}) = (owner IS NOT NULL)", name="active_owner"),
    CheckConstraint(
        f"({_in('state', TERMINAL_STATES)}) = (finished_at IS NOT NULL)", name="terminal_finished"
    ),
    CheckConstraint(
        "fence >= 0 AND hb_seq >= 0 AND attempts >= 0 AND failures >= 0 AND max_attempts >= 1",
        name="counts_sane",
    ),
    sqlite_autoincrement=True,
)
Index("ix_jobs_project_seq", jobs.c.project, jobs.c.seq)
_QUEUED = text("state = 'queued'")
Index("ix_jobs_queue", jobs.c.seq, sqlite_where=_QUEUED, postgresql_where=_QUEUED)
Index("ix_jobs_queued_project", jobs.c.project, sqlite_where=_QUEUED, postgresql_where=_QUEUED)
_OWNED = text("owner IS NOT NULL")
Index("ix_jobs_owned", jobs.c.owner, sqlite_where=_OWNED, postgresql_where=_OWNED)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", String(64), ForeignKey("jobs.id"), primary_key=True),
    Column("fence", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("hb_seq", BigInteger, nullable=False),  # of the job, when the attempt began or ended
    Column("report_lines", Integer, nullable=False),  # lines of reports.jsonl that are stored
    Column("reason", String(64)),
    Column("message", Text),
    Column("exit_code", Integer),
    Column("resumed_step", BigInteger),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    CheckConstraint("state IN ('active', 'ended')", name="state_known"),
    CheckConstraint("(state = 'ended') = (ended_at IS NOT NULL)", name="ended_at"),
)
_ACTIVE = text("state = 'active'")
Index(
    "one_active",
    attempts.c.job_id,
    unique=True,
    sqlite_where=_ACTIVE,
    postgresql_where=_ACTIVE,
)

events = Table(
    "events",
    metadata,
    Column("job_id", String(64), ForeignKey("jobs.id"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("id", String(64), nullable=False),
    Column("fence", Integer, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("data", _JSON, nullable=False),
)

encoders = Table(
    "encoders",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("job_id", String(64), ForeignKey("jobs.id"), nullable=False),
    Column("project", String(64), nullable=False),
    Column("name", String(64)),
    Column("fence", Integer, nullable=False),
    Column("manifest", _JSON, nullable=False),
    Column("evaluation", _JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("job_id"),
)
Index("ix_encoders_project_id", encoders.c.project, encoders.c.id)

encoder_files = Table(
    "encoder_files",
    metadata,
    Column("encoder_id", String(64), ForeignKey("encoders.id"), primary_key=True),
    Column("path", String(128), primary_key=True),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
)
Index("ix_encoder_files_sha256", encoder_files.c.sha256)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("key", String(256), primary_key=True),
    Column("fingerprint", String(128), nullable=False),
    Column("job_id", String(64), ForeignKey("jobs.id"), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("ix_idempotency_keys_created_at", idempotency_keys.c.created_at)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("scopes", _JSON, nullable=False),
    Column("secret_sha256", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked", Boolean(create_constraint=False), nullable=False),
)

_TERMINAL = _in("OLD.state", TERMINAL_STATES)
CREATE_TRIGGER_SQLITE = (
    "CREATE TRIGGER terminal_state BEFORE UPDATE OF state, encoder_id ON jobs "
    f"WHEN {_TERMINAL} AND (NEW.state <> OLD.state OR NEW.encoder_id IS NOT OLD.encoder_id) "
    "BEGIN SELECT RAISE(ABORT, 'a finished job does not change its state'); END"
)
CREATE_TRIGGER_POSTGRESQL = (
    "CREATE FUNCTION refuse_terminal_change() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'a finished job does not change its state'; END $$; "
    "CREATE TRIGGER terminal_state BEFORE UPDATE OF state, encoder_id ON jobs FOR EACH ROW "
    f"WHEN ({_TERMINAL} AND (NEW.state <> OLD.state "
    "OR NEW.encoder_id IS DISTINCT FROM OLD.encoder_id)) EXECUTE FUNCTION refuse_terminal_change()"
)
_SQLITE = DDL(CREATE_TRIGGER_SQLITE)  # type: ignore[no-untyped-call]
_POSTGRESQL = DDL(CREATE_TRIGGER_POSTGRESQL)  # type: ignore[no-untyped-call]
event.listen(metadata, "after_create", _SQLITE.execute_if(dialect="sqlite"))
event.listen(metadata, "after_create", _POSTGRESQL.execute_if(dialect="postgresql"))
