import os
import struct

import pytest

from jobs.errors import ArtifactInvalidError, StaleFenceError, StateConflictError
from jobs.failpoints import FailpointError
from jobs.states import JobState, Reason
from jobs.wire import ManifestFile

NO_HASH = "0" * 64


def kept(store) -> set[str]:
    return {p.name for p in (store.storage / "objects").rglob("*") if p.is_file()}


def publish(bench, job_id, manifest=None):
    return bench.store.publish(job_id, 1, manifest or bench.stage(job_id))


def test_a_published_encoder_has_every_file_as_an_object(bench, result_files):
    job_id = bench.finalizing()
    manifest = bench.stage(job_id)
    encoder = publish(bench, job_id, manifest)
    assert encoder.manifest == manifest.model_dump(mode="json")
    assert encoder.evaluation == {"knn@1": {"trained": 0.9}}
    for entry in manifest.files:
        file, size = bench.store.objects.open_object(entry.sha256)
        with file:
            assert file.read() == result_files[entry.path]
        assert size == entry.size_bytes
        assert bench.store.is_referenced(entry.sha256)
    job = bench.store.job(job_id)
    assert (job.state, job.encoder_id, job.reason) == (
        JobState.SUCCEEDED,
        encoder.id,
        Reason.COMPLETED,
    )
    assert [a.active for a in bench.store.attempts(job_id)] == [False]


def test_publishing_again_gives_the_same_encoder(bench):
    job_id = bench.finalizing()
    first = publish(bench, job_id)
    assert publish(bench, job_id) == first
    assert len(bench.store.encoders(project="p").items) == 1


def test_what_the_worker_changes_afterwards_changes_nothing(bench, result_files):
    job_id = bench.finalizing()
    encoder = publish(bench, job_id)
    (bench.store.run_directory(job_id, 1).result / "config.json").write_bytes(b"changed")
    file, _ = bench.store.objects.open_object(encoder.manifest["files"][0]["sha256"])
    with file:
        assert file.read() == result_files["config.json"]


def test_nothing_is_published_before_finalizing(bench):
    job_id = bench.running()
    with pytest.raises(StateConflictError, match="finalise"):
        publish(bench, job_id)
    assert kept(bench.store) == set()


def test_a_replaced_attempt_publishes_nothing(bench):
    job_id = bench.finalizing()
    manifest = bench.stage(job_id)
    bench.end(job_id, Reason.LEASE_EXPIRED)
    with pytest.raises(StaleFenceError):
        publish(bench, job_id, manifest)
    assert bench.store.encoders(project="p").items == ()


def replaced(manifest, name, **changes):
    files = [f.model_copy(update=changes) if f.path == name else f for f in manifest.files]
    return manifest.model_copy(update={"files": tuple(files)})


def plant(result, name, kind):
    """Put something else in the place of a staged file, as a hostile worker might."""
    path, content = result / name, (result / name).read_bytes()
    path.unlink()
    if kind == "symlink":
        (result / "elsewhere").write_bytes(content)
        path.symlink_to(result / "elsewhere")
    elif kind == "hardlink":
        (result / "elsewhere").write_bytes(content)
        path.hardlink_to(result / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "longer":
        path.write_bytes(content + b" ")
    elif kind == "truncated":
        path.write_bytes(content[:-1])
    elif kind == "changed":
        path.write_bytes(content[:-1] + b"~")


KINDS = ["missing", "symlink", "hardlink", "fifo", "directory", "longer", "truncated", "changed"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in ("config.json", "encoder.safetensors", "manifest.json")
        for kind in KINDS
        if (name, kind) != ("manifest.json", "longer")  # a space after JSON changes nothing
    ],
)
def test_a_file_that_is_not_what_was_staged_is_refused(bench, name, kind):
    job_id = bench.finalizing()
    manifest = bench.stage(job_id)
    plant(bench.store.run_directory(job_id, 1).result, name, kind)
    with pytest.raises(ArtifactInvalidError):
        publish(bench, job_id, manifest)
    assert bench.store.job(job_id).state is JobState.FINALIZING
    assert bench.store.encoders(project="p").items == ()


