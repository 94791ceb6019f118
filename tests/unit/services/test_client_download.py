"""Downloads over connections that are cut, and from services that send the wrong bytes."""

import hashlib
import itertools
import json
import random

import httpx2
import pytest

from services.client import ApiError, Client, DigestMismatchError, DownloadError


class FakeClock:
    """Time that passes only when somebody sleeps."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds


class Cut(httpx2.SyncByteStream):
    """Some bytes, then a reset."""

    def __init__(self, content):
        self.content = content

    def __iter__(self):
        yield self.content
        raise httpx2.ReadError("connection reset")


class FileService:
    """One encoder with one file. `cuts`: after how many bytes each connection breaks."""

    def __init__(self, content, cuts=(), digest=None, name="encoder.safetensors"):
        self.content, self.cuts, self.name = content, iter(cuts), name
        self.digest = digest or hashlib.sha256(content).hexdigest()
        self.etag = f'"sha256-{self.digest}"'
        self.requests = []

    def __call__(self, request):
        if request.url.path.endswith("/manifest"):
            entry = {"path": self.name, "size_bytes": len(self.content), "sha256": self.digest}
            return httpx2.Response(200, json={"format_version": 1, "files": [entry]})
        self.requests.append(request)
        start = self.start_for(request)
        if start is None:
            return httpx2.Response(416, json={"code": "range_not_satisfiable"})
        body, cut = self.content[start:], next(self.cuts, None)
        headers = {"etag": self.etag}
        if start:
            end = len(self.content) - 1
            headers["content-range"] = f"bytes {start}-{end}/{len(self.content)}"
        stream = httpx2.ByteStream(body) if cut is None else Cut(body[:cut])
        return httpx2.Response(206 if start else 200, headers=headers, stream=stream)

    def start_for(self, request):
        wanted = request.headers.get("range")
        if wanted is None or request.headers.get("if-range") != self.etag:
            return 0
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        return start if start < len(self.content) else None


def client_for(service):
    return Client(
        "http://service", "key", clock=FakeClock(), transport=httpx2.MockTransport(service)
    )


CONTENT = random.Random(0).randbytes(10_000)


def test_a_file_is_fetched_and_verified_and_nothing_else_is_left(tmp_path):
    directory = client_for(FileService(CONTENT)).download("enc_1", tmp_path / "new")
    assert [p.name for p in directory.iterdir()] == ["encoder.safetensors"]
    assert (directory / "encoder.safetensors").read_bytes() == CONTENT


def test_an_empty_file_is_a_file(tmp_path):
    client_for(FileService(b"")).download("enc_1", tmp_path)
    assert (tmp_path / "encoder.safetensors").read_bytes() == b""


def test_twenty_cuts_cost_no_byte_twice(tmp_path):
    cuts = [random.Random(1).randrange(1, 400) for _ in range(20)]
    service = FileService(CONTENT, cuts)
    client_for(service).download("enc_1", tmp_path)
    assert (tmp_path / "encoder.safetensors").read_bytes() == CONTENT
    starts = [int(r.headers.get("range", "bytes=0-")[6:-1]) for r in service.requests]
    assert starts == list(itertools.accumulate([0, *cuts]))


def test_a_later_call_goes_on_where_an_earlier_one_was_cut(tmp_path):
    with pytest.raises(httpx2.ReadError):
        interrupted_download(FileService(CONTENT, [6000]), tmp_path)
    assert (tmp_path / "encoder.safetensors.partial").stat().st_size == 6000
    assert not (tmp_path / "encoder.safetensors").exists()
    service = FileService(CONTENT)
    client_for(service).download("enc_1", tmp_path)
    assert service.requests[0].headers["range"] == "bytes=6000-"
    assert (tmp_path / "encoder.safetensors").read_bytes() == CONTENT


def interrupted_download(service, directory):
    """A download whose process gives up at the first cut."""

    class Impatient(FakeClock):
        def sleep(self, seconds):
            raise httpx2.ReadError("gave up")

    Client(
        "http://service", "key", clock=Impatient(), transport=httpx2.MockTransport(service)
    ).download("enc_1", directory)


def test_a_partial_file_of_other_content_is_not_continued(tmp_path):
    with pytest.raises(httpx2.ReadError):
        interrupted_download(FileService(b"x" * len(CONTENT), [6000]), tmp_path)
    client_for(FileService(CONTENT)).download("enc_1", tmp_path)
    assert (tmp_path / "encoder.safetensors").read_bytes() == CONTENT


def test_a_partial_file_that_nobody_can_place_is_fetched_anew(tmp_path):
    (tmp_path / "encoder.safetensors.partial").write_bytes(b"?" * 500)
    service = FileService(CONTENT)
    client_for(service).download("enc_1", tmp_path)
    assert "range" not in service.requests[0].headers
    assert (tmp_path / "encoder.safetensors").read_bytes() == CONTENT


def test_a_partial_file_longer_than_the_file_is_fetched_anew(tmp_path):
    (tmp_path / "encoder.safetensors.partial").write_bytes(b"?" * 20_000)
    sidecar = {"etag": FileService(CONTENT).etag, "size": len(CONTENT)}
    (tmp_path / "encoder.safetensors.partial.json").write_text(json.dumps(sidecar))
    client_for(FileService(CONTENT)).download("enc_1", tmp_path)
    assert (tmp_path / "encoder.safetensors").read_bytes() == CONTENT


def test_a_service_that_ignores_ranges_costs_time_and_nothing_else(tmp_path):
    service = FileService(CONTENT, [3000])
    service.start_for = lambda request: 0
    client_for(service).download("enc_1", tmp_path)
    assert (tmp_path / "encoder.safetensors").read_bytes() == CONTENT


def test_a_service_that_always_cuts_at_the_same_byte_is_given_up(tmp_path):
    service = FileService(CONTENT, itertools.repeat(3000))
    service.start_for = lambda request: 0
    with pytest.raises(Exception, match="no answer"):
        client_for(service).download("enc_1", tmp_path)


def test_wrong_bytes_are_named_and_removed(tmp_path):
    expected = hashlib.sha256(b"right").hexdigest()
    with pytest.raises(DigestMismatchError) as caught:
        client_for(FileService(CONTENT, digest=expected)).download("enc_1", tmp_path)
    text = str(caught.value)
    assert "encoder.safetensors" in text
    assert expected in text
    assert hashlib.sha256(CONTENT).hexdigest() in text
    assert list(tmp_path.iterdir()) == []


def test_more_bytes_than_the_manifest_names_are_not_swallowed(tmp_path):
    service = FileService(CONTENT)
    service.content = CONTENT + b"more"
    answer = service.__call__

    def lying(request):
        response = answer(request)
        if not request.url.path.endswith("/manifest"):
            return response
        entry = response.json()["files"][0]
        return httpx2.Response(200, json={"files": [{**entry, "size_bytes": len(CONTENT)}]})

    with pytest.raises(DigestMismatchError):
        client_for(lying).download("enc_1", tmp_path)


def test_a_verified_file_is_not_fetched_again(tmp_path):
    service = FileService(CONTENT)
    client_for(service).download("enc_1", tmp_path)
    client_for(service).download("enc_1", tmp_path)
    assert len(service.requests) == 1


def test_a_file_that_was_changed_on_disk_is_fetched_again(tmp_path):
    service = FileService(CONTENT)
    client_for(service).download("enc_1", tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(CONTENT[:-1] + b"?")
    client_for(service).download("enc_1", tmp_path)
    assert (tmp_path / "encoder.safetensors").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "name", ["../up", "/etc/x", "a/b", "..", "", ".hidden", "a\x00b", "x" * 200]
)
def test_a_name_that_could_leave_the_directory_is_refused(tmp_path, name):
    with pytest.raises(DownloadError, match="cannot be trusted"):
        client_for(FileService(CONTENT, name=name)).download("enc_1", tmp_path / "inner")
    assert not (tmp_path / "up").exists()


def test_a_file_that_is_not_there_is_named_with_those_that_are(tmp_path):
    with pytest.raises(DownloadError, match=r"no file 'x'; there are: encoder\.safetensors"):
        client_for(FileService(CONTENT)).download("enc_1", tmp_path, files=["x"])


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="file"):
        client_for(FileService(CONTENT)).download("enc_1", tmp_path / "file" / "inner")


def test_progress_counts_up_to_the_size(tmp_path):
    seen = []
    client_for(FileService(CONTENT, [4000])).download(
        "enc_1", tmp_path, progress=lambda *news: seen.append(news)
    )
    assert seen[-1] == ("encoder.safetensors", 10_000, 10_000)
    assert [here for _, here, _ in seen] == sorted(here for _, here, _ in seen)


def test_a_corrupt_file_at_the_service_is_reported_not_retried_for_ever(tmp_path):
    service = FileService(CONTENT)

    def corrupt(request):
        if request.url.path.endswith("/manifest"):
            return service(request)
        return httpx2.Response(410, json={"code": "artifact_corrupt", "title": "Damaged"})

    with pytest.raises(ApiError, match="artifact_corrupt"):
        client_for(corrupt).download("enc_1", tmp_path)
