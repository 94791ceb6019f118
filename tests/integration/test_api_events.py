"""Events of a job: as pages, as a stream that replays without a gap, and live over a socket."""

import asyncio
import contextlib
import json
import socket
import threading
import time

import httpx2
import pytest
import uvicorn

from jobs.states import DesiredState, Reason
from jobs.wire import Exit
from services import event_stream
from services.app import create_app
from services.context import ServiceContext
from services.protocol import GuardedProtocol

STREAM = {"Accept": "text/event-stream"}


def messages(text):
    """(event, id, data) of every message of an event stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")
        )
        if "data" in fields:
            found.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
    return found


@pytest.fixture
def ended(service):
    """A job with 700 points of a curve that was cancelled."""
    job_id = service.submit()
    fence = service.start(job_id)
    service.report(job_id, fence, 0, 700)
    service.store.end(job_id, fence, _end())
    return job_id


def _end():
    return Exit(exit_code=20, reason=Reason.DATA_INVALID, message="over")


def test_events_are_read_page_by_page(api, ended):
    seen, after = [], 0
    while True:
        page = api.get(f"/v1/jobs/{ended}/events", params={"after": after, "limit": 300}).json()
        seen += [event["seq"] for event in page["data"]]
        if not page["has_more"]:
            break
        after = page["next_cursor"]
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) > 700


def test_a_stream_replays_everything_and_ends_when_the_job_has(api, ended):
    answer = api.get(f"/v1/jobs/{ended}/events", headers=STREAM)
    found = messages(answer.text)
    *events, (kind, _id, done) = found
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [int(i) for _e, i, _d in events] == list(range(1, len(events) + 1))
    assert all(data["seq"] == int(i) and data["kind"] == event for event, i, data in events)
    assert (kind, done["status"]) == ("done", "failed")
    assert "retry: 2000" in answer.text


@pytest.mark.parametrize("last", [0, 1, 333, 700])
def test_a_stream_goes_on_after_the_last_event_seen(api, ended, last):
    headers = {**STREAM, "Last-Event-ID": str(last)}
    events = messages(api.get(f"/v1/jobs/{ended}/events", headers=headers).text)[:-1]
    assert int(events[0][1]) == last + 1


def test_a_stream_that_has_seen_all_is_done_at_once(api, ended):
    headers = {**STREAM, "Last-Event-ID": "99999"}
    found = messages(api.get(f"/v1/jobs/{ended}/events", headers=headers).text)
    assert [event for event, _id, _data in found] == ["done"]


@pytest.mark.parametrize("last", ["-1", "x", "1" * 30, "1\u0661".encode()])
def test_a_last_event_id_that_is_no_number_is_refused(api, ended, last):
    headers = {**STREAM, "Last-Event-ID": last}
    assert api.get(f"/v1/jobs/{ended}/events", headers=headers).status_code == 422


def context_of(service) -> ServiceContext:
    return service.client.app.state.context


def test_a_quiet_stream_is_kept_alive_and_ends_when_the_process_drains(service):
    job_id = service.submit()

    async def listen():
        context = context_of(service)
        received = []
        async for part in event_stream.stream_events(context, job_id, 0, keep_alive_s=0.05):
            received.append(part)
            if received[-2:] == [b": ping\n\n"] * 2:
                context.draining.set()
        return received

    received = asyncio.run(asyncio.wait_for(listen(), 10))
    assert b"event: done" not in b"".join(received)


def test_waiting_for_a_job_ends_when_the_process_drains(service):
    job = service.store.job(service.submit())

    async def wait():
        context = context_of(service)
        asyncio.get_running_loop().call_later(0.1, context.draining.set)
        return await event_stream.wait_for_job(context, job, "terminal", 60)

    assert asyncio.run(asyncio.wait_for(wait(), 10)).id == job.id


@contextlib.contextmanager
def served(service):
    """The application behind a real socket; its base URL."""
    app = create_app(service.settings, store=service.store)
    config = uvicorn.Config(app, http=GuardedProtocol, ws="none", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
        )
        thread.start()
        yield "http://{}:{}".format(*listener.getsockname()), app
        app.state.context.draining.set()
        server.should_exit = True
        thread.join(20)


def test_many_live_streams_get_every_event_soon_and_hold_no_thread(service):
    job_id = service.submit()
    num_clients, started, received = 60, threading.Barrier(61), []
    headers = {**STREAM, **service.key()}

    def follow(url):
        seqs = []
        path = f"{url}/v1/jobs/{job_id}/events"
        with httpx2.stream("GET", path, headers=headers, timeout=30) as response:
            for message in httpx2.EventSource(response):
                if message.event == "done":
                    break
                if message.data:
                    seqs.append(int(message.id))
                    if seqs == [1]:
                        started.wait(20)
        received.append(seqs)

    with served(service) as (url, _app):
        threads = [threading.Thread(target=follow, args=(url,)) for _ in range(num_clients)]
        for thread in threads:
            thread.start()
        started.wait(20)
        # More streams than the thread pool has threads (40), and others are still answered.
        began = time.monotonic()
        assert httpx2.get(f"{url}/v1/jobs", headers=service.key()).status_code == 200
        assert time.monotonic() - began < 5
        fence = service.start(job_id)
        for first in range(0, 50, 10):
            service.report(job_id, fence, first, 10)
        service.store.end(job_id, fence, _end())
        for thread in threads:
            thread.join(30)
    total = len(service.store.events(job_id, limit=1000))
    assert len(received) == num_clients
    assert all(seqs == list(range(1, total + 1)) for seqs in received)


def test_a_client_that_goes_away_leaves_nothing_behind(service):
    job_id = service.submit()
    headers = {**STREAM, **service.key()}
    with served(service) as (url, app):
        feed = app.state.context.store.feed
        for _ in range(5):
            with httpx2.stream("GET", f"{url}/v1/jobs/{job_id}/events", headers=headers) as answer:
                next(answer.iter_lines())
        deadline = time.monotonic() + 10
        while feed._waiters and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not feed._waiters
    service.store.request(job_id, DesiredState.CANCELLED, project="default", actor="test")
