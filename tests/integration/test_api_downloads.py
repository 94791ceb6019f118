"""Published files over HTTP: ranges, ETags, conditions, and what happens to damaged bytes."""

import base64
import hashlib

import numpy as np
import pytest
from safetensors.numpy import save

from tests.integration.api_service import running_service, small_files

FILES = small_files()
NAME = "README.md"
CONTENT = FILES[NAME]
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"sha256-{SHA256}"'
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def api(service):
    service.client.headers.update(service.key(project="files"))
    return service.client


@pytest.fixture(scope="module")
def encoder(service):
    return service.publish(FILES, project="files")


@pytest.fixture
def url(encoder):
    return f"/v1/encoders/{encoder.id}/files/{NAME}"


def test_an_encoder_is_listed_and_read(api, encoder):
    listed = api.get("/v1/encoders").json()["data"][-1]
    read = api.get(f"/v1/encoders/{encoder.id}").json()
    assert listed == read
    assert read["job_id"] == encoder.job_id
    assert read["metadata"] == {"out_dim": 2}
    assert {f["path"]: f["sha256"] for f in read["files"]}[NAME] == SHA256
    manifest = api.get(f"/v1/encoders/{encoder.id}/manifest").json()
    assert {f["path"] for f in manifest["files"]} == set(FILES)
    assert api.get(f"/v1/encoders?job_id={encoder.job_id}").json()["data"] == [read]
    assert api.get("/v1/encoders?job_id=other").json()["data"] == []
    job = api.get(f"/v1/jobs/{encoder.job_id}").json()
    assert (job["status"], job["links"]["encoder"]) == ("succeeded", f"/v1/encoders/{encoder.id}")


def test_every_file_is_downloaded_as_it_was_published(api, encoder):
    for name, content in FILES.items():
        answer = api.get(f"/v1/encoders/{encoder.id}/files/{name}")
        digest = hashlib.sha256(content).digest()
        assert (answer.status_code, answer.content) == (200, content)
        assert answer.headers["etag"] == f'"sha256-{digest.hex()}"'
        assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(digest).decode()}:"
        assert answer.headers["content-length"] == str(len(content))
        assert answer.headers["accept-ranges"] == "bytes"
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"] == f'attachment; filename="{name}"'
        assert "immutable" in answer.headers["cache-control"]


def test_head_tells_all_but_the_bytes(api, url):
    head, get = api.head(url), api.get(url)
    assert (head.status_code, head.content) == (200, b"")
    own = {"x-request-id"}
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in get.headers.items() if k not in own
    }


@pytest.mark.parametrize(
    ("range_", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, SIZE),
        ("bytes=5-9", 5, 10),
        ("bytes=5-999999", 5, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        ("bytes=-999999", 0, SIZE),
        ("bytes=5-" + "9" * 18, 5, SIZE),
    ],
)
def test_one_range_is_honoured(api, url, range_, start, stop):
    answer = api.get(url, headers={"Range": range_})
    assert answer.content == CONTENT[start:stop]
    if (start, stop) == (0, SIZE):
        assert answer.status_code == 200
    else:
        assert answer.status_code == 206
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{SIZE}"
        assert answer.headers["content-length"] == str(stop - start)
        assert answer.headers["etag"] == ETAG


@pytest.mark.parametrize("range_", [f"bytes={SIZE}-", "bytes=999999-1000000", "bytes=-0"])
def test_a_range_past_the_end_is_refused(api, url, range_):
    answer = api.get(url, headers={"Range": range_})
    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "range_",
    [
        "bytes=9-5",
        "bytes=-",
        "bytes=x-y",
        "lines=1-2",
        "bytes=0-1,3-4",
        "bytes=" + ",".join(["0-"] * 10_000),
        "bytes=1-" + "9" * 30,
        "bytes= 1 - 2",
        "",
    ],
    ids=lambda r: r[:16],
)
def test_several_ranges_or_nonsense_mean_the_whole_file(api, url, range_):
    answer = api.get(url, headers={"Range": range_})
    assert (answer.status_code, answer.content) == (200, CONTENT)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": ETAG}, 304),
        ({"If-None-Match": f"W/{ETAG}"}, 304),
        ({"If-None-Match": f'"a", {ETAG}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"a"'}, 200),
        ({"If-None-Match": SHA256}, 200),
        ({"If-None-Match": ETAG, "Range": "bytes=0-1"}, 304),
        ({"If-Match": ETAG}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"a"'}, 412),
        ({"If-Match": f"W/{ETAG}"}, 412),
        ({"If-Match": '"a"', "If-None-Match": ETAG}, 412),
        ({"If-Range": ETAG, "Range": "bytes=0-1"}, 206),
        ({"If-Range": '"a"', "Range": "bytes=0-1"}, 200),
        ({"If-Range": f"W/{ETAG}", "Range": "bytes=0-1"}, 200),
        ({"If-Range": "Wed, 21 Oct 2026 07:28:00 GMT", "Range": "bytes=0-1"}, 200),
        ({"If-Range": '"a"', "Range": "bytes=999999-"}, 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_conditions_are_answered(api, url, headers, status, method):
    answer = api.request(method, url, headers=headers)
    assert answer.status_code == status
    if status == 304:
        assert (answer.content, answer.headers["etag"]) == (b"", ETAG)
    if status == 200 and method == "GET":
        assert answer.content == CONTENT


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "none", "..%2fREADME.md", "%2e%2e%2fREADME.md", "README.md%00", "readme.md"],
)
def test_only_names_of_the_manifest_are_files(api, encoder, name):
    answer = api.get(f"/v1/encoders/{encoder.id}/files/{name}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_another_projects_files_do_not_exist(api, service, url):
    assert api.get(url).status_code == 200
    for method in ("GET", "HEAD"):
        answer = service.client.request(method, url, headers=service.key(project="theirs"))
        assert answer.status_code == 404


def flip(path, content):
    content[100] ^= 1
    path.write_bytes(content)


def cut(path, content):
    path.write_bytes(content[:-1])


def remove(path, _content):
    path.unlink()


@pytest.mark.parametrize("change", [flip, cut, remove])
@pytest.mark.parametrize("read_before", [True, False])
def test_damaged_bytes_are_never_sent(api, service, change, read_before):
    content = f"# To be damaged {change.__name__} {read_before}".encode() * 100
    encoder = service.publish({**FILES, NAME: content}, project="files")
    url = f"/v1/encoders/{encoder.id}/files/{NAME}"
    if read_before:
        assert api.get(url).status_code == 200
    path = service.store.objects.path(hashlib.sha256(content).hexdigest())
    path.chmod(0o600)
    change(path, bytearray(content))
    for headers in ({}, {"Range": "bytes=0-1"}):
        answer = api.get(url, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "artifact_corrupt")
        assert b"# To be" not in answer.content


def test_a_large_file_survives_a_download_in_pieces(api, service):
    weights = np.random.default_rng(0).standard_normal(1_500_000).astype(np.float32)
    files = {**FILES, "encoder.safetensors": save({"encoder.w": weights})}
    encoder = service.publish(files, project="files")
    url = f"/v1/encoders/{encoder.id}/files/encoder.safetensors"
    content, received = files["encoder.safetensors"], b""
    while len(received) < len(content):
        headers = {"Range": f"bytes={len(received)}-{len(received) + 999_999}"}
        received += api.get(url, headers=headers).content
    assert hashlib.sha256(received).digest() == hashlib.sha256(content).digest()
    assert api.get(url).content == content
