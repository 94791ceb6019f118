"""The first tables: jobs, attempts, events, encoders, idempotency keys and API keys."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from jobs.failpoints import fp

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)
_JSON = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TERMINAL = "OLD.state IN ('cancelled', 'failed', 'succeeded')"
_MESSAGE = "'a finished job does not change its state'"


def _where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def upgrade() -> None:
    """Create everything."""
    _create_jobs()
    _create_attempts()
    _create_events()
    _create_encoders()
    _create_encoder_files()
    _create_idempotency_keys()
    _create_api_keys()
    _create_trigger()
    fp("migrate.mid")


def downgrade() -> None:
    """Drop everything."""
    for table in ("api_keys", "idempotency_keys", "encoder_files", "encoders"):
        op.drop_table(table)
    for table in ("events", "attempts", "jobs"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_terminal_change()")


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("seq", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64)),
        sa.Column("objective", sa.String(length=64), nullable=False),
        sa.Column("spec", _JSON, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("desired_state", sa.String(length=16), nullable=False),
        sa.Column("phase", sa.String(length=32)),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("hb_seq", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.String(length=128)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", _TIME),
        sa.Column("reason", sa.String(length=64)),
        sa.Column("message", sa.Text()),
        sa.Column("remedy", sa.Text()),
        sa.Column("progress", _JSON),
        sa.Column("encoder_id", sa.String(length=64)),
        sa.Column("last_event_seq", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.Column("started_at", _TIME),
        sa.Column("finished_at", _TIME),
        sa.CheckConstraint(
            "(state = 'succeeded') = (encoder_id IS NOT NULL)",
            name=op.f("ck_jobs_succeeded_encoder"),
        ),
        sa.CheckConstraint(
            "(state IN ('cancelled', 'failed', 'succeeded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_terminal_finished"),
        ),
        sa.CheckConstraint(
            "(state IN ('finalizing', 'leased', 'running')) = (owner IS NOT NULL)",
            name=op.f("ck_jobs_active_owner"),
        ),
        sa.CheckConstraint(
            "desired_state IN ('cancelled', 'paused', 'running')",
            name=op.f("ck_jobs_desired_state_known"),
        ),
        sa.CheckConstraint(
            "state IN ('cancelled', 'failed', 'finalizing', 'leased', 'paused', 'queued', "
            "'running', 'succeeded')",
            name=op.f("ck_jobs_state_known"),
        ),
        sa.CheckConstraint(
            "fence >= 0 AND hb_seq >= 0 AND attempts >= 0 AND failures >= 0 AND max_attempts >= 1",
            name=op.f("ck_jobs_counts_sane"),
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_jobs_owned", "jobs", ["owner"], **_where("owner IS NOT NULL"))
    op.create_index("ix_jobs_project_seq", "jobs", ["project", "seq"])
    op.create_index("ix_jobs_queue", "jobs", ["seq"], **_where("state = 'queued'"))
    op.create_index("ix_jobs_queued_project", "jobs", ["project"], **_where("state = 'queued'"))


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("fence", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("hb_seq", sa.BigInteger(), nullable=False),
        sa.Column("report_lines", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=64)),
        sa.Column("message", sa.Text()),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("resumed_step", sa.BigInteger()),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
        sa.CheckConstraint(
            "(state = 'ended') = (ended_at IS NOT NULL)", name=op.f("ck_attempts_ended_at")
        ),
        sa.CheckConstraint("state IN ('active', 'ended')", name=op.f("ck_attempts_state_known")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id")),
        sa.PrimaryKeyConstraint("job_id", "fence", name=op.f("pk_attempts")),
    )
    op.create_index("one_active", "attempts", ["job_id"], unique=True, **_where("state = 'active'"))


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("data", _JSON, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_job_id")),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_events")),
    )


def _create_encoders() -> None:
    op.create_table(
        "encoders",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64)),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("manifest", _JSON, nullable=False),
        sa.Column("evaluation", _JSON, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_encoders_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_encoders")),
        sa.UniqueConstraint("job_id", name=op.f("uq_encoders_job_id")),
    )
    op.create_index("ix_encoders_project_id", "encoders", ["project", "id"])


def _create_encoder_files() -> None:
    op.create_table(
        "encoder_files",
        sa.Column("encoder_id", sa.String(length=64), nullable=False),
        sa.Column("path", sa.String(length=128), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["encoder_id"], ["encoders.id"], name=op.f("fk_encoder_files_encoder_id")
        ),
        sa.PrimaryKeyConstraint("encoder_id", "path", name=op.f("pk_encoder_files")),
    )
    op.create_index("ix_encoder_files_sha256", "encoder_files", ["sha256"])


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("fingerprint", sa.String(length=128), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_idempotency_keys_job_id")),
        sa.PrimaryKeyConstraint("project", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("project", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("scopes", _JSON, nullable=False),
        sa.Column("secret_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME),
        sa.Column("revoked", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )


def _create_trigger() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER terminal_state BEFORE UPDATE OF state, encoder_id ON jobs "
            f"WHEN {_TERMINAL} "
            "AND (NEW.state <> OLD.state OR NEW.encoder_id IS NOT OLD.encoder_id) "
            f"BEGIN SELECT RAISE(ABORT, {_MESSAGE}); END"
        )
        return
    op.execute(
        "CREATE FUNCTION refuse_terminal_change() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION {_MESSAGE}; END $$"
    )
    op.execute(
        "CREATE TRIGGER terminal_state BEFORE UPDATE OF state, encoder_id ON jobs FOR EACH ROW "
        f"WHEN ({_TERMINAL} AND (NEW.state <> OLD.state "
        "OR NEW.encoder_id IS DISTINCT FROM OLD.encoder_id)) "
        "EXECUTE FUNCTION refuse_terminal_change()"
    )
