"""Bad input gets a problem that names the field, says what is wrong and what to do. Never a 5xx."""

import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.problems import PROBLEMS
from tests.integration.api_service import running_service

JSON_TYPE = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def api(service):
    service.client.headers.update(service.key())
    return service.client


def num_jobs(service):
    return sum(service.store.counts().values())


DIGITS = {
    "objective": {"kind": "mige_infomax"},
    "encoder": {"kind": "mlp"},
    "data": {"kind": "digits"},
    "resources": {"backend": "inline"},
}


def problem_of(answer, status, code):
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code), body
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["type"] == f"/problems/{code}"
    assert body["request_id"] == answer.headers["x-request-id"]
    assert body["title"]
    assert body["detail"]
    assert body["remedy"]
    return body


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"surprise": 1}, "/surprise", "extra_forbidden"),
        ({"state": "succeeded"}, "/state", "extra_forbidden"),
        ({"id": "job_1", "project": "theirs"}, "/id", "extra_forbidden"),
        ({"training": {"batchsize": 8}}, "/training/batchsize", "extra_forbidden"),
        ({"training": {"epochs": True}}, "/training/epochs", "int_type"),
        ({"training": {"epochs": 1.0}}, "/training/epochs", "int_type"),
        ({"training": {"epochs": "3"}}, "/training/epochs", "int_type"),
        ({"training": {"batch_size": 2**31}}, "/training/batch_size", "less_than_equal"),
        ({"optimizer": {"kind": "adam", "learning_rate": 1e308}}, None, "less_than_equal"),
        ({"data": {"kind": "imagenet"}}, "/data/kind", "union_tag_invalid"),
        ({"data": {"kind": "arrays", "file": "/etc/passwd"}}, "/data/file", None),
        ({"data": {"kind": "arrays", "file": "../../x.npz"}}, "/data/file", None),
        ({"data": {"kind": "image_folder", "folder": "a/../b"}}, "/data/folder", None),
        ({"encoder": {"kind": "mlp", "out_dim": 10**9}}, "/encoder/out_dim", None),
        ({"resources": {"num_workers": 10**6}}, "/resources/num_workers", None),
        ({"resources": {"gpus_per_worker": -1}}, "/resources/gpus_per_worker", None),
        ({"resources": {"gpus_per_worker": 2}}, "/resources/gpus_per_worker", None),
        ({"name": "a" * 64}, "/name", "string_pattern_mismatch"),
        ({"name": "UPPER"}, "/name", "string_pattern_mismatch"),
        ({"metadata": {"k": "v" * 257}}, "/metadata/k", "string_too_long"),
        ({"metadata": {str(i): "x" for i in range(65)}}, "/metadata", "too_long"),
        ({"objective": None}, "/objective", None),
    ],
)
def test_a_field_that_does_not_fit_is_named(api, service, change, pointer, code):
    before = num_jobs(service)
    answer = api.post("/v1/jobs", json={**DIGITS, **change})
    first = problem_of(answer, 422, "validation_failed")["errors"][0]
    assert first["pointer"] == (pointer or first["pointer"])
    assert first["code"] == (code or first["code"])
    assert first["detail"]
    assert first["remedy"]
    assert num_jobs(service) == before


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"data": {"kind": "mnist"}}, "/data/kind", "data_unavailable"),
        ({"data": {"kind": "arrays", "file": "none.npz"}}, "/data/file", "data_unavailable"),
        ({"data": {"kind": "arrays", "file": "bad.npz"}}, "/data/file", "data_invalid"),
        ({"data": {"kind": "arrays", "file": "text.npz"}}, "/data/file", "data_invalid"),
        ({"training": {"batch_size": 4}}, "/training/batch_size", "objective_infeasible"),
        ({"training": {"batch_size": 5000}}, "/training/batch_size", "too_large"),
        ({"encoder": {"kind": "dim_conv"}}, "/encoder/kind", None),
        (
            {"objective": {"kind": "mige_infomax", "route": "conditional"}},
            "/objective/noise_std",
            "objective_infeasible",
        ),
    ],
)
@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_a_spec_that_cannot_run_is_refused_before_anything_is_stored(
    api, service, change, pointer, code, dry_run
):
    root = service.settings.data_root
    root.mkdir(exist_ok=True)
    before = num_jobs(service)
    with zipfile.ZipFile(root / "bad.npz", "w") as archive:
        content = io.BytesIO()
        np.save(content, np.zeros((4, 8, 8)))
        archive.writestr("x_train.npy", content.getvalue())
    (root / "text.npz").write_text("no archive")
    answer = api.post("/v1/jobs", params={"dry_run": dry_run}, json={**DIGITS, **change})
    body = answer.json()
    assert answer.status_code == 422
    assert body["code"] == (code or body["code"])
    assert body["code"] in PROBLEMS
    assert body["errors"][0]["pointer"] == pointer
    assert body["remedy"]
    assert str(root) not in answer.text
    assert num_jobs(service) == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"seed": NaN}',
        b'{"seed": Infinity}',
        b'{"seed": 1e999}',
        b'{"seed": 1e400, "x": 1}',
        b'{"name": "\\ud800"}',
        b'{"name": "a\\u0000b"}',
        b'{"seed": 1, "seed": 2}',
        b"[" * 900 + b"]" * 900,
        b'{"a":' * 100_000,
        b'{"seed": ' + b"9" * 4301 + b"}",
        '{"seed": 1}'.encode("utf-16"),
        b"not json",
        b"",
        json.dumps({str(i): 0 for i in range(50_000)}).encode(),
    ],
    ids=lambda body: repr(body[:20]),
)
def test_json_that_is_not_plain_is_refused(api, body):
    answer = api.post("/v1/jobs", content=body, headers=JSON_TYPE)
    if body == b"":
        problem_of(answer, 422, "validation_failed")
    else:
        problem_of(answer, 400, "json_refused")


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999", b"9223372036854775808"])
def test_a_number_that_json_or_64_bits_do_not_know_is_refused_at_its_place(api, number):
    body = b'{"optimizer": {"kind": "adam", "learning_rate": ' + number + b"}}"
    answer = api.post("/v1/jobs", content=body, headers=JSON_TYPE)
    (error,) = problem_of(answer, 400, "json_refused")["errors"]
    assert (error["pointer"], error["code"]) == ("/optimizer/learning_rate", "json_refused")
    assert error["remedy"]


