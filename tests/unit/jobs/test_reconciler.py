import threading
import time

import pytest

from jobs.errors import (
    StaleFenceError,
    StorageFullError,
    StorageUnavailableError,
    WorkersLostError,
)
from jobs.executors.base import Executor, Observation
from jobs.failpoints import FailpointError
from jobs.lease_watch import LeaseTimes
from jobs.reconciler import Reconciler, ReconcilerSettings
from jobs.reporters import ReportWriter, new_report
from jobs.spec import ResourcesSpec, RetrySpec
from jobs.states import DesiredState, JobState, Phase, Reason
from jobs.wire import Exit

S, D = JobState, DesiredState
SETTINGS = ReconcilerSettings(
    api_url="http://127.0.0.1:1", data_root="/data", num_cpus=2, times=LeaseTimes(ttl_s=15)
)


class FakeExecutor:
    """Runs nothing: remembers what it was told, and says what a test wants it to have seen."""

    def __init__(self) -> None:
        self.launches = {}
        self.seen = {}
        self.calls = []
        self.refuse = None

    def ensure(self, launch):
        self.calls.append(("ensure", launch.fence))
        if self.refuse is not None:
            raise self.refuse
        self.launches[launch.job_id, launch.fence] = launch
        self.seen.setdefault((launch.job_id, launch.fence), Observation("running"))

    def observe(self, job_id, fence):
        return self.seen.get((job_id, fence), Observation("absent"))

    def stop(self, job_id, fence, *, grace_s):
        self.calls.append(("stop", fence))
        if (job_id, fence) in self.seen:
            self.seen[job_id, fence] = Observation("exited")

    def exits(self, job_id, fence, reason=None, exit_code=30):
        ended = reason and Exit(exit_code=exit_code, reason=reason, message="because")
        self.seen[job_id, fence] = Observation("exited", ended)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def executor():
    return FakeExecutor()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def reconciler(store, executor, clock):
    return Reconciler(store, executor, SETTINGS, clock=clock)


def due(store) -> None:
    """Let every back-off be over."""
    with store._writer_engine.begin() as connection:
        connection.exec_driver_sql("UPDATE jobs SET not_before = NULL")


def started(bench, reconciler, **changes) -> str:
    job_id = bench.queued(**changes)
    reconciler.step()
    assert bench.store.job(job_id).state is S.LEASED
    return job_id


def test_the_fake_is_an_executor():
    assert isinstance(FakeExecutor(), Executor)


def test_a_queued_job_is_claimed_and_launched_with_all_it_needs(bench, reconciler, executor, store):
    job_id = started(bench, reconciler)
    launch = executor.launches[job_id, 1]
    assert launch.spec == bench.spec.resolved()
    assert launch.storage == str(store.storage)
    assert (launch.api_url, launch.data_root) == ("http://127.0.0.1:1", "/data")
    assert store.verify_attempt_token(launch.token) == (job_id, 1)
    assert launch.unacknowledged_limit_s == 600
    reconciler.step()
    assert executor.calls == [("ensure", 1)]  # a running one is left alone


def test_jobs_start_in_order_and_wait_for_room(bench, reconciler, executor, store):
    first, large, small = (
        bench.queued(),
        bench.queued(resources=ResourcesSpec(num_workers=2)),
        bench.queued(),
    )
    reconciler.step()
    assert [store.job(j).state for j in (first, large, small)] == [S.LEASED, S.QUEUED, S.QUEUED]
    executor.exits(first, 1, Reason.NAN_LOSS, 20)
    reconciler.step()
    assert [store.job(j).state for j in (first, large, small)] == [S.FAILED, S.LEASED, S.QUEUED]


def test_as_many_jobs_run_as_there_are_processors(bench, reconciler, executor, store):
    ids = [bench.queued() for _ in range(4)]
    reconciler.step()
    assert [store.job(j).state for j in ids] == [S.LEASED, S.LEASED, S.QUEUED, S.QUEUED]


def test_a_job_larger_than_the_host_runs_alone(bench, reconciler, store):
    job_id = started(bench, reconciler, resources=ResourcesSpec(num_workers=64))
    other = bench.queued()
    reconciler.step()
    assert (store.job(job_id).state, store.job(other).state) == (S.LEASED, S.QUEUED)


