"""Events, training curve and log of a job as responses."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

from starlette.responses import PlainTextResponse, Response

from jobs.errors import NotFoundError
from jobs.records import JobRecord
from jobs.run_directory import RunDirectory
from jobs.store import Store
from services.context import ServiceContext
from services.downloads import requested_slice
from services.log_files import MAX_BYTES, read_range, read_tail, size_of
from services.responses import model_response
from services.schemas.base import ListView
from services.schemas.events import EventView, MetricView


def events_response(store: Store, job: JobRecord, after: int, limit: int) -> Response:
    """One page of events; `next_cursor` is the `after` of the next one."""
    events = store.events(job.id, after=after, limit=limit + 1)
    has_more, shown = len(events) > limit, events[:limit]
    view = ListView[EventView](
        data=[EventView.of(event) for event in shown],
        has_more=has_more,
        next_cursor=str(shown[-1].seq) if has_more else None,
    )
    return model_response(view)


def curve_response(
    store: Store, job: JobRecord, keys: str | None, max_points: int, media_type: str
) -> Response:
    """The training curve as JSON or CSV."""
    wanted = [key.strip() for key in keys.split(",") if key.strip()] if keys else None
    events = store.metrics(job.id, keys=wanted, max_points=max_points)
    points = [MetricView.of(event) for event in events]
    if media_type == "text/csv":
        return Response(_as_csv(points), media_type="text/csv; charset=utf-8")
    return model_response(ListView[MetricView](data=points, has_more=False, next_cursor=None))


def _as_csv(points: Iterable[MetricView]) -> str:
    """One row a point; a column for every key that any point has."""
    rows = [{"attempt": p.attempt, "at": p.at.isoformat(), **p.values} for p in points]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def log_response(
    context: ServiceContext,
    job: JobRecord,
    attempt: int | None,
    tail: int,
    headers: Mapping[str, str],
) -> Response:
    """The end of an attempt's log; with a Range header that part, at most a megabyte.

    Raises:
        NotFoundError: the job has no such attempt.
        ProblemError: `range_not_satisfiable`: the log is not that long (yet).
    """
    fence = job.fence if attempt is None else attempt
    if fence > job.fence:
        raise NotFoundError("attempt of this job", str(fence))
    path = RunDirectory(context.settings.storage, job.id, fence).log_file
    if "range" not in headers:
        return PlainTextResponse(read_tail(path, tail))
    part = requested_slice({"range": headers["range"]}, "", size_of(path))
    text = read_range(path, part.start, min(part.stop, part.start + MAX_BYTES))
    content_range = f"bytes {part.start}-{part.start + len(text) - 1}/{part.size}"
    return PlainTextResponse(text, status_code=206, headers={"Content-Range": content_range})