def test_an_undeclared_or_compressed_or_foreign_body_is_refused(api):
    text = json.dumps(DIGITS).encode()
    for headers in (
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/octet-stream"},
        {"Content-Type": "application/yaml"},
        {},
        {**JSON_TYPE, "Content-Encoding": "gzip"},
        {**JSON_TYPE, "Content-Encoding": "identity"},
    ):
        problem_of(
            api.post("/v1/jobs", content=text, headers=headers), 415, "media_type_unsupported"
        )
    content_type = {"Content-Type": "application/json; charset=utf-8"}
    assert api.post("/v1/jobs", content=text, headers=content_type).status_code == 202


@pytest.mark.parametrize("declared", [None, "10", "1048577", "9" * 30])
def test_a_body_above_a_megabyte_is_refused_whatever_it_declares(api, declared):
    def chunks():
        for _ in range(40):
            yield b" " * 65536

    headers = {**JSON_TYPE, **({"Content-Length": declared} if declared else {})}
    problem_of(api.post("/v1/jobs", content=chunks(), headers=headers), 413, "body_too_large")


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/jobs?limit=0", "query.limit"),
        ("/v1/jobs?limit=201", "query.limit"),
        ("/v1/jobs?limit=ten", "query.limit"),
        ("/v1/jobs?status=leased", "query.status"),
        ("/v1/jobs?colour=red", "query.colour"),
        ("/v1/jobs/{job}?colour=red", "query.colour"),
        ("/v1/jobs/{job}/events?After=1", "query.After"),
        ("/v1/jobs?cursor=' OR 1=1--", "query.cursor"),
        ("/v1/jobs?name=%25", "query.name"),
        ("/v1/encoders?cursor=x", "query.cursor"),
        ("/v1/jobs/{job}?wait=30", "query.wait"),
        ("/v1/jobs/{job}?wait=3600s", "query.wait"),
        ("/v1/jobs/{job}?until=tomorrow", "query.until"),
        ("/v1/jobs/{job}/events?after=-1", "query.after"),
        ("/v1/jobs/{job}/events?limit=501", "query.limit"),
        ("/v1/jobs/{job}/logs?attempt=0", "query.attempt"),
        ("/v1/jobs/{job}/logs?tail=99999999", "query.tail"),
        ("/v1/jobs/{job}/metrics?max_points=1", "query.max_points"),
    ],
)
def test_a_parameter_that_does_not_fit_is_named(api, service, path, parameter):
    answer = api.get(path.replace("{job}", service.submit()))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == parameter


