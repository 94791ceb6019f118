import itertools
from datetime import UTC, datetime, timedelta

import pytest

from jobs.errors import NotFoundError, SpecInvalidError
from jobs.records import EventRecord
from jobs.states import DesiredState
from jobs.store import metrics
from jobs.store.metrics import thin, without_repeats
from jobs.wire import Report, ReportBatch

NOBODY = "job_" + "0" * 32


def test_pages_hold_every_job_once_newest_first(bench):
    ids = [bench.queued() for _ in range(7)]
    seen, cursor = [], None
    while True:
        page = bench.store.jobs(project="p", limit=3, cursor=cursor)
        seen += [job.id for job in page.items]
        bench.queued()  # what comes while one turns pages does not shift them
        if (cursor := page.next_cursor) is None:
            break
    assert seen == ids[::-1]


def test_a_page_that_ends_exactly_at_the_end_is_the_last(bench):
    bench.queued(), bench.queued()
    assert bench.store.jobs(project="p", limit=2).next_cursor is None


def test_jobs_are_found_by_the_words_of_the_api(bench):
    queued, running, cancelling = bench.queued(), bench.running(), bench.running()
    finalizing, succeeded = bench.finalizing(), bench.succeeded()
    bench.store.request(cancelling, DesiredState.CANCELLED, project="p", actor="me")

    def found(**filters):
        return {job.id for job in bench.store.jobs(project="p", **filters).items}

    assert found(status="queued") == {queued}
    assert found(status="running") == {running, finalizing}
    assert found(status="cancelling") == {cancelling}
    assert found(status="succeeded") == {succeeded}
    assert found(status="pausing") == set()
    assert found(name="tiny", objective="mige_infomax") == found()
    assert found(name="other") == set()
    counts = bench.store.counts()
    assert counts["running"] == 2
    assert sum(counts.values()) == 5


@pytest.mark.parametrize(
    ("arguments", "pointer"),
    [
        ({"status": "exploded"}, "/status"),
        ({"cursor": "job_1' OR 1=1--"}, "/cursor"),
        ({"cursor": "enc_" + "0" * 32}, "/cursor"),
        ({"limit": 0}, "/limit"),
        ({"limit": 10**9}, "/limit"),
    ],
)
def test_a_bad_filter_is_named(store, arguments, pointer):
    with pytest.raises(SpecInvalidError) as error:
        store.jobs(project="p", **arguments)
    assert error.value.pointer == pointer


def test_another_projects_jobs_are_not_listed_even_by_their_cursor(bench):
    mine = bench.queued()
    theirs = bench.store.submit(bench.spec, project="q", actor="you").job.id
    assert [job.id for job in bench.store.jobs(project="p").items] == [mine]
    assert bench.store.jobs(project="p", cursor=theirs).items == ()


def test_reading_what_does_not_exist_says_so(store):
    for read in (store.job, store.attempts, store.events, store.metrics):
        with pytest.raises(NotFoundError):
            read(NOBODY)
    with pytest.raises(NotFoundError):
        store.encoder("enc_" + "0" * 32)


def test_events_are_read_from_where_one_stopped(bench):
    job_id = bench.running()
    events = bench.store.events(job_id)
    assert [e.seq for e in bench.store.events(job_id, after=2)] == [e.seq for e in events[2:]]
    assert bench.store.events(job_id, after=0, limit=1) == events[:1]
    assert bench.store.events(job_id, kinds={"attempt.started"})[0].kind == "attempt.started"
    assert bench.store.events(job_id, after=99) == []


def test_the_age_of_the_queue_is_that_of_its_oldest_job(bench):
    assert bench.store.oldest_queued_age_s() is None
    bench.queued()
    assert 0 <= bench.store.oldest_queued_age_s() < 60


def test_an_encoder_is_listed_for_its_project_only(bench):
    job_id = bench.succeeded()
    (encoder,) = bench.store.encoders(project="p").items
    assert encoder == bench.store.encoder(encoder.id, project="p")
    assert (encoder.job_id, encoder.name) == (job_id, "tiny")
    assert encoder.evaluation == {"knn@1": {"trained": 0.9}}
    assert bench.store.encoders(project="p", job_id=job_id).items == (encoder,)
    assert bench.store.encoders(project="q").items == ()
    with pytest.raises(NotFoundError):
        bench.store.encoder(encoder.id, project="q")


def test_pages_of_encoders_hold_each_once(bench):
    ids = {bench.store.job(bench.succeeded()).encoder_id for _ in range(3)}
    first = bench.store.encoders(project="p", limit=2)
    second = bench.store.encoders(project="p", limit=2, cursor=first.next_cursor)
    assert {e.id for e in (*first.items, *second.items)} == ids
    assert second.next_cursor is None


def point(step: int, fence: int) -> EventRecord:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=step)
    return EventRecord(
        id="e", job_id="j", seq=1, fence=fence, kind="metric", at=at, data={"step": step}
    )


def test_steps_done_again_are_those_of_the_later_attempt():
    first = [point(step, 1) for step in (10, 20, 30, 40)]
    second = [point(step, 2) for step in (25, 35)]  # resumed from step 20
    kept = without_repeats([*first, *second])
    assert [(p.data["step"], p.fence) for p in kept] == [(10, 1), (20, 1), (25, 2), (35, 2)]


def test_thinning_keeps_both_ends():
    points = [point(step, 1) for step in range(100)]
    kept = [p.data["step"] for p in thin(points, 4)]
    assert kept == [0, 33, 66, 99]
    assert thin(points, 100) == points


def test_metrics_keep_only_the_asked_values_and_the_step(bench):
    job_id = bench.running()
    data = {"step": 1, "epoch": 0, "loss": 0.5, "embedding_std": 2.0}
    report = Report(kind="metric", at=datetime.now(UTC), data=data)
    bench.store.ingest(job_id, 1, ReportBatch(first=0, reports=(report,)))
    (kept,) = bench.store.metrics(job_id, keys={"loss"})
    assert kept.data == {"step": 1, "epoch": 0, "loss": 0.5}
    assert bench.store.metrics(job_id)[0].data == data


def test_a_long_curve_is_read_in_part_with_its_end(bench, monkeypatch):
    monkeypatch.setattr(metrics, "MOST_LOADED", 30)
    job_id = bench.running()
    at = datetime.now(UTC)
    reports = tuple(Report(kind="metric", at=at, data={"step": i}) for i in range(300))
    bench.store.ingest(job_id, 1, ReportBatch(first=0, reports=reports))
    steps = [p.data["step"] for p in bench.store.metrics(job_id)]
    assert 20 <= len(steps) <= 60
    assert steps == sorted(steps)
    assert steps[-1] == 299
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 15
