import hashlib
import io
import os
import time
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from jobs import garbage
from jobs.failpoints import FailpointError
from jobs.garbage import collect, collect_objects, collect_staging
from jobs.store import submit

DAY = 86_400


def put(store, data: bytes, *, age_s: float) -> str:
    sha = hashlib.sha256(data).hexdigest()
    store.objects.put(io.BytesIO(data), sha256=sha, size_bytes=len(data))
    make_old(store.objects.path(sha), age_s)
    return sha


def make_old(path, age_s: float) -> None:
    os.utime(path, (time.time() - age_s,) * 2)


def test_an_old_object_that_nobody_refers_to_goes_by_way_of_the_trash(store):
    old, young = put(store, b"old", age_s=2 * DAY), put(store, b"young", age_s=60)
    assert collect_objects(store) == 1
    assert not store.objects.path(old).exists()
    assert store.objects.path(young).exists()
    trashed = store.storage / "trash" / old
    assert collect_objects(store) == 0
    assert trashed.read_bytes() == b"old"  # a mistake can be undone for a day
    make_old(trashed, 2 * DAY)
    assert collect_objects(store) == 0
    assert not trashed.exists()


def test_an_object_of_an_encoder_stays_however_old(bench):
    bench.succeeded()
    paths = list((bench.store.storage / "objects").glob("*/*"))
    for path in paths:
        make_old(path, 300 * DAY)
    assert collect_objects(bench.store) == 0
    assert all(path.exists() for path in paths)


def test_nothing_is_collected_while_an_attempt_may_be_publishing(bench):
    put(bench.store, b"staged, not committed", age_s=2 * DAY)
    job_id = bench.finalizing()
    assert collect_objects(bench.store) == 0
    bench.store.publish(job_id, 1, bench.stage(job_id))
    assert collect_objects(bench.store) == 1


def test_what_a_killed_put_left_is_removed(store):
    put(store, b"x", age_s=0)
    (directory,) = (store.storage / "objects").iterdir()
    temporary = directory / ".0123.tmp"
    temporary.write_bytes(b"half")
    collect_objects(store)
    assert temporary.exists()  # it may still be written
    make_old(temporary, 2 * DAY)
    collect_objects(store)
    assert not temporary.exists()


def test_files_that_are_not_ours_stay_and_hold_up_nothing(bench, monkeypatch):
    monkeypatch.setattr(garbage, "STAGING_AGE", timedelta(0))
    store, job_id = bench.store, bench.failed()
    fill(store.run_directory(job_id, 1))
    strays = [
        *(store.storage / "staging" / job / "file" for job in (job_id, "mine")),
        *(store.storage / "objects" / "ab" / name for name in ("notes.txt", "ab" * 31)),
    ]
    for path in strays:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        make_old(path, 2 * DAY)
    put(store, b"old", age_s=2 * DAY)
    (store.storage / "trash" / "folder").mkdir(parents=True)
    make_old(store.storage / "trash" / "folder", 2 * DAY)
    with capture_logs() as logs:
        assert collect_objects(store) == 1
        assert collect_staging(store) == 1
    assert all(path.exists() for path in strays)
    assert [entry["count"] for entry in logs if entry["event"] == "garbage.strays"] == [2, 2]


def test_a_collection_that_stops_half_way_goes_on_next_time(store, monkeypatch):
    for data in (b"1", b"2", b"3"):
        put(store, data, age_s=2 * DAY)
    monkeypatch.setenv("FAILPOINTS", "gc.mid=raise")
    with pytest.raises(FailpointError):
        collect_objects(store)
    monkeypatch.delenv("FAILPOINTS")
    assert collect_objects(store) == 2


def fill(run) -> None:
    for directory in (run.checkpoints / "step-00000001", run.result):
        directory.mkdir(parents=True)
        (directory / "manifest.json").write_text("{}")
    for path in (run.attempt_file, run.reports_file, run.log_file, run.exit_file):
        path.write_text("x")


def names(run) -> set[str]:
    return {p.name for p in run.root.iterdir()}


def test_a_finished_job_keeps_its_log_and_how_it_ended(bench, monkeypatch):
    job_id = bench.failed()
    run = bench.store.run_directory(job_id, 1)
    fill(run)
    assert collect_staging(bench.store) == 0  # somebody may still be looking at it
    monkeypatch.setattr(garbage, "STAGING_AGE", timedelta(0))
    assert collect_staging(bench.store) == 1
    assert names(run) == {"log.txt", "exit.json"}
    assert collect_staging(bench.store) == 0


def test_what_a_later_attempt_may_resume_from_stays(bench, monkeypatch):
    monkeypatch.setattr(garbage, "STAGING_AGE", timedelta(0))
    job_id = bench.running()
    run = bench.store.run_directory(job_id, 1)
    fill(run)
    before = names(run)
    bench.end(job_id, "driver_lost")
    assert collect_staging(bench.store) == 0
    assert names(run) == before


def test_a_directory_that_is_no_jobs_is_left_alone(bench, monkeypatch):
    monkeypatch.setattr(garbage, "STAGING_AGE", timedelta(0))
    for name in ("mine", "job_" + "0" * 32):
        directory = bench.store.storage / "staging" / name / "000001"
        directory.mkdir(parents=True)
        (directory / "file").write_text("x")
    assert collect_staging(bench.store) == 0


def test_old_idempotency_keys_are_dropped_and_new_ones_kept(bench, monkeypatch):
    first = bench.store.submit(bench.spec, project="p", actor="me", idempotency_key="k")
    collect(bench.store)
    assert bench.store.submit(bench.spec, project="p", actor="me", idempotency_key="k").replayed
    monkeypatch.setattr(submit, "KEEP_KEYS", timedelta(0))
    collect(bench.store)
    again = bench.store.submit(bench.spec, project="p", actor="me", idempotency_key="k")
    assert again.job.id != first.job.id