def test_a_misspelt_dry_run_starts_nothing(api):
    before = api.get("/v1/jobs").json()["data"]
    answer = api.post("/v1/jobs?dryrun=true", json=DIGITS)
    error = problem_of(answer, 422, "validation_failed")["errors"][0]
    assert error["parameter"] == "query.dryrun"
    assert "dry_run" in error["detail"]
    assert api.get("/v1/jobs").json()["data"] == before


def test_a_header_that_does_not_fit_is_named(api):
    answer = api.post("/v1/jobs", json=DIGITS, headers={"Idempotency-Key": "k" * 256})
    error = problem_of(answer, 422, "validation_failed")["errors"][0]
    assert error["parameter"] == "header.Idempotency-Key"


HOSTILE = [
    "..",
    "../..",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/",
    "%252e%252e",
    "..\\..",
    "....//",
    "/etc/passwd",
    "C:\\x",
    "%00",
    "a" * 300,
    "x.",
    "x%20",
    "CON",
    ".",
    "%E2%88%95",
    "%EF%BC%8F",
    "%EF%AC%80",
    "%E2%80%AE",
    "%0a",
    "%ff%fe",
    "file:%2f%2f%2fetc%2fpasswd",
    "x;y=z",
    "' OR 1=1--",
]


PLACES = (
    "/v1/jobs/{}",
    "/v1/jobs/{}/logs",
    "/v1/encoders/{}",
    "/v1/encoders/{}/files/config.json",
    "/v1/encoders/{}/manifest",
    "/v1/objectives/{}/schema",
    "/problems/{}",
    "/v1/{}",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_path_leads_anywhere_but_to_a_404(api, text):
    for place in PLACES:
        answer = api.get(place.format(text), follow_redirects=False)
        # The client itself resolves dots, so that some of these ask for a list.
        assert answer.status_code == 404 or (text.startswith(".") and "data" in answer.json())
        assert "root:" not in answer.text


@pytest.mark.parametrize("path", ["//v1/jobs", "/v1//jobs", "/v1/jobs/", "/V1/jobs"])
def test_a_path_has_one_spelling(service, path):
    headers = service.key()
    url = service.client.base_url.copy_with(raw_path=path.encode())
    assert service.client.get(url, headers=headers, follow_redirects=False).status_code == 404


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["mlp", "digits", "arrays", "adam", "inline", "spectral", "rbf", "median"])
)
KEYS = st.sampled_from(
    [
        *("objective", "encoder", "data", "training", "resources", "kind", "estimator", "kernel"),
        *("bandwidth", "scale", "out_dim", "hidden_dims", "batch_size", "epochs", "file", "seed"),
        *("metadata", "name", "retry", "optimizer", "checkpoint", "evaluation", "folder", ""),
    ]
)
TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(changes=st.dictionaries(KEYS, TREES, max_size=3), raw=st.none() | st.binary(max_size=40))
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_body_makes_the_service_fail(api, changes, raw):
    body = raw if raw is not None else json.dumps({**DIGITS, **changes}).encode()
    answer = api.post("/v1/jobs?dry_run=true", content=body, headers=JSON_TYPE)
    assert answer.status_code in (200, 400, 422)
    if answer.status_code == 422:
        assert answer.json()["errors"]


@given(text=st.text(max_size=20))
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_query_makes_the_service_fail(api, text):
    params = {"status": text, "limit": text, "cursor": text, "name": text}
    assert api.get("/v1/jobs", params=params).status_code == 422
