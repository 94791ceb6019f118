"""What a job produces while it runs: events, training curve, log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response, StreamingResponse

from services.auth import JobsReader
from services.body_guard import GuardedRoute
from services.dependencies import ContextDep, StoreDep
from services.event_stream import stream_events
from services.job_output import curve_response, events_response, log_response
from services.negotiation import preferred_type
from services.openapi import problem_responses
from services.query import known_query
from services.routes.jobs import JobDep
from services.schemas.base import ListView
from services.schemas.events import EventView, MetricView

router = APIRouter(
    prefix="/v1/jobs/{job_id}",
    tags=["jobs"],
    route_class=GuardedRoute,
    dependencies=[Depends(known_query)],
    responses=problem_responses(401, 403, 404),
)

Sequence = Annotated[int, Query(ge=0, le=2**62)]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", pattern=r"^\d{1,18}$")]
_EVENT_TYPES = ("application/json", "text/event-stream")
_CURVE_TYPES = ("application/json", "text/csv")
_STREAM_HEADERS = {"X-Accel-Buffering": "no", "Cache-Control": "no-cache"}


@router.get(
    "/events",
    response_model=ListView[EventView],
    responses={200: {"content": {"text/event-stream": {}}}, **problem_responses(406, 422)},
)
def read_events(
    job: JobDep,
    context: ContextDep,
    request: Request,
    *,
    after: Sequence = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 500,
    last_event_id: LastEventId = None,
) -> Response:
    """Read events as a page, or follow them as a stream (`Accept: text/event-stream`)."""
    if preferred_type(request, _EVENT_TYPES) == "application/json":
        return events_response(context.store, job, after, limit)
    stream = stream_events(context, job.id, int(last_event_id or after))
    return StreamingResponse(stream, media_type="text/event-stream", headers=_STREAM_HEADERS)


@router.get(
    "/metrics",
    response_model=ListView[MetricView],
    responses={200: {"content": {"text/csv": {}}}, **problem_responses(406, 422)},
)
def read_metrics(
    job: JobDep,
    store: StoreDep,
    request: Request,
    *,
    keys: Annotated[str | None, Query(max_length=1000)] = None,
    max_points: Annotated[int, Query(ge=2, le=10_000)] = 1000,
) -> Response:
    """Read the training curve, thinned out to `max_points`, as JSON or CSV."""
    media_type = preferred_type(request, _CURVE_TYPES)
    return curve_response(store, job, keys, max_points, media_type)


@router.get(
    "/logs",
    responses={200: {"content": {"text/plain": {}}}, 206: {}, **problem_responses(416, 422)},
)
def read_logs(
    job: JobDep,
    _key: JobsReader,
    context: ContextDep,
    request: Request,
    *,
    attempt: Annotated[int | None, Query(ge=1, le=2**31)] = None,
    tail: Annotated[int, Query(ge=0, le=10_000)] = 1000,
) -> Response:
    """Read the last lines of an attempt's log, or with a Range header any part of it."""
    return log_response(context, job, attempt, tail, request.headers)
