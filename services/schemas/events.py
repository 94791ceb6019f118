"""Events and training curves as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from jobs.records import EventRecord
from services.schemas.base import View


class EventView(View):
    """One thing that happened to a job. `seq` counts from 1 without gaps within the job."""

    object: Literal["event"] = "event"
    id: str
    job_id: str
    seq: int
    attempt: int
    kind: str
    at: datetime
    data: dict[str, Any]

    @classmethod
    def of(cls, event: EventRecord) -> EventView:
        """The view of a record."""
        return cls(
            id=event.id,
            job_id=event.job_id,
            seq=event.seq,
            attempt=event.fence,
            kind=event.kind,
            at=event.at,
            data=dict(event.data),
        )


class MetricView(View):
    """One point of the training curve. `values` holds step, epoch, loss and what else is known."""

    object: Literal["metric"] = "metric"
    attempt: int
    at: datetime
    values: dict[str, Any]

    @classmethod
    def of(cls, event: EventRecord) -> MetricView:
        """The view of a record."""
        return cls(attempt=event.fence, at=event.at, values=dict(event.data))