def test_a_job_that_backs_off_does_not_hold_up_the_others(bench, reconciler, executor, store):
    first = started(bench, reconciler)
    executor.exits(first, 1)
    reconciler.step()
    assert store.job(first).state is S.QUEUED
    second = bench.queued()
    reconciler.step()
    assert (store.job(first).state, store.job(second).state) == (S.QUEUED, S.LEASED)


def test_a_silent_attempt_is_expired_and_stopped_before_the_next_one_starts(
    bench, reconciler, executor, store, clock
):
    job_id = started(bench, reconciler)
    store.heartbeat(job_id, 1, Phase.TRAINING)
    reconciler.step()
    clock.now += 14
    reconciler.step()
    assert store.job(job_id).state is S.RUNNING
    clock.now += 1
    reconciler.step()
    job = store.job(job_id)
    assert (job.state, job.reason) == (S.QUEUED, Reason.LEASE_EXPIRED)
    due(store)
    reconciler.step()
    assert store.job(job_id).fence == 2
    assert executor.calls == [("ensure", 1), ("stop", 1), ("stop", 1), ("ensure", 2)]


def test_a_new_reconciler_grants_a_whole_lease(bench, reconciler, executor, store, clock):
    job_id = started(bench, reconciler)
    store.heartbeat(job_id, 1, Phase.TRAINING)
    clock.now += 10_000
    again = Reconciler(store, executor, SETTINGS, clock=clock)
    again.step()
    clock.now += 14
    again.step()
    assert store.job(job_id).state is S.RUNNING
    assert executor.calls == [("ensure", 1)]


def test_what_a_runner_said_before_it_ended_is_stored(bench, reconciler, executor, store):
    job_id = started(bench, reconciler)
    run = store.run_directory(job_id, 1)
    run.root.mkdir(parents=True)
    writer = ReportWriter(run.reports_file)
    for step in range(3):
        writer.append(new_report("metric", {"step": step}))
    executor.exits(job_id, 1, Reason.NAN_LOSS, 20)
    reconciler.step()
    job = store.job(job_id)
    assert (job.state, job.reason, job.message) == (S.FAILED, Reason.NAN_LOSS, "because")
    steps = [e.data["step"] for e in store.events(job_id, kinds={"metric"})]
    assert steps == [0, 1, 2]
    assert store.events(job_id)[-1].data["status"] == "failed"


def test_a_runner_that_was_killed_is_tried_again_soon(bench, reconciler, executor, store):
    job_id = started(bench, reconciler)
    executor.exits(job_id, 1)
    reconciler.step()
    job = store.job(job_id)
    assert (job.state, job.reason) == (S.QUEUED, Reason.DRIVER_LOST)
    (ended,) = store.events(job_id, kinds={"attempt.ended"})
    assert ended.data["retry_in_s"] == 2


def test_a_runner_that_says_it_is_done_but_published_nothing_did_not_succeed(
    bench, reconciler, executor, store
):
    job_id = started(bench, reconciler)
    executor.exits(job_id, 1, Reason.COMPLETED, 0)
    reconciler.step()
    assert store.job(job_id).state is S.QUEUED


def test_an_attempt_that_was_ended_by_its_runner_is_not_ended_twice(
    bench, reconciler, executor, store
):
    job_id = started(bench, reconciler)
    leases = store.active()
    bench.end(job_id, Reason.NAN_LOSS)
    executor.exits(job_id, 1, Reason.NAN_LOSS, 20)
    before = store.events(job_id)
    store.active = lambda: leases  # it looked a moment before
    reconciler.step()
    assert store.events(job_id) == before


@pytest.mark.parametrize(
    ("desired", "grace_s", "state"), [(D.CANCELLED, 20, S.CANCELLED), (D.PAUSED, 120, S.PAUSED)]
)
def test_a_runner_that_does_not_obey_is_stopped(
    bench, reconciler, executor, store, clock, desired, grace_s, state
):
    job_id = started(bench, reconciler)
    store.request(job_id, desired, project="p", actor="me")
    reconciler.step()
    assert executor.calls == [("ensure", 1)]
    for _ in range(grace_s):
        clock.now += 1
        store.heartbeat(job_id, 1, Phase.TRAINING)
        reconciler.step()
    assert ("stop", 1) in executor.calls
    reconciler.step()
    assert store.job(job_id).state is state


def test_a_cancelled_attempt_that_ends_is_cancelled_at_once(bench, reconciler, executor, store):
    job_id = started(bench, reconciler)
    store.request(job_id, D.CANCELLED, project="p", actor="me")
    executor.exits(job_id, 1, Reason.USER_CANCELLED, 11)
    reconciler.step()
    assert store.job(job_id).state is S.CANCELLED


