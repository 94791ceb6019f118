"""The events of a job as one endless-looking iterator: reconnects, without gap or duplicate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2

from services.client.errors import ApiError, StreamBrokenError
from services.client.transport import Transport, is_transient

_KEEP_ALIVE_S = 15.0  # the service sends a comment that often
_SILENCE_S = 3 * _KEEP_ALIVE_S  # after three missed ones nobody is there any more
_MAX_JUMPS = 5


def follow_events(transport: Transport, job_id: str, after: int) -> Iterator[dict[str, Any]]:
    """Yield the events of a job from `after` + 1 on, live, until the job has ended.

    Each event counts one higher than the one before. A stream that breaks is opened again at the
    last event seen (`Last-Event-ID`); what arrives twice is dropped, and a stream that skips is
    treated like one that broke.

    Raises:
        ApiError: the service refused.
        ConnectionFailedError: the service was away for too long.
        StreamBrokenError: the stream keeps skipping events.
    """
    last, retrier, jumps = after, transport.retrier(), 0
    while True:
        opened = transport.now()
        try:
            for seq, event in _one_stream(transport, job_id, last):
                yield event
                last, jumps = seq, 0
                retrier.progressed()
        except StreamBrokenError:
            jumps += 1
            if jumps > _MAX_JUMPS:
                raise
        except httpx2.TransportError as exc:
            # A quiet job sends no events for long: a connection that lived is progress too.
            if transport.now() - opened > _KEEP_ALIVE_S and not isinstance(exc, httpx2.ReadTimeout):
                retrier.progressed()
            retrier.failed(exc)
        except ApiError as exc:
            if not is_transient(exc):
                raise
            retrier.failed(exc)
        else:
            return


def _one_stream(
    transport: Transport, job_id: str, after: int
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbered events of one connection, each once; ends only when the job has ended."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    path = f"/v1/jobs/{job_id}/events"
    last = after
    with transport.stream(path, headers=headers, read_timeout_s=_SILENCE_S) as response:
        for message in httpx2.EventSource(response):
            if message.event == "done":
                return
            seq = int(message.id) if message.id.isdigit() else 0
            if not message.data or seq <= last:
                continue
            if seq > last + 1 and message.event != "gap":
                raise StreamBrokenError(job_id, last, seq)
            yield seq, json.loads(message.data)
            last = seq
    raise httpx2.RemoteProtocolError("the event stream ended before the job did")
