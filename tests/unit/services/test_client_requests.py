"""The client's requests against a network that fails in known ways; no socket, no real clock."""

import io
import json

import httpx2
import numpy as np
import pytest

from services.client import ApiError, Client, ConnectionFailedError, WaitTimeoutError

PROBLEM = {
    "type": "/problems/objective_infeasible",
    "title": "The spec cannot work",
    "status": 422,
    "detail": "The batch is too small.",
    "code": "objective_infeasible",
    "errors": [{"pointer": "/training/batch_size", "detail": "must be >= 8", "code": "too_small"}],
    "remedy": "Raise training.batch_size.",
    "request_id": "req_1",
}


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.time, self.slept = 0.0, []

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds


class Script:
    """Answers request after request from a list; keeps what was asked. The last one repeats."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers), []

    def __call__(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


def client_for(script, clock=None):
    return Client(
        "http://service",
        "key",
        clock=clock or FakeClock(),
        transport=httpx2.MockTransport(script),
    )


def ok(body, status=200, **headers):
    return lambda: httpx2.Response(status, json=body, headers=headers)


def refused():
    return httpx2.ConnectError("connection refused")


def test_a_spec_is_sent_as_it_is_so_that_the_service_can_point_at_what_does_not_fit():
    script = Script(ok({"id": "job_1"}))
    client = client_for(script)
    client.submit({"seed": float("nan"), "name": "\ud800"})
    client.plan({"seed": float("inf")})
    assert [request.content for request in script.requests] == [
        b'{"seed": NaN, "name": "\\ud800"}',
        b'{"seed": Infinity}',
    ]
    assert {r.headers["content-type"] for r in script.requests} == {"application/json"}


def test_every_request_carries_the_key():
    script = Script(ok({"id": "job_1"}))
    client_for(script).job("job_1")
    assert script.requests[0].headers["authorization"] == "Bearer key"
    assert str(script.requests[0].url) == "http://service/v1/jobs/job_1"


@pytest.mark.parametrize(
    "failure",
    [refused(), httpx2.ReadError("reset"), ok({}, 502), ok({}, 503), ok({}, 504), ok({}, 429)],
)
def test_a_passing_failure_is_tried_again(failure):
    script = Script(failure, failure, ok({"id": "job_1"}))
    assert client_for(script).job("job_1") == {"id": "job_1"}
    assert len(script.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 412, 422, 500, 507])
def test_a_refusal_is_not_tried_again(status):
    script = Script(ok({**PROBLEM, "status": status}, status))
    with pytest.raises(ApiError) as caught:
        client_for(script).job("job_1")
    assert caught.value.status == status
    assert len(script.requests) == 1


def test_a_conflict_that_says_it_will_pass_is_tried_again():
    script = Script(ok({"code": "in_flight", "retryable": True}, 409), ok({"id": "job_1"}, 202))
    assert client_for(script).submit({})["id"] == "job_1"


def test_a_retried_submission_sends_the_same_key_and_body():
    script = Script(httpx2.ReadError("reset after the request was sent"), ok({"id": "job_1"}, 202))
    client_for(script).submit({"name": "a"})
    first, second = script.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.content == second.content == b'{"name": "a"}'


def test_two_submissions_have_different_keys_unless_one_is_given():
    script = Script(ok({"id": "job_1"}, 202))
    client = client_for(script)
    client.submit({})
    client.submit({})
    client.submit({}, idempotency_key="mine")
    one, two, three = (r.headers["idempotency-key"] for r in script.requests)
    assert one != two
    assert three == "mine"


def test_the_service_decides_how_long_to_wait_at_least():
    clock = FakeClock()
    script = Script(ok({}, 429, **{"retry-after": "3"}), ok({"id": "job_1"}))
    client_for(script, clock).job("job_1")
    assert clock.slept == [3.0]


def test_a_service_that_never_answers_is_given_up_soon_and_the_remedy_is_named():
    clock = FakeClock()
    with pytest.raises(ConnectionFailedError, match="mige serve"):
        client_for(Script(refused()), clock).job("job_1")
    assert 1 < clock.time <= 4


def test_a_service_that_has_answered_before_is_waited_for_much_longer():
    clock = FakeClock()
    script = Script(ok({"id": "job_1"}), *[refused()] * 12, ok({"id": "job_1"}))
    client = client_for(script, clock)
    client.job("job_1")
    assert client.job("job_1") == {"id": "job_1"}
    assert 4 < clock.time <= 60


def test_the_last_answer_is_raised_when_the_patience_ends():
    with pytest.raises(ApiError) as caught:
        client_for(Script(ok({"code": "overloaded", "title": "Too busy"}, 503))).job("job_1")
    assert caught.value.code == "overloaded"


def test_an_error_reads_as_what_is_wrong_where_and_what_to_do():
    with pytest.raises(ApiError) as caught:
        client_for(Script(ok(PROBLEM, 422))).submit({})
    text = str(caught.value)
    for part in ("objective_infeasible", "/training/batch_size: must be >= 8", "Raise training"):
        assert part in text
    assert "req_1" not in text  # a request id helps with failures of the service, not with ours


def test_an_answer_that_is_no_problem_document_still_becomes_a_readable_error():
    script = Script(lambda: httpx2.Response(500, text="<html>Bad proxy</html>"))
    with pytest.raises(ApiError, match="Bad proxy"):
        client_for(script).job("job_1")


def test_lists_are_read_page_after_page():
    script = Script(
        ok({"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "next_cursor": "c1"}),
        ok({"data": [{"id": "c"}], "has_more": False, "next_cursor": None}),
    )
    assert [j["id"] for j in client_for(script).jobs()] == ["a", "b", "c"]
    assert script.requests[1].url.params["cursor"] == "c1"


def test_a_list_stops_at_the_limit_without_asking_for_more():
    script = Script(ok({"data": [{"id": "a"}, {"id": "b"}], "has_more": True, "next_cursor": "c"}))
    assert len(list(client_for(script).jobs(limit=2))) == 2
    assert len(script.requests) == 1


def test_waiting_ends_with_the_job_and_shows_it_on_the_way():
    seen = []
    script = Script(ok({"status": "running"}), ok({"status": "succeeded"}))
    job = client_for(script).wait("job_1", on_progress=seen.append)
    assert job == {"status": "succeeded"}
    assert [j["status"] for j in seen] == ["running", "succeeded"]
    assert script.requests[0].url.params["until"] == "terminal"


@pytest.mark.parametrize(
    ("timeout_s", "waits"), [(30.0, [20, 10]), (20.5, [20, 1]), (0.2, [1]), (0.0, [0])]
)
def test_waiting_gives_up_when_the_time_is_over(timeout_s, waits):
    clock, asked = FakeClock(), []

    def slow(request):
        asked.append(int(request.url.params["wait"].removesuffix("s")))
        clock.time += asked[-1]
        return httpx2.Response(200, json={"status": "running"})

    with pytest.raises(WaitTimeoutError, match="still running"):
        client_for(slow, clock).wait("job_1", timeout_s=timeout_s)
    assert asked == waits


def test_images_travel_as_npy_and_embeddings_come_back_as_npy():
    images = np.arange(8, dtype=np.float32).reshape(2, 1, 2, 2)

    def embed(request):
        sent = np.load(io.BytesIO(request.content))
        np.testing.assert_array_equal(sent, images)
        answer = io.BytesIO()
        np.save(answer, sent.reshape(2, 4)[:, :3])
        return httpx2.Response(200, content=answer.getvalue())

    embeddings = client_for(embed).embed("enc_1", images)
    np.testing.assert_array_equal(embeddings, images.reshape(2, 4)[:, :3])


def test_many_images_are_split_into_requests_and_put_together_in_order():
    images = np.zeros((40, 1, 1024, 1024), dtype=np.uint8)  # 40 MiB
    images[:, 0, 0, 0] = np.arange(40)
    sizes = []

    def embed(request):
        sent = np.load(io.BytesIO(request.content))
        sizes.append(len(sent))
        answer = io.BytesIO()
        np.save(answer, sent[:, 0, 0, :1].astype(np.float32))
        return httpx2.Response(200, content=answer.getvalue())

    embeddings = client_for(embed).embed("enc_1", images)
    assert embeddings[:, 0].tolist() == list(range(40))
    assert max(sizes) * 1024 * 1024 <= 16 * 1024 * 1024


def test_health_reads_a_service_that_is_not_ready():
    script = Script(ok({"status": "not_ready"}, 503))
    assert client_for(script).health() == {"status": "not_ready"}


def test_stored_events_are_read_page_after_page():
    script = Script(
        ok({"data": [{"seq": 1}, {"seq": 2}], "has_more": True}),
        ok({"data": [{"seq": 3}], "has_more": False}),
    )
    found = client_for(script).events("job_1", follow=False)
    assert [e["seq"] for e in found] == [1, 2, 3]
    assert json.loads(json.dumps(dict(script.requests[1].url.params))) == {"after": "2"}


def test_a_log_is_followed_from_attempt_to_attempt_until_the_job_ends():
    logs = {1: b"one\n", 2: b"two \xe2\x82\xac\n"}
    state = {"status": "running", "latest": 1, "reads": 0}

    def service(request):
        path = request.url.path
        if path.endswith("/attempts"):
            data = [{"number": n} for n in range(1, state["latest"] + 1)]
            return httpx2.Response(200, json={"data": data})
        if path.endswith("/logs"):
            return log_part(logs[int(request.url.params["attempt"])], request)
        state["reads"] += 1
        if state["reads"] == 3:
            state["latest"] = 2
        if state["reads"] == 5:
            state["status"] = "succeeded"
        return httpx2.Response(200, json={"status": state["status"]})

    assert "".join(client_for(service).follow_logs("job_1")) == "one\ntwo €\n"


def log_part(log, request):
    """At most three bytes of a log, so that characters are cut in the middle."""
    start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
    if start >= len(log):
        return httpx2.Response(416, json={})
    return httpx2.Response(206, content=log[start : start + 3])
