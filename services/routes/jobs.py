"""Jobs: submit, read, cancel, pause, resume."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from jobs.records import JobRecord
from jobs.spec import JobSpec, Name
from jobs.spec_base import Spec
from jobs.states import DesiredState
from services.auth import JobsReader, JobsWriter
from services.body_guard import GuardedRoute
from services.dependencies import ContextDep, StoreDep
from services.event_stream import wait_for_job
from services.openapi import problem_responses
from services.query import known_query
from services.responses import conditional_job_response, job_response, page_response
from services.schemas.base import ListView
from services.schemas.jobs import AttemptView, JobStatus, JobView, PlanView
from services.submission import plan_job, submit_job

router = APIRouter(
    prefix="/v1/jobs",
    tags=["jobs"],
    route_class=GuardedRoute,
    dependencies=[Depends(known_query)],
    responses=problem_responses(401, 403),
)

IdempotencyKey = Annotated[
    str | None, Header(alias="Idempotency-Key", pattern=r"^[\x21-\x7e]{1,255}$")
]
IfNoneMatch = Annotated[str | None, Header(alias="If-None-Match", max_length=4096)]


class JobQuery(BaseModel):
    """What a list of jobs can be narrowed down by."""

    model_config = ConfigDict(extra="forbid")

    status: JobStatus | None = None
    objective: Name | Literal["mige_infomax"] | None = None
    name: Name | None = None
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=512)


class WaitQuery(BaseModel):
    """How long an answer may wait, and for what."""

    model_config = ConfigDict(extra="forbid")

    wait: str = Field(default="0s", pattern=r"^([0-9]|[1-5][0-9]|60)s$", examples=["30s"])
    until: Literal["terminal", "change"] = "terminal"

    @property
    def seconds(self) -> float:
        """The longest wait."""
        return float(self.wait[:-1])


class EmptyBody(Spec):
    """Nothing: the verb says it all."""


def own_job(job_id: str, key: JobsReader, store: StoreDep) -> JobRecord:
    """The job in the path; another project's job is as unknown as one that never was."""
    return store.job(job_id, project=key.project)


JobDep = Annotated[JobRecord, Depends(own_job)]


@router.post(
    "",
    status_code=202,
    response_model=JobView,
    responses={
        200: {"model": PlanView, "description": "With dry_run: what would run; nothing is stored."},
        **problem_responses(400, 413, 415, 422, 429, 503, 507),
    },
)
def submit(
    spec: JobSpec,
    key: JobsWriter,
    context: ContextDep,
    *,
    dry_run: Annotated[bool, Query()] = False,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Submit a job. It is stored when the answer arrives; training starts by itself."""
    if dry_run:
        return plan_job(context, spec)
    return submit_job(context, key, spec, idempotency_key)


@router.get("", response_model=ListView[JobView], responses=problem_responses(422))
def list_jobs(
    query: Annotated[JobQuery, Query()], key: JobsReader, store: StoreDep, request: Request
) -> Response:
    """List jobs, newest first."""
    page = store.jobs(project=key.project, **query.model_dump())
    return page_response(page, JobView.of, request)


@router.get("/{job_id}", response_model=JobView, responses=problem_responses(404))
async def read_job(
    job: JobDep,
    query: Annotated[WaitQuery, Query()],
    context: ContextDep,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Read one job; `wait` answers when it has ended (or changed), or when the time is over."""
    job = await wait_for_job(context, job, query.until, query.seconds)
    return conditional_job_response(job, if_none_match)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    response_model=JobView,
    responses=problem_responses(404, 409),
)
def cancel(
    job_id: str, key: JobsWriter, store: StoreDep, _body: EmptyBody | None = None
) -> Response:
    """Ask for the end of a job. An accepted cancel always wins; asking twice is the same."""
    return _request(store, job_id, DesiredState.CANCELLED, key)


@router.post(
    "/{job_id}/pause",
    status_code=202,
    response_model=JobView,
    responses=problem_responses(404, 409),
)
def pause(
    job_id: str, key: JobsWriter, store: StoreDep, _body: EmptyBody | None = None
) -> Response:
    """Ask a job to save a checkpoint and give its resources back."""
    return _request(store, job_id, DesiredState.PAUSED, key)


@router.post(
    "/{job_id}/resume",
    status_code=202,
    response_model=JobView,
    responses=problem_responses(404, 409),
)
def resume(
    job_id: str, key: JobsWriter, store: StoreDep, _body: EmptyBody | None = None
) -> Response:
    """Queue a paused job again: it goes on from its last checkpoint."""
    return _request(store, job_id, DesiredState.RUNNING, key)


@router.get(
    "/{job_id}/attempts", response_model=ListView[AttemptView], responses=problem_responses(404)
)
def list_attempts(job: JobDep, store: StoreDep) -> ListView[AttemptView]:
    """List the attempts of a job: why each ended, and where it went on from."""
    views = [AttemptView.of(attempt) for attempt in store.attempts(job.id)]
    return ListView(data=views, has_more=False, next_cursor=None)


def _request(store: StoreDep, job_id: str, desired: DesiredState, key: JobsWriter) -> Response:
    job = store.request(job_id, desired, project=key.project, actor=key.id)
    return job_response(job, status=202)