def test_a_paused_job_resumes_as_the_next_attempt(bench, reconciler, executor, store):
    job_id = started(bench, reconciler)
    store.request(job_id, D.PAUSED, project="p", actor="me")
    executor.exits(job_id, 1, Reason.USER_PAUSED, 10)
    reconciler.step()
    assert store.job(job_id).state is S.PAUSED
    reconciler.step()
    assert store.job(job_id).state is S.PAUSED
    store.request(job_id, D.RUNNING, project="p", actor="me")
    reconciler.step()
    assert (store.job(job_id).state, store.job(job_id).fence) == (S.LEASED, 2)


def test_an_attempt_over_its_time_fails_the_job(bench, reconciler, executor, store, clock):
    job_id = started(bench, reconciler, retry=RetrySpec(max_runtime_s=100))
    reconciler.step()
    for _ in range(100):
        clock.now += 1
        store.heartbeat(job_id, 1, Phase.TRAINING)
        reconciler.step()
    job = store.job(job_id)
    assert (job.state, job.reason) == (S.FAILED, Reason.MAX_RUNTIME_EXCEEDED)
    assert ("stop", 1) in executor.calls


def test_a_runner_cannot_turn_its_end_by_time_into_another_attempt(
    bench, reconciler, executor, store, clock
):
    job_id = started(bench, reconciler, retry=RetrySpec(max_runtime_s=1))
    stop = executor.stop

    def says_so_when_stopped(job_id, fence, *, grace_s):
        with pytest.raises(StaleFenceError):
            bench.end(job_id, Reason.DRIVER_LOST, exit_code=30)
        stop(job_id, fence, grace_s=grace_s)

    executor.stop = says_so_when_stopped
    reconciler.step()
    clock.now += 1
    reconciler.step()
    assert store.job(job_id).reason is Reason.MAX_RUNTIME_EXCEEDED


def test_a_runner_that_does_not_leave_after_its_attempt_ended_is_stopped(
    bench, reconciler, executor, store, clock
):
    job_id = started(bench, reconciler)
    bench.end(job_id, Reason.NAN_LOSS)
    reconciler.step()
    clock.now += 29
    reconciler.step()
    assert ("stop", 1) not in executor.calls
    clock.now += 1
    reconciler.step()
    reconciler.step()
    assert executor.calls.count(("stop", 1)) == 1


def test_a_hung_runner_is_stopped_also_if_its_attempt_ended_with_the_service_before(
    bench, reconciler, executor, store, clock
):
    ended, active = started(bench, reconciler), started(bench, reconciler)
    for job_id in (ended, active):
        store.run_directory(job_id, 1).root.mkdir(parents=True)
    bench.end(ended, Reason.NAN_LOSS)
    stopped, stop = [], executor.stop

    def note(job_id, fence, *, grace_s):
        stopped.append((job_id, fence))
        stop(job_id, fence, grace_s=grace_s)

    executor.stop = note
    again = Reconciler(store, executor, SETTINGS, clock=clock)
    again.step()
    clock.now += 29
    store.heartbeat(active, 1, Phase.TRAINING)
    again.step()
    assert stopped == []  # it may be just ending
    clock.now += 1
    store.heartbeat(active, 1, Phase.TRAINING)
    again.step()
    assert stopped == [(ended, 1)]


def test_a_runner_that_leaves_is_not_stopped(bench, reconciler, executor, clock):
    job_id = started(bench, reconciler)
    bench.end(job_id, Reason.NAN_LOSS)
    executor.exits(job_id, 1)
    reconciler.step()
    clock.now += 100
    reconciler.step()
    assert ("stop", 1) not in executor.calls


def test_an_attempt_that_cannot_be_looked_after_holds_up_no_other(
    bench, reconciler, executor, store
):
    first, second = started(bench, reconciler), started(bench, reconciler)
    observe = executor.observe

    def refuse(job_id, fence):
        if job_id == first:
            raise StorageUnavailableError("It is away.", "Wait.")
        return observe(job_id, fence)

    executor.observe = refuse
    executor.exits(second, 1, Reason.NAN_LOSS, 20)
    reconciler.step()
    assert [store.job(j).state for j in (first, second)] == [S.LEASED, S.FAILED]


