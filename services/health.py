"""Readiness: the database, the reconciler and the disk, looked at now."""

from __future__ import annotations

from typing import Literal

from jobs.errors import JobError, StorageFullError, StorageUnavailableError
from services.context import ServiceContext
from services.schemas.base import View

MAX_RECONCILER_LAG_S = 15.0


class CheckView(View):
    """One thing that was looked at."""

    ok: bool
    detail: str


class ReadinessView(View):
    """`ready` if every check is ok."""

    status: Literal["ready", "not_ready"]
    checks: dict[str, CheckView]
    queue_oldest_s: float | None


def check_readiness(context: ServiceContext) -> ReadinessView:
    """Look at everything that accepting and running a job needs."""
    database, oldest = _check_database(context)
    checks = {
        "database": database,
        "reconciler": _check_reconciler(context),
        "disk": _check_disk(context),
        "draining": CheckView(
            ok=not context.draining.is_set,
            detail="shutting down" if context.draining.is_set else "no",
        ),
    }
    ready = all(check.ok for check in checks.values())
    return ReadinessView(
        status="ready" if ready else "not_ready", checks=checks, queue_oldest_s=oldest
    )


def _check_database(context: ServiceContext) -> tuple[CheckView, float | None]:
    try:
        context.store.ping()
        oldest = context.store.oldest_queued_age_s()
    except JobError as error:
        return CheckView(ok=False, detail=error.code), None
    return CheckView(ok=True, detail="answers"), oldest


def _check_reconciler(context: ServiceContext) -> CheckView:
    if context.reconciler is None:
        return CheckView(ok=True, detail="not in this process")
    lag = context.reconciler.last_step_age_s
    return CheckView(ok=lag < MAX_RECONCILER_LAG_S, detail=f"last step {lag:.1f} s ago")


def _check_disk(context: ServiceContext) -> CheckView:
    try:
        context.store.check_room()
    except (StorageFullError, StorageUnavailableError) as error:
        return CheckView(ok=False, detail=error.detail)
    return CheckView(ok=True, detail="has room")
