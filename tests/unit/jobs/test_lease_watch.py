from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobs.lease_watch import LeaseTimes, LeaseWatch, Verdict
from jobs.states import DesiredState, JobState
from jobs.store import Lease

TIMES = LeaseTimes(ttl_s=15, start_ttl_s=60, cancel_grace_s=20, pause_grace_s=120)


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watch(clock):
    return LeaseWatch(TIMES, clock)


def lease(**changes) -> Lease:
    base = Lease(
        job_id="j",
        project="p",
        fence=1,
        hb_seq=5,
        claim_hb_seq=1,
        state=JobState.RUNNING,
        desired=DesiredState.RUNNING,
        spec={"retry": {"max_runtime_s": None}},
        attempt_started_at=datetime.now(UTC),
    )
    return replace(base, **changes)


def test_a_counter_that_stands_still_for_a_whole_lease_is_silence(watch, clock):
    assert watch.look(lease()) is Verdict.FINE
    clock.now += 14.9
    assert watch.look(lease()) is Verdict.FINE
    clock.now += 0.1
    assert watch.look(lease()) is Verdict.SILENT


def test_a_heartbeat_starts_the_lease_again(watch, clock):
    for hb_seq in range(5, 50):
        assert watch.look(lease(hb_seq=hb_seq)) is Verdict.FINE
        clock.now += 14
    clock.now += 15
    assert watch.look(lease(hb_seq=50)) is Verdict.FINE  # late, but it moved


def test_a_watcher_that_could_not_look_grants_a_whole_lease_again(watch, clock):
    watch.look(lease(hb_seq=5))
    clock.now += 10_000  # the database was away; the runner's heartbeats too
    assert watch.look(lease(hb_seq=6)) is Verdict.FINE
    assert LeaseWatch(TIMES, clock).look(lease(hb_seq=6)) is Verdict.FINE


def test_a_runner_that_never_spoke_gets_time_to_start(watch, clock):
    starting = lease(hb_seq=1, claim_hb_seq=1, state=JobState.LEASED)
    watch.look(starting)
    clock.now += 59
    assert watch.look(starting) is Verdict.FINE
    clock.now += 1
    assert watch.look(starting) is Verdict.SILENT


def test_a_new_attempt_is_not_judged_by_the_old_one(watch, clock):
    watch.look(lease())
    clock.now += 15
    assert watch.look(lease(fence=2)) is Verdict.FINE


def test_a_job_that_came_back_is_not_judged_by_what_was_seen_before(watch, clock):
    watch.look(lease())
    watch.keep([])
    clock.now += 15
    assert watch.look(lease()) is Verdict.FINE


@pytest.mark.parametrize(
    ("desired", "grace_s"), [(DesiredState.CANCELLED, 20), (DesiredState.PAUSED, 120)]
)
def test_who_does_not_obey_in_time_is_disobedient(watch, clock, desired, grace_s):
    watch.look(lease(hb_seq=1))
    clock.now += 10
    assert watch.look(lease(hb_seq=2, desired=desired)) is Verdict.FINE
    for beat in range(3, 3 + grace_s - 1):
        clock.now += 1
        assert watch.look(lease(hb_seq=beat, desired=desired)) is Verdict.FINE
    clock.now += 1
    assert watch.look(lease(hb_seq=999, desired=desired)) is Verdict.DISOBEDIENT


def test_a_pause_taken_back_is_forgotten(watch, clock):
    watch.look(lease(desired=DesiredState.PAUSED))
    watch.look(lease(hb_seq=6))
    clock.now += 1
    for beat in range(7, 200):
        clock.now += 1
        assert watch.look(lease(hb_seq=beat)) is Verdict.FINE
    assert watch.look(lease(hb_seq=300, desired=DesiredState.PAUSED)) is Verdict.FINE


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.FINALIZING])
def test_an_attempt_over_its_time_is_ended_unless_it_is_finalizing(watch, clock, state):
    spec = {"retry": {"max_runtime_s": 100}}
    watch.look(lease(spec=spec, state=state, hb_seq=1))
    clock.now += 99
    assert watch.look(lease(spec=spec, state=state, hb_seq=2)) is Verdict.FINE
    clock.now += 1
    expected = Verdict.OVER_TIME if state is JobState.RUNNING else Verdict.FINE
    assert watch.look(lease(spec=spec, state=state, hb_seq=3)) is expected


def test_an_adopted_attempt_keeps_the_time_it_has_used(watch):
    spec = {"retry": {"max_runtime_s": 100}}
    old = datetime.now(UTC) - timedelta(seconds=101)
    assert watch.look(lease(spec=spec, attempt_started_at=old)) is Verdict.OVER_TIME


@pytest.mark.parametrize("jump", [timedelta(days=3), timedelta(days=-3)])
def test_no_wall_clock_decides_about_a_lease(watch, clock, jump):
    started = datetime.now(UTC) + jump
    watch.look(lease(attempt_started_at=started))
    clock.now += 14
    assert watch.look(lease(attempt_started_at=started)) is Verdict.FINE
