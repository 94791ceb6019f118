from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from jobs.errors import StaleFenceError, StateConflictError
from jobs.failpoints import FailpointError
from jobs.states import JobState, Phase, Reason
from jobs.store import leases
from jobs.wire import Exit, ProgressReport, Report, ReportBatch

S = JobState


def metric(step: int, **values) -> Report:
    return Report(
        kind="metric",
        at=datetime.now(UTC),
        data={"step": step, **values},
        progress=ProgressReport(step=step, total_steps=9, epoch=0, epochs=1, loss=0.5),
    )


def batch(first: int, *steps: int) -> ReportBatch:
    return ReportBatch(first=first, reports=tuple(metric(step) for step in steps))


def steps_of(store, job_id) -> list[int]:
    return [e.data["step"] for e in store.events(job_id, kinds={"metric"})]


def test_a_claim_takes_the_next_fence_and_only_one_gets_it(bench):
    job_id = bench.queued()
    lease = bench.store.claim(job_id, owner="a")
    assert (lease.fence, lease.state) == (1, S.LEASED)
    assert bench.store.claim(job_id, owner="b") is None
    (attempt,) = bench.store.attempts(job_id)
    assert (attempt.fence, attempt.owner, attempt.active) == (1, "a", True)


@pytest.mark.parametrize(
    "phase", [Phase.TRAINING, Phase.EVALUATING, Phase.EXPORTING, Phase.PUBLISHING]
)
def test_the_first_heartbeat_that_trains_makes_the_job_running(bench, phase):
    job_id = bench.leased()
    bench.store.heartbeat(job_id, 1, Phase.LOADING_DATA)
    assert bench.store.job(job_id).state is S.LEASED
    bench.store.heartbeat(job_id, 1, phase)
    job = bench.store.job(job_id)
    assert (job.state, job.phase) == (S.RUNNING, phase)


def test_every_heartbeat_moves_the_counter_and_a_same_phase_changes_nothing_else(bench):
    job_id = bench.running()
    before, first = bench.store.job(job_id), bench.store.attempts(job_id)[0].hb_seq
    bench.store.heartbeat(job_id, 1, Phase.TRAINING)
    assert bench.store.attempts(job_id)[0].hb_seq == first + 1
    assert bench.store.job(job_id) == before


def test_a_replaced_attempt_is_told_so_and_changes_nothing(bench):
    job_id = bench.running()
    bench.end(job_id, Reason.DRIVER_LOST)
    with bench.store._writer_engine.begin() as connection:  # the back-off is over
        connection.exec_driver_sql("UPDATE jobs SET not_before = NULL")
    assert bench.store.claim(job_id, owner="test").fence == 2
    before, events = bench.store.job(job_id), bench.store.events(job_id)
    result = Exit(exit_code=0, reason=Reason.COMPLETED, message="")
    for write in (
        lambda: bench.store.heartbeat(job_id, 1, Phase.TRAINING),
        lambda: bench.store.ingest(job_id, 1, batch(0, 1)),
        lambda: bench.store.begin_finalize(job_id, 1),
        lambda: bench.store.publish(job_id, 1, bench.stage(job_id)),
        lambda: bench.store.end(job_id, 1, result),
        lambda: bench.store.expire(job_id, 1, 0, result),
    ):
        with pytest.raises(StaleFenceError):
            write()
    assert bench.store.job(job_id) == before
    assert bench.store.events(job_id) == events


def test_reports_are_stored_once_however_often_they_are_sent(bench):
    job_id = bench.running()
    assert bench.store.ingest(job_id, 1, batch(0, 1, 2)) == 2
    assert bench.store.ingest(job_id, 1, batch(0, 1, 2)) == 2
    assert bench.store.ingest(job_id, 1, batch(1, 2, 3)) == 3
    assert steps_of(bench.store, job_id) == [1, 2, 3]
    assert bench.store.job(job_id).progress.step == 3
    assert bench.store.report_lines(job_id, 1) == 3


def test_reports_after_a_gap_wait_until_the_gap_is_filled(bench):
    job_id = bench.running()
    assert bench.store.ingest(job_id, 1, batch(5, 6, 7)) == 0
    assert steps_of(bench.store, job_id) == []


def test_reports_count_as_a_heartbeat(bench):
    job_id = bench.running()
    before = bench.store.attempts(job_id)[0].hb_seq
    bench.store.ingest(job_id, 1, ReportBatch(first=0, reports=()))
    assert bench.store.attempts(job_id)[0].hb_seq == before + 1


def test_a_report_of_a_step_makes_a_leased_job_running(bench):
    job_id = bench.leased()
    bench.store.ingest(job_id, 1, batch(0, 1))
    assert bench.store.job(job_id).state is S.RUNNING


def test_a_number_that_is_not_finite_is_stored_as_null(bench):
    job_id = bench.running()
    report = metric(1, loss=float("nan"), nested={"worst": [float("inf"), 1.0]})
    bench.store.ingest(job_id, 1, ReportBatch(first=0, reports=(report,)))
    (event,) = bench.store.events(job_id, kinds={"metric"})
    assert event.data == {"step": 1, "loss": None, "nested": {"worst": [None, 1.0]}}


def test_where_an_attempt_resumed_is_kept(bench):
    job_id = bench.running()
    resumed = Report(kind="attempt.resumed", at=datetime.now(UTC), data={"step": 7, "fence": 1})
    bench.store.ingest(job_id, 1, ReportBatch(first=0, reports=(resumed,)))
    assert bench.store.attempts(job_id)[0].resumed_step == 7