def test_a_result_directory_that_is_a_link_is_refused(bench):
    job_id = bench.finalizing()
    manifest = bench.stage(job_id)
    result = bench.store.run_directory(job_id, 1).result
    result.rename(result.with_name("elsewhere"))
    result.symlink_to(result.with_name("elsewhere"))
    with pytest.raises(ArtifactInvalidError, match="no staged result"):
        publish(bench, job_id, manifest)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: replaced(m, "config.json", sha256=NO_HASH),
        lambda m: replaced(m, "config.json", size_bytes=3),
        lambda m: m.model_copy(update={"files": (*m.files, m.files[0])}),
        lambda m: m.model_copy(update={"files": m.files[:1]}),
        lambda m: m.model_copy(update={"files": m.files[1:]}),
        lambda m: replaced(m, "config.json", path="manifest.json"),
        lambda m: replaced(m, "config.json", path="../config.json"),
        lambda m: m.model_copy(update={"metadata": {"out_dim": 3}}),
        lambda m: replaced(m, "config.json", size_bytes=9 << 30),
    ],
)
def test_a_manifest_that_is_not_the_staged_one_is_refused(bench, spoil):
    job_id = bench.finalizing()
    manifest = spoil(bench.stage(job_id))
    with pytest.raises(ArtifactInvalidError):
        publish(bench, job_id, manifest)
    assert kept(bench.store) == set()


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/b", ".hidden", "a\0b", "", "x" * 101, "..", "a\n", "ａ.json"]
)
def test_a_manifest_cannot_name_a_path(path):
    with pytest.raises(ValueError, match="path"):
        ManifestFile(path=path, size_bytes=0, sha256=NO_HASH)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"not json"),
        ("config.json", b'{"a": NaN}'),
        ("config.json", b'{"a": 1, "a": 2}'),
        ("config.json", b'{"a": "' + b"x" * (1 << 20) + b'"}'),
        ("encoder.safetensors", b"\x80\x04 a pickle"),
    ],
)
def test_staged_content_is_checked(bench, result_files, name, content):
    job_id = bench.finalizing()
    manifest = bench.stage(job_id, files=result_files | {name: content})
    with pytest.raises(ArtifactInvalidError):
        publish(bench, job_id, manifest)


def test_weights_that_are_not_finite_are_never_published(bench, result_files, make_safetensors):
    weights = make_safetensors({"w": ("F32", [2], struct.pack("<2f", 1.0, float("nan")))})
    job_id = bench.finalizing()
    manifest = bench.stage(job_id, files=result_files | {"encoder.safetensors": weights})
    with pytest.raises(ArtifactInvalidError, match="NaN"):
        publish(bench, job_id, manifest)
    assert manifest.files[1].sha256 not in kept(bench.store)


@pytest.mark.parametrize(
    ("point", "succeeded"),
    [
        ("publish.before_link", False),
        ("publish.after_link_before_commit", False),
        ("publish.after_commit_before_ack", True),
    ],
)
def test_a_publish_that_stops_anywhere_can_be_asked_for_again(bench, monkeypatch, point, succeeded):
    job_id = bench.finalizing()
    monkeypatch.setenv("FAILPOINTS", f"{point}=raise")
    with pytest.raises(FailpointError):
        publish(bench, job_id)
    monkeypatch.delenv("FAILPOINTS")
    assert (bench.store.job(job_id).state is JobState.SUCCEEDED) == succeeded
    assert bench.store.encoders(project="p").items == () or succeeded
    encoder = publish(bench, job_id)
    assert bench.store.job(job_id).encoder_id == encoder.id
    assert len(bench.store.encoders(project="p").items) == 1