def test_a_job_cancelled_between_claim_and_start_is_not_started(bench, reconciler, executor, store):
    job_id = bench.leased()
    store.request(job_id, D.CANCELLED, project="p", actor="me")
    reconciler.step()
    assert store.job(job_id).state is S.CANCELLED
    assert executor.calls == []


def test_a_service_that_ended_between_claim_and_start_starts_the_same_attempt(
    bench, reconciler, executor, store, monkeypatch
):
    job_id = bench.queued()
    monkeypatch.setenv("FAILPOINTS", "claim.after_commit_before_spawn=raise")
    with pytest.raises(FailpointError):
        reconciler.step()
    monkeypatch.delenv("FAILPOINTS")
    assert (store.job(job_id).state, executor.calls) == (S.LEASED, [])
    Reconciler(store, executor, SETTINGS).step()
    assert executor.calls == [("ensure", 1)]
    assert store.job(job_id).fence == 1


def test_an_attempt_whose_files_vanished_is_lost(bench, reconciler, executor, store):
    job_id = started(bench, reconciler)
    store.heartbeat(job_id, 1, Phase.TRAINING)
    executor.seen.clear()
    reconciler.step()
    assert (store.job(job_id).state, store.job(job_id).reason) == (S.QUEUED, Reason.DRIVER_LOST)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StorageFullError("There is no room.", "Free some."), Reason.STORAGE_UNAVAILABLE),
        (WorkersLostError("No process.", "Look."), Reason.DRIVER_LOST),
    ],
)
def test_a_start_that_fails_is_tried_again_later(bench, reconciler, executor, store, error, reason):
    executor.refuse = error
    job_id = bench.queued()
    reconciler.step()
    job = store.job(job_id)
    assert (job.state, job.reason, job.remedy) == (S.QUEUED, reason, error.remedy)
    assert store.claimable() == []


def test_a_spec_that_this_version_cannot_read_fails_with_a_reason(bench, reconciler, store):
    job_id = bench.queued()
    with store._writer_engine.begin() as connection:
        changed = "json_set(spec, '$.encoder.kind', 'of_another_version')"
        connection.exec_driver_sql(f"UPDATE jobs SET spec = {changed}")
    reconciler.step()
    job = store.job(job_id)
    assert (job.state, job.reason) == (S.FAILED, Reason.SPEC_INVALID)


def test_two_reconcilers_never_start_one_job_twice(bench, executor, store, clock):
    two = [Reconciler(store, executor, SETTINGS, clock=clock) for _ in range(2)]
    ids = [bench.queued() for _ in range(2)]
    threads = [threading.Thread(target=r.step) for r in two]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(executor.launches) == sorted((j, 1) for j in ids)
    assert [store.job(j).fence for j in ids] == [1, 1]


# --- the thread ---------------------------------------------------------------------------------


@pytest.fixture
def thread():
    """Runs reconcilers and stops them at the end."""
    stop, threads = threading.Event(), []

    def run(reconciler):
        threads.append(threading.Thread(target=reconciler.run_forever, args=(stop,)))
        threads[-1].start()

    yield run
    stop.set()
    for t in threads:
        t.join(10)
        assert not t.is_alive()


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def test_the_thread_wakes_at_once_when_a_job_comes(bench, executor, store, thread):
    slow = ReconcilerSettings(api_url="http://127.0.0.1:1", poll_s=5.0)
    thread(Reconciler(store, executor, slow))
    time.sleep(0.05)  # it has looked and waits
    before = time.monotonic()
    job_id = bench.queued()
    wait_for(lambda: (job_id, 1) in executor.launches)
    assert time.monotonic() - before < 4.0  # before the next poll


def test_the_thread_survives_a_step_that_fails(bench, executor, store, thread):
    executor.refuse = RuntimeError("a bug")
    reconciler = Reconciler(
        store, executor, ReconcilerSettings(api_url="http://127.0.0.1:1", poll_s=0.01)
    )
    thread(reconciler)
    job_id = bench.queued()
    wait_for(lambda: executor.calls)
    assert reconciler.last_step_age_s >= 0
    executor.refuse = None
    wait_for(lambda: (job_id, 1) in executor.launches)


def test_readiness_sees_a_reconciler_that_hangs(reconciler, clock):
    reconciler.step()
    clock.now += 42
    assert reconciler.last_step_age_s == 42
    reconciler.step()
    assert reconciler.last_step_age_s == 0