def test_an_attempt_cannot_report_what_only_the_control_side_knows(bench):
    ids = (bench.succeeded(), bench.failed())
    own = {event.kind for job_id in ids for event in bench.store.events(job_id)}
    assert own >= {"job.created", "job.status", "attempt.ended", "encoder.published"}
    for kind in own:
        with pytest.raises(ValidationError, match="kind"):
            Report(kind=kind, at=datetime.now(UTC))


def test_event_numbers_have_no_gap_across_everything_that_happens(bench):
    job_id = bench.running()
    bench.store.ingest(job_id, 1, batch(0, 1, 2, 3))
    with pytest.raises(StateConflictError):
        bench.store.publish(job_id, 1, bench.stage(job_id))
    bench.store.begin_finalize(job_id, 1)
    bench.store.publish(job_id, 1, bench.stage(job_id))
    numbers = [event.seq for event in bench.store.events(job_id)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len({event.id for event in bench.store.events(job_id)}) == len(numbers)


def test_finalize_is_idempotent_and_needs_no_heartbeat_before(bench):
    job_id = bench.leased()
    bench.store.begin_finalize(job_id, 1)
    bench.store.begin_finalize(job_id, 1)
    assert bench.store.job(job_id).state is S.FINALIZING


def test_a_silent_attempt_is_expired_unless_it_speaks_first(bench):
    job_id = bench.running()
    (lease,) = bench.store.active()
    silent = Exit(exit_code=-1, reason=Reason.LEASE_EXPIRED, message="silent")
    bench.store.heartbeat(job_id, 1, Phase.TRAINING)
    with pytest.raises(StaleFenceError):
        bench.store.expire(job_id, 1, lease.hb_seq, silent)
    (lease,) = bench.store.active()
    assert bench.store.expire(job_id, 1, lease.hb_seq, silent) is S.QUEUED


def test_a_requeued_job_waits_out_its_back_off(bench):
    job_id = bench.running()
    bench.end(job_id, Reason.WORKER_LOST)
    assert bench.store.claimable() == []
    assert bench.store.claim(job_id, owner="test") is None
    job = bench.store.job(job_id)
    assert (job.state, job.reason, job.attempts) == (S.QUEUED, Reason.WORKER_LOST, 1)


def test_a_clock_set_back_does_not_hold_a_job_for_ever(bench, monkeypatch):
    job_id = bench.running()
    bench.end(job_id, Reason.WORKER_LOST)
    monkeypatch.setattr(leases, "now", lambda: datetime(2020, 1, 1, tzinfo=UTC))
    assert bench.store.claim(job_id, owner="test").fence == 2


def test_the_queue_is_in_the_order_of_submission(bench):
    ids = [bench.queued() for _ in range(5)]
    assert [lease.job_id for lease in bench.store.claimable()] == ids


def test_a_job_fails_when_its_attempts_are_used_up(bench):
    job_id = bench.queued()
    for fence in (1, 2, 3):
        with bench.store._writer_engine.begin() as connection:
            connection.exec_driver_sql("UPDATE jobs SET not_before = NULL")
        assert bench.store.claim(job_id, owner="test").fence == fence
        bench.end(job_id, Reason.DRIVER_LOST, fence=fence)
    job = bench.store.job(job_id)
    assert (job.state, job.reason) == (S.FAILED, Reason.RETRIES_EXHAUSTED)
    assert "driver_lost" in job.message
    assert [a.reason for a in bench.store.attempts(job_id)] == [Reason.DRIVER_LOST] * 3


@pytest.mark.parametrize(
    ("point", "write", "happened"),
    [
        ("claim.before_commit", "claim", False),
        ("running.before_commit", "run", False),
        ("heartbeat.before_commit", "run", False),
        ("heartbeat.after_commit", "run", True),
        ("ingest.before_commit", "ingest", False),
        ("finalize.before_commit", "finalize", False),
        ("finalize.after_commit", "finalize", True),
        ("end.before_commit", "end", False),
        ("reap.before_commit", "expire", False),
        ("reap.after_commit", "expire", True),
    ],
)
def test_a_write_that_fails_before_its_commit_did_not_happen(
    bench, monkeypatch, point, write, happened
):
    job_id = bench.queued() if write == "claim" else bench.leased()
    hb_seq = bench.store.active()[0].hb_seq if write == "expire" else 0
    result = Exit(exit_code=-1, reason=Reason.LEASE_EXPIRED, message="silent")
    writes = {
        "claim": lambda: bench.store.claim(job_id, owner="test"),
        "run": lambda: bench.store.heartbeat(job_id, 1, Phase.TRAINING),
        "ingest": lambda: bench.store.ingest(job_id, 1, batch(0, 1)),
        "finalize": lambda: bench.store.begin_finalize(job_id, 1),
        "end": lambda: bench.end(job_id, Reason.DRIVER_LOST),
        "expire": lambda: bench.store.expire(job_id, 1, hb_seq, result),
    }
    before = (bench.store.job(job_id), bench.store.events(job_id), bench.store.attempts(job_id))
    monkeypatch.setenv("FAILPOINTS", f"{point}=raise")
    with pytest.raises(FailpointError):
        writes[write]()
    after = (bench.store.job(job_id), bench.store.events(job_id), bench.store.attempts(job_id))
    assert (after != before) == happened
