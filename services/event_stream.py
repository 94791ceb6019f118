"""A job's events as they happen (SSE), and waiting for a job to change.

Everything is a coroutine that sleeps on the store's feed: a client that listens for hours holds no
thread, and nothing polls the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

from fastapi.sse import format_sse_event
from starlette.concurrency import run_in_threadpool

from jobs.records import JobRecord
from services.context import ServiceContext
from services.responses import job_etag
from services.schemas.events import EventView
from services.schemas.jobs import JobView

KEEP_ALIVE_S = 15.0
_PAGE = 500
_RETRY_MS = 2000


async def stream_events(
    context: ServiceContext, job_id: str, after: int, *, keep_alive_s: float = KEEP_ALIVE_S
) -> AsyncIterator[bytes]:
    """Replay the events after `after`, then follow; `event: done` comes when the job has ended.

    The stream also ends, without `done`, when the process is about to end: the client connects
    again and goes on after the last id it saw.
    """
    yield format_sse_event(comment="events of the job follow", retry=_RETRY_MS)
    while True:
        version = context.store.feed.version(job_id)
        # The state is read before the events: a terminal state and its event are one transaction.
        job = await run_in_threadpool(context.store.job, job_id)
        events = await run_in_threadpool(context.store.events, job_id, after=after, limit=_PAGE)
        for event in events:
            data = EventView.of(event).model_dump_json()
            yield format_sse_event(event=event.kind, id=str(event.seq), data_str=data)
            after = event.seq
        if len(events) == _PAGE:
            continue
        if job.state.is_terminal:
            yield format_sse_event(event="done", data_str=JobView.of(job).model_dump_json())
            return
        if not events and not await _changed(context, job_id, version, keep_alive_s):
            yield format_sse_event(comment="ping")
        if context.draining.is_set:
            return


async def wait_for_job(
    context: ServiceContext, job: JobRecord, until: Literal["terminal", "change"], wait_s: float
) -> JobRecord:
    """Wait until a job has ended (or has another version), at most `wait_s` seconds."""
    if wait_s <= 0:
        return job
    loop = asyncio.get_running_loop()
    deadline, first = loop.time() + wait_s, job_etag(job)
    while True:
        version = context.store.feed.version(job.id)
        job = await run_in_threadpool(context.store.job, job.id)
        if job.state.is_terminal or (until == "change" and job_etag(job) != first):
            return job
        left = deadline - loop.time()
        if left <= 0 or context.draining.is_set:
            return job
        await _changed(context, job.id, version, left)


async def _changed(context: ServiceContext, job_id: str, version: int, timeout_s: float) -> bool:
    """Sleep until the feed moves past `version`, the process drains, or the time is over."""
    feed = asyncio.ensure_future(
        context.store.feed.changed(job_id, since=version, timeout_s=timeout_s)
    )
    drain = asyncio.ensure_future(context.draining.wait())
    try:
        await asyncio.wait((feed, drain), return_when=asyncio.FIRST_COMPLETED)
        return feed.done() and feed.result() != version
    finally:
        for waiter in (feed, drain):
            waiter.cancel()
        await asyncio.gather(feed, drain, return_exceptions=True)
