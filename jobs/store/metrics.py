"""Curves of a job: its metric events, without what a later attempt did again."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import ColumnElement, Connection, or_, select

from jobs.errors import NotFoundError
from jobs.records import EventRecord
from jobs.store.rows import EVENT_COLUMNS, event_record
from jobs.tables import events, jobs

MOST_LOADED: Final = 50_000
_AXES: Final = ("step", "epoch")  # always kept: what the values are drawn over


def metrics(
    connection: Connection, job_id: str, *, keys: Collection[str] | None, max_points: int
) -> list[EventRecord]:
    """Metric events in the order of their steps, at most `max_points` of them.

    Where an attempt resumed before the last step of an earlier one, the steps that it did again
    are its own. Points are dropped evenly; the first and the last stay.

    Only the values `keys` are kept, beside step and epoch; None keeps all.

    Raises:
        NotFoundError: no such job.
    """
    last = connection.execute(select(jobs.c.last_event_seq).where(jobs.c.id == job_id)).scalar()
    if last is None:
        raise NotFoundError("job", job_id)
    query = (
        select(*EVENT_COLUMNS)
        .where(events.c.job_id == job_id, events.c.kind == "metric", _spread(last))
        .order_by(events.c.seq)
    )
    points = [event_record(row) for row in connection.execute(query)]
    kept = thin(without_repeats(points), max_points)
    return kept if keys is None else [_only(point, {*_AXES, *keys}) for point in kept]


def _spread(last: int) -> ColumnElement[bool]:
    """So many event numbers, evenly spread, that a long job does not fill the memory."""
    stride = 1 + last // MOST_LOADED
    return or_(events.c.seq % stride == 0, events.c.seq > last - stride)


def without_repeats(points: Sequence[EventRecord]) -> list[EventRecord]:
    """For each step the point of the latest attempt that reached it, in the order of steps."""
    first_step: dict[int, float] = {}
    for point in points:
        first_step[point.fence] = min(first_step.get(point.fence, math.inf), _step(point))
    superseded: dict[int, float] = {}  # from this step on, a later attempt did it again
    limit = math.inf
    for fence in sorted(first_step, reverse=True):
        superseded[fence] = limit
        limit = min(limit, first_step[fence])
    by_step = {_step(p): p for p in points if _step(p) < superseded[p.fence]}
    return [by_step[step] for step in sorted(by_step)]


def thin(points: Sequence[EventRecord], most: int) -> list[EventRecord]:
    """At most `most` (two or more) of the points, evenly spread."""
    if len(points) <= most:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (most - 1))] for i in range(most)]


def _step(point: EventRecord) -> float:
    step = point.data.get("step")
    return step if isinstance(step, int | float) else -1


def _only(point: EventRecord, keys: Collection[str]) -> EventRecord:
    return replace(point, data={k: v for k, v in point.data.items() if k in keys})
