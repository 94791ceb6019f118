"""Who gets in: every route is asked without a key, with a wrong one, and with a stranger's."""

import re
import time

import pytest
from fastapi.routing import iter_route_contexts

from services.auth import SCOPES

OPEN = {"/livez", "/readyz", "/problems/{code}"}
STRANGER = "mige_" + "0" * 32 + "_" + "0" * 64


def routes_of(app):
    for route in iter_route_contexts(app.routes):
        for method in sorted(route.methods):
            yield method, route.path


def fill(path, **values):
    return re.sub(r"\{(\w+)\}", lambda m: str(values.get(m[1], "x")), path)


def test_the_only_open_routes_are_health_and_the_words_about_problems(service):
    open_routes = set()
    seen = 0
    for method, path in routes_of(service.client.app):
        seen += 1
        answer = service.client.request(method, fill(path, code="not_found"))
        if answer.status_code != 401:
            open_routes.add(path)
            continue
        assert answer.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            assert answer.json()["code"] == "unauthorized"
    assert open_routes == OPEN
    assert seen > 25


def test_there_are_no_other_doors_than_those_routes(service):
    for path in ("/docs", "/redoc", "/openapi.json", "/v1", "/", "/docs/oauth2-redirect"):
        assert service.client.get(path).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer ")],
        [("Authorization", f"Basic {STRANGER}")],
        [("Authorization", f"Bearer\t{STRANGER}")],
        [("Authorization", f"Bearer {STRANGER} x")],
        [("Authorization", f"Bearer {STRANGER}")],
        [("Authorization", "Bearer mige_\u0661\u0662".encode())],
        [("Authorization", "Bearer " + "a" * 1_000_000)],
        [("Authorization", "Bearer GOOD"), ("Authorization", "Bearer GOOD")],
        [("X-Api-Key", "GOOD")],
    ],
)
def test_a_malformed_token_is_refused_quickly(service, headers):
    good = service.key()["Authorization"].removeprefix("Bearer ")
    sent = [(k, v.replace("GOOD", good) if isinstance(v, str) else v) for k, v in headers]
    began = time.perf_counter()
    answer = service.client.get("/v1/jobs", headers=sent)
    assert answer.status_code == 401
    assert time.perf_counter() - began < 5.0
    assert good not in answer.text


def test_a_large_body_of_a_stranger_is_not_read(service):
    def chunks():
        for _ in range(100):
            yield b" " * 32768

    for path in ("/v1/jobs", "/v1/encoders/x/embed", "/v1/attempts/x/1/reports"):
        headers = {"Content-Type": "application/json", "Content-Length": "3276800"}
        answer = service.client.post(path, content=chunks(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_in_the_address_does_not_count(service):
    good = service.key()["Authorization"].removeprefix("Bearer ")
    for name in ("api_key", "token", "access_token"):
        assert service.client.get("/v1/jobs", params={name: good}).status_code == 401


def test_the_scheme_may_be_written_in_any_case(service):
    good = service.key()["Authorization"].removeprefix("Bearer ")
    headers = {"Authorization": f"bearer {good}"}
    assert service.client.get("/v1/jobs", headers=headers).status_code == 200


def test_a_revoked_key_is_refused_at_once(service):
    record, secret = service.store.create_key(project="p", scopes=SCOPES, name="x")
    headers = {"Authorization": f"Bearer {secret}"}
    assert service.client.get("/v1/jobs", headers=headers).status_code == 200
    service.store.revoke_key(record.id)
    assert service.client.get("/v1/jobs", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("scopes", "method", "path", "status"),
    [
        (["jobs:read"], "GET", "/v1/jobs", 200),
        (["jobs:read"], "POST", "/v1/jobs", 403),
        (["jobs:write"], "GET", "/v1/jobs", 403),
        (["jobs:read"], "POST", "/v1/jobs/{job}/cancel", 403),
        (["jobs:read", "jobs:write"], "GET", "/v1/encoders", 403),
        (["encoders:read"], "GET", "/v1/encoders", 200),
        (["encoders:read"], "GET", "/v1/jobs/{job}/events", 403),
        (["admin"], "POST", "/v1/jobs", 202),
        (["admin"], "GET", "/v1/encoders", 200),
    ],
)
def test_a_key_can_do_what_its_scopes_say(service, spec, scopes, method, path, status):
    path = path.replace("{job}", service.submit())
    body = spec if (method, path) == ("POST", "/v1/jobs") else None
    answer = service.client.request(method, path, json=body, headers=service.key(*scopes))
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "scope_missing"


def test_another_projects_job_is_as_unknown_as_one_that_never_was(service):
    theirs = service.submit(project="theirs")
    never = "job_" + "0" * 32
    headers = service.key(project="mine")
    for method, path in routes_of(service.client.app):
        if "{job_id}" not in path or path.startswith("/v1/attempts"):
            continue
        answers = []
        for job_id in (theirs, never):
            answer = service.client.request(method, fill(path, job_id=job_id), headers=headers)
            body = answer.json()
            for own in ("request_id", "instance"):
                del body[own]
            answers.append((answer.status_code, body))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404
    assert service.client.get("/v1/jobs", headers=headers).json()["data"] == []


def test_an_attempts_token_opens_its_own_attempt_only(service):
    mine, other = service.submit(), service.submit()
    fence = service.start(mine)
    service.start(other)
    token = service.store.attempt_token(mine, fence)
    headers = {"Authorization": f"Bearer {token}"}
    beat = {"phase": "training"}

    def ask(path):
        return service.client.post(path, json=beat, headers=headers)

    answer = ask(f"/v1/attempts/{mine}/{fence}/heartbeat")
    assert (answer.status_code, answer.json()) == (200, {"command": "continue"})
    assert ask(f"/v1/attempts/{other}/{fence}/heartbeat").status_code == 404
    assert ask(f"/v1/attempts/{mine}/{fence + 1}/heartbeat").status_code == 404
    assert ask("/v1/jobs").status_code == 401
    forged = {"Authorization": f"Bearer {token[:-1]}{'0' if token[-1] != '0' else '1'}"}
    path = f"/v1/attempts/{mine}/{fence}/heartbeat"
    assert service.client.post(path, json=beat, headers=forged).status_code == 401
    assert service.client.post(path, json=beat, headers=service.key()).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "a/b?", "x@127.0.0.1", ""]
)
def test_a_host_that_is_not_ours_is_refused(service, host):
    answer = service.client.get("/livez", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "host_not_allowed")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:1", "[::1]:8642", "LOCALHOST"])
def test_our_own_names_are_served_at_any_port(service, host):
    assert service.client.get("/livez", headers={"Host": host}).status_code == 200


def test_other_origins_get_no_permission_and_methods_no_override(api):
    answer = api.get("/v1/jobs", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = {"Origin": "null", "Access-Control-Request-Method": "POST"}
    assert api.options("/v1/jobs", headers=preflight).status_code == 405
    assert api.get("/v1/jobs", headers={"X-HTTP-Method-Override": "DELETE"}).status_code == 200
    for method in ("TRACE", "DELETE", "PUT", "PATCH", "BREW"):
        answer = api.request(method, "/v1/jobs")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


def test_every_answer_carries_the_security_headers(api):
    for path in ("/livez", "/v1/jobs", "/nothing", "/problems/not_found"):
        headers = api.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-request-id"].startswith("req_")
        assert "server" not in headers
