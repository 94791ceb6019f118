"""Following a job's events over connections that break, repeat and skip."""

import json

import httpx2
import pytest

from services.client import ApiError, Client, ConnectionFailedError, StreamBrokenError


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds


class Broken(httpx2.SyncByteStream):
    """Some bytes, then a reset."""

    def __init__(self, content):
        self.content = content

    def __iter__(self):
        yield self.content
        raise httpx2.ReadError("connection reset")


class EventService:
    """A job with `total` events; each connection is spoiled by one entry of `faults`."""

    def __init__(self, total, *faults):
        self.total, self.faults, self.asked = total, list(faults), []

    def __call__(self, request):
        after = int(request.headers["last-event-id"])
        self.asked.append(after)
        assert request.headers["accept"] == "text/event-stream"
        fault = self.faults.pop(0) if self.faults else None
        return fault(self, after) if fault else stream(self.text(after) + DONE)

    def text(self, after, upto=None):
        return "".join(event(n) for n in range(after + 1, (upto or self.total) + 1))


DONE = 'event: done\ndata: {"status": "succeeded"}\n\n'


def event(n):
    return f"id: {n}\nevent: metric\ndata: {json.dumps({'seq': n, 'kind': 'metric'})}\n\n"


def stream(text):
    return httpx2.Response(
        200, headers={"content-type": "text/event-stream"}, content=text.encode()
    )


def cut(upto, more=""):
    """Ends with a reset after the event `upto` and the text `more`."""

    def answer(service, after):
        return httpx2.Response(
            200,
            headers={"content-type": "text/event-stream"},
            stream=Broken((service.text(after, upto) + more).encode()),
        )

    return answer


def ends(upto):
    """Ends in order after `upto`, as a service does that is about to restart."""
    return lambda service, after: stream(service.text(after, upto))


def down(service, after):
    raise httpx2.ConnectError("connection refused")


def busy(service, after):
    return httpx2.Response(503, json={"code": "storage_unavailable"})


def repeats(service, after):
    """Sends everything from the first event on, whatever was asked for."""
    return stream(service.text(0) + DONE)


def skips(service, after):
    return stream(event(after + 2) + DONE)


def follow(service, after=0):
    client = Client(
        "http://service", "key", clock=FakeClock(), transport=httpx2.MockTransport(service)
    )
    return [e["seq"] for e in client.events("job_1", after=after)]


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [cut(3)],
        [cut(3, 'id: 4\nevent: metric\ndata: {"se')],
        [cut(3, "id: 4\nevent: metric\ndata: {}\n")],
        [ends(5)],
        [cut(2), down, down, busy, ends(7), repeats],
        [skips],
        [cut(1), skips, skips, cut(9)],
    ],
)
def test_every_event_arrives_once_and_in_order(faults):
    assert follow(EventService(10, *faults)) == list(range(1, 11))


def test_a_new_connection_asks_for_what_follows_the_last_event_seen():
    service = EventService(10, cut(4), ends(6))
    follow(service)
    assert service.asked == [0, 4, 6]


def test_events_can_be_followed_from_the_middle():
    assert follow(EventService(10), after=7) == [8, 9, 10]


def test_comments_and_messages_without_a_number_are_no_events():
    noise = ": ping\n\nretry: 2000\n\nevent: heartbeat\ndata: {}\n\n"
    assert follow(EventService(3, lambda s, a: stream(noise + s.text(a) + DONE))) == [1, 2, 3]


def test_a_stream_that_always_skips_is_given_up():
    with pytest.raises(StreamBrokenError, match="jump from 0 to 2"):
        follow(EventService(10, *[skips] * 20))


def test_a_service_that_stays_away_is_given_up():
    with pytest.raises(ConnectionFailedError):
        follow(EventService(10, cut(3), *[down] * 1000))


def test_an_unknown_job_is_told_at_once():
    service = EventService(1, lambda s, a: httpx2.Response(404, json={"code": "not_found"}))
    with pytest.raises(ApiError, match="not_found"):
        follow(service)
    assert len(service.asked) == 1
