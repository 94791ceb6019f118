"""From a spec in a request to a job in the store: checks first, one transaction last."""

from __future__ import annotations

import hashlib
import json

from starlette.responses import Response

from jobs.data_sources import DataDescription, describe
from jobs.feasibility import check_feasible
from jobs.records import ApiKeyRecord, JobRecord
from jobs.spec import JobSpec
from services.context import ServiceContext
from services.responses import job_response, model_response
from services.schemas.jobs import DataView, PlanView


def plan_job(context: ServiceContext, spec: JobSpec) -> Response:
    """Say what a submission would run, and store nothing.

    Raises:
        SpecInvalidError: it cannot run.
    """
    data = check_spec(context, spec)
    return model_response(PlanView(spec=spec.resolved(), data=DataView.of(data)))


def submit_job(
    context: ServiceContext, key: ApiKeyRecord, spec: JobSpec, idempotency_key: str | None
) -> Response:
    """Store a job that can run.

    Raises:
        SpecInvalidError: it cannot run; nothing is stored.
        IdempotencyConflictError: the key was used with another body.
        QuotaExceededError: too much is queued.
    """
    fingerprint = fingerprint_of(spec)
    if idempotency_key is not None:
        # Before the checks: what was accepted stays accepted, though its data or the room be gone.
        earlier = context.store.submitted(
            project=key.project, idempotency_key=idempotency_key, fingerprint=fingerprint
        )
        if earlier is not None:
            return _accepted(earlier, replayed=True)
    check_spec(context, spec)
    submission = context.store.submit(
        spec,
        project=key.project,
        actor=key.id,
        idempotency_key=idempotency_key,
        fingerprint=fingerprint,
    )
    return _accepted(submission.job, replayed=submission.replayed)


def _accepted(job: JobRecord, *, replayed: bool) -> Response:
    headers = {"Idempotency-Replayed": "true"} if replayed else {}
    return job_response(job, status=202, headers=headers)


def check_spec(context: ServiceContext, spec: JobSpec) -> DataDescription:
    """Describe the data of a spec and refuse what cannot run on it.

    Raises:
        SpecInvalidError: names the field, what is wrong and the remedy.
    """
    data = describe(spec.data, context.settings.data_root)
    check_feasible(spec.resolved(), data)
    return data


def fingerprint_of(spec: JobSpec) -> str:
    """What makes two requests the same: the fields that were sent, in any order."""
    sent = spec.model_dump(mode="json", exclude_unset=True)
    text = json.dumps(sent, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
