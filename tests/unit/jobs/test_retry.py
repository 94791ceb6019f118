import pytest

from jobs.retry import MOST_ATTEMPTS, RETRY_CLASSES, RetryClass, decide
from jobs.states import DesiredState, ExitCode, JobState, Reason
from jobs.wire import Exit

D, R, S = DesiredState, Reason, JobState


def outcome(
    reason,
    *,
    desired=D.RUNNING,
    attempts=1,
    failures=0,
    max_attempts=3,
    exit_code=-9,
):
    end = Exit(exit_code=exit_code, reason=reason, message="because", remedy="do this")
    return decide(
        end, desired=desired, attempts=attempts, failures=failures, max_attempts=max_attempts
    )


def test_every_reason_has_a_class():
    assert set(RETRY_CLASSES) == set(Reason)


@pytest.mark.parametrize("reason", list(Reason))
def test_an_accepted_cancel_wins_over_every_reason(reason):
    decision = outcome(reason, desired=D.CANCELLED)
    assert (decision.state, decision.reason) == (S.CANCELLED, R.USER_CANCELLED)


@pytest.mark.parametrize("reason", [r for r, c in RETRY_CLASSES.items() if c is RetryClass.NEVER])
@pytest.mark.parametrize("desired", [D.RUNNING, D.PAUSED])
def test_what_no_retry_can_cure_fails_at_once_and_keeps_its_reason(reason, desired):
    decision = outcome(reason, desired=desired, max_attempts=20)
    assert (decision.state, decision.reason) == (S.FAILED, reason)
    assert (decision.message, decision.remedy) == ("because", "do this")


@pytest.mark.parametrize(
    ("reason", "attempts", "delay_s"),
    [
        (R.DRIVER_LOST, 1, 2),  # a killed runner resumes soon
        (R.LEASE_EXPIRED, 1, 2),
        (R.WORKER_LOST, 1, 2),
        (R.WORKER_GROUP_START_TIMEOUT, 1, 10),
        (R.DRIVER_LOST, 2, 40),
        (R.DRIVER_LOST, 3, 160),
        (R.DRIVER_LOST, 9, 160),
        (R.STORAGE_UNAVAILABLE, 1, 10),
        (R.STORAGE_UNAVAILABLE, 7, 160),
    ],
)
def test_infrastructure_is_tried_again_after_a_growing_pause(reason, attempts, delay_s):
    decision = outcome(reason, attempts=attempts, failures=attempts - 1, max_attempts=20)
    assert (decision.state, decision.delay_s) == (S.QUEUED, delay_s)


@pytest.mark.parametrize(
    ("failures", "max_attempts", "state"),
    [(0, 1, S.FAILED), (0, 2, S.QUEUED), (1, 2, S.FAILED), (1, 3, S.QUEUED), (2, 3, S.FAILED)],
)
def test_the_budget_counts_failures(failures, max_attempts, state):
    decision = outcome(
        R.WORKER_LOST, attempts=failures + 1, failures=failures, max_attempts=max_attempts
    )
    assert decision.state is state
    assert decision.failures == failures + 1


def test_one_attempt_that_was_all_keeps_its_own_reason():
    assert outcome(R.WORKER_LOST, max_attempts=1).reason is R.WORKER_LOST


def test_several_attempts_say_that_they_are_used_up_and_what_came_last():
    decision = outcome(R.WORKER_LOST, attempts=3, failures=2)
    assert decision.reason is R.RETRIES_EXHAUSTED
    assert "3 attempts" in decision.message
    assert "worker_lost: because" in decision.message


@pytest.mark.parametrize("reason", [R.OOM_HOST, R.OOM_GPU, R.INTERNAL_ERROR])
def test_bad_luck_is_granted_once(reason):
    assert outcome(reason, attempts=1, max_attempts=20).state is S.QUEUED
    second = outcome(reason, attempts=2, failures=1, max_attempts=20)
    assert (second.state, second.reason) == (S.FAILED, reason)


def test_attempts_that_were_no_failures_do_not_take_the_one_retry_away():
    after_two_pauses = outcome(R.OOM_HOST, attempts=3, failures=0)
    assert (after_two_pauses.state, after_two_pauses.failures) == (S.QUEUED, 1)


@pytest.mark.parametrize("reason", [R.HEAD_LOST, R.STORAGE_UNAVAILABLE])
def test_what_is_not_the_jobs_doing_costs_no_budget_but_has_an_end(reason):
    decision = outcome(reason, attempts=10, failures=0, max_attempts=1)
    assert (decision.state, decision.failures) == (S.QUEUED, 0)
    assert outcome(reason, attempts=MOST_ATTEMPTS).state is S.FAILED


def test_a_runner_that_was_told_to_stop_in_order_costs_no_budget():
    ordered = outcome(R.DRIVER_LOST, exit_code=ExitCode.INFRASTRUCTURE, max_attempts=1)
    killed = outcome(R.DRIVER_LOST, exit_code=-9, max_attempts=1)
    assert (ordered.state, ordered.failures) == (S.QUEUED, 0)
    assert outcome(R.DRIVER_LOST, exit_code=ExitCode.INFRASTRUCTURE, attempts=3).delay_s == 2
    assert killed.state is S.FAILED


@pytest.mark.parametrize("reason", [R.USER_PAUSED, R.DRIVER_LOST, R.WORKER_LOST, R.HEAD_LOST])
def test_a_wanted_pause_is_reached_however_the_attempt_ended(reason):
    decision = outcome(reason, desired=D.PAUSED)
    assert (decision.state, decision.reason) == (S.PAUSED, R.USER_PAUSED)


def test_a_pause_that_was_taken_back_starts_again_at_once():
    decision = outcome(R.USER_PAUSED, exit_code=ExitCode.PAUSED, attempts=5, max_attempts=1)
    assert (decision.state, decision.delay_s, decision.failures) == (S.QUEUED, 0, 0)


@pytest.mark.parametrize("reason", [R.COMPLETED, R.USER_CANCELLED, R.STALE_FENCE])
def test_an_end_that_makes_no_sense_is_never_a_success(reason):
    assert outcome(reason, exit_code=0).state is S.QUEUED
    assert outcome(reason, exit_code=0, attempts=3, failures=2).state is S.FAILED
