"""Requests of a runner, and what each answer means."""

from __future__ import annotations

import httpx2
import pytest

from jobs.control_plane import ControlPlane, HttpControlPlane
from jobs.errors import (
    ArtifactInvalidError,
    StaleFenceError,
    StateConflictError,
    StorageUnavailableError,
)
from jobs.spec import JobSpec
from jobs.states import Phase, Reason
from jobs.wire import Exit, Heartbeat, Launch

LAUNCH = Launch(
    job_id="job_1",
    fence=3,
    project="default",
    spec=JobSpec.model_validate(
        {
            "objective": {"kind": "mige_infomax"},
            "encoder": {"kind": "mlp"},
            "data": {"kind": "digits"},
        }
    ),
    storage="/nowhere",
    data_root=None,
    api_url="http://127.0.0.1:8642/",
    token="secret",
    ray_home=None,
    heartbeat_s=3,
    unacknowledged_limit_s=60,
)


def control_plane(answer) -> HttpControlPlane:
    return HttpControlPlane(LAUNCH, transport=httpx2.MockTransport(answer))


def test_a_heartbeat_names_the_attempt_and_carries_its_token():
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"command": "pause"})

    with control_plane(answer) as plane:
        assert isinstance(plane, ControlPlane)
        assert plane.heartbeat(Heartbeat(phase=Phase.TRAINING)).command == "pause"
    (request,) = seen
    assert str(request.url) == "http://127.0.0.1:8642/v1/attempts/job_1/3/heartbeat"
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["content-type"] == "application/json"
    assert request.content == b'{"phase":"training"}'


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (409, {"code": "stale_fence"}, StaleFenceError),
        (409, {"code": "state_conflict", "current_state": "running"}, StateConflictError),
        (422, {"code": "artifact_invalid", "detail": "no"}, ArtifactInvalidError),
        (404, {}, ArtifactInvalidError),
        (401, {}, StorageUnavailableError),
        (429, {}, StorageUnavailableError),
        (500, {}, StorageUnavailableError),
        (503, {}, StorageUnavailableError),
        (507, {}, StorageUnavailableError),
    ],
)
def test_problems_become_errors(status, body, error):
    with (
        control_plane(lambda request: httpx2.Response(status, json=body)) as plane,
        pytest.raises(error),
    ):
        plane.end(Exit(exit_code=0, reason=Reason.COMPLETED, message="x"))


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"command": "dance"}'])
def test_an_answer_of_something_else_is_worth_another_try(content):
    with (
        control_plane(lambda request: httpx2.Response(200, content=content)) as plane,
        pytest.raises(StorageUnavailableError),
    ):
        plane.heartbeat(Heartbeat(phase=Phase.TRAINING))


def test_no_connection_is_worth_another_try():
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    with control_plane(refuse) as plane, pytest.raises(StorageUnavailableError, match="refused"):
        plane.finalize()


def test_no_proxy_of_the_environment_sees_the_token(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with HttpControlPlane(LAUNCH) as plane:
        assert not plane._client.trust_env
