"""What runners say and ask: bound to one attempt by its token, hidden from the OpenAPI document."""

from __future__ import annotations

from fastapi import APIRouter

from jobs.wire import (
    Acknowledged,
    Command,
    Exit,
    Heartbeat,
    Manifest,
    Published,
    ReportBatch,
)
from services.auth import AttemptDep
from services.body_guard import GuardedRoute
from services.dependencies import StoreDep

router = APIRouter(
    prefix="/v1/attempts/{job_id}/{fence}", route_class=GuardedRoute, include_in_schema=False
)


@router.post("/heartbeat")
def heartbeat(body: Heartbeat, attempt: AttemptDep, store: StoreDep) -> Command:
    """The runner lives; answer what is wanted of it."""
    return store.heartbeat(attempt.job_id, attempt.fence, body.phase)


@router.post("/reports")
def ingest(body: ReportBatch, attempt: AttemptDep, store: StoreDep) -> Acknowledged:
    """Store reports; lines that were stored before are skipped."""
    return Acknowledged(lines=store.ingest(attempt.job_id, attempt.fence, body))


@router.post("/finalize")
def finalize(attempt: AttemptDep, store: StoreDep) -> dict[str, str]:
    """Everything is staged: from here on a cancel comes too late."""
    store.begin_finalize(attempt.job_id, attempt.fence)
    return {}


@router.post("/publish")
def publish(body: Manifest, attempt: AttemptDep, store: StoreDep) -> Published:
    """Verify and publish the staged encoder."""
    return Published(encoder_id=store.publish(attempt.job_id, attempt.fence, body).id)


@router.post("/end")
def end(body: Exit, attempt: AttemptDep, store: StoreDep) -> dict[str, str]:
    """The attempt is over."""
    store.end(attempt.job_id, attempt.fence, body)
    return {}
