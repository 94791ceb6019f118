"""From a spec in a request to a job in the store: checks first, one transaction last."""

from __future__ import annotations

import hashlib
import json

from starlette.responses import Response

from jobs.data_sources import DataDescription, describe
from jobs.feasibility import check_feasible
from jobs.records import ApiKeyRecord
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
    check_spec(context, spec)
    submission = context.store.submit(
        spec,
        project=key.project,
        actor=key.id,
        idempotency_key=idempotency_key,
        fingerprint=fingerprint_of(spec) if idempotency_key else None,
    )
    headers = {"Idempotency-Replayed": "true"} if submission.replayed else {}
    return job_response(submission.job, status=202, headers=headers)


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
