"""Answers that carry more than a body: locations, entity tags, links to the next page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlencode

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from jobs.records import JobRecord, Page
from services.downloads import etag_matches
from services.schemas.base import ListView
from services.schemas.jobs import JobView

R = TypeVar("R")


def model_response(
    view: BaseModel, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A view as JSON."""
    return Response(
        view.model_dump_json(),
        status_code=status,
        headers=headers and dict(headers),
        media_type="application/json",
    )


def job_etag(job: JobRecord) -> str:
    """The entity tag of a job: its version."""
    return f'"{job.version}"'


def job_response(
    job: JobRecord, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A job with its entity tag; anything but a 200 also says where the job is."""
    own = {"ETag": job_etag(job), "Cache-Control": "private, no-cache"}
    if status != 200:
        own["Location"] = f"/v1/jobs/{job.id}"
    return model_response(JobView.of(job), status=status, headers={**own, **(headers or {})})


def conditional_job_response(job: JobRecord, if_none_match: str | None) -> Response:
    """A job, or "304 Not Modified" for a client that has this version."""
    if etag_matches(if_none_match, job_etag(job), weak=True):
        return Response(status_code=304, headers={"ETag": job_etag(job)})
    return job_response(job)


def page_response(page: Page[R], view: Callable[[R], BaseModel], request: Request) -> Response:
    """One page of a list, with a Link header to the next one."""
    body = ListView[BaseModel](
        data=[view(item) for item in page.items],
        has_more=page.next_cursor is not None,
        next_cursor=page.next_cursor,
    )
    headers = {}
    if page.next_cursor is not None:
        query = urlencode({**request.query_params, "cursor": page.next_cursor})
        headers["Link"] = f'<{request.scope["path"]}?{query}>; rel="next"'
    return Response(
        body.model_dump_json(serialize_as_any=True),
        headers=headers,
        media_type="application/json",
    )
