import pytest

from jobs.errors import NotFoundError, StateConflictError
from jobs.failpoints import FailpointError
from jobs.states import DesiredState, JobState, Phase, Reason, public_status

S, D = JobState, DesiredState
OK = object()  # answered, whatever the state


def states_of(bench):
    """A job in each state by name."""
    paused = bench.queued()
    bench.store.request(paused, D.PAUSED, project="p", actor="me")
    cancelled = bench.queued()
    bench.store.request(cancelled, D.CANCELLED, project="p", actor="me")
    return {
        S.QUEUED: bench.queued(),
        S.LEASED: bench.leased(),
        S.RUNNING: bench.running(),
        S.FINALIZING: bench.finalizing(),
        S.PAUSED: paused,
        S.SUCCEEDED: bench.succeeded(),
        S.FAILED: bench.failed(),
        S.CANCELLED: cancelled,
    }


@pytest.mark.parametrize(
    ("desired", "follows"),
    [
        (
            D.CANCELLED,
            {
                S.QUEUED: S.CANCELLED,
                S.PAUSED: S.CANCELLED,
                S.CANCELLED: S.CANCELLED,
                S.LEASED: S.LEASED,
                S.RUNNING: S.RUNNING,
            },
        ),
        (
            D.PAUSED,
            {
                S.QUEUED: S.PAUSED,
                S.PAUSED: S.PAUSED,
                S.LEASED: S.LEASED,
                S.RUNNING: S.RUNNING,
            },
        ),
        (
            D.RUNNING,
            {
                S.QUEUED: S.QUEUED,
                S.PAUSED: S.QUEUED,
                S.LEASED: S.LEASED,
                S.RUNNING: S.RUNNING,
                S.FINALIZING: S.FINALIZING,
            },
        ),
    ],
)
def test_a_request_is_followed_or_refused_in_every_state(bench, desired, follows):
    for state, job_id in states_of(bench).items():
        assert bench.store.job(job_id).state is state
        if state in follows:
            job = bench.store.request(job_id, desired, project="p", actor="me")
            assert job.state is follows[state], state
            assert job.desired_state is desired
            # Asking again changes nothing.
            assert bench.store.request(job_id, desired, project="p", actor="me") == job
        else:
            before = bench.store.job(job_id)
            with pytest.raises(StateConflictError):
                bench.store.request(job_id, desired, project="p", actor="me")
            assert bench.store.job(job_id) == before


def test_a_running_job_that_is_cancelled_learns_it_by_its_heartbeat(bench):
    job_id = bench.running()
    assert bench.store.heartbeat(job_id, 1, Phase.TRAINING).command == "continue"
    job = bench.store.request(job_id, D.CANCELLED, project="p", actor="me")
    assert public_status(job.state, job.desired_state) == "cancelling"
    assert bench.store.heartbeat(job_id, 1, Phase.TRAINING).command == "cancel"
    assert bench.end(job_id, Reason.USER_CANCELLED, exit_code=11) is S.CANCELLED


def test_a_pause_can_be_taken_back_and_the_attempt_starts_again(bench):
    job_id = bench.running()
    bench.store.request(job_id, D.PAUSED, project="p", actor="me")
    assert bench.store.heartbeat(job_id, 1, Phase.TRAINING).command == "pause"
    bench.store.request(job_id, D.RUNNING, project="p", actor="me")
    # The attempt had obeyed already: it ends, and the next one is due at once.
    assert bench.end(job_id, Reason.USER_PAUSED, exit_code=10) is S.QUEUED
    assert [lease.job_id for lease in bench.store.claimable()] == [job_id]


def test_a_cancel_cannot_be_taken_back(bench):
    job_id = bench.running()
    bench.store.request(job_id, D.CANCELLED, project="p", actor="me")
    for desired in (D.PAUSED, D.RUNNING):
        with pytest.raises(StateConflictError, match="cannot be taken back"):
            bench.store.request(job_id, desired, project="p", actor="me")


@pytest.mark.parametrize("desired", [D.CANCELLED, D.PAUSED])
def test_a_job_that_was_told_to_stop_cannot_finalize(bench, desired):
    job_id = bench.running()
    bench.store.request(job_id, desired, project="p", actor="me")
    with pytest.raises(StateConflictError):
        bench.store.begin_finalize(job_id, 1)
    assert bench.store.job(job_id).state is S.RUNNING


def test_a_request_to_a_job_of_another_project_finds_nothing(bench):
    job_id = bench.queued()
    with pytest.raises(NotFoundError):
        bench.store.request(job_id, D.CANCELLED, project="q", actor="me")
    assert bench.store.job(job_id).state is S.QUEUED


def test_a_cancel_that_fails_before_its_commit_did_not_happen(bench, monkeypatch):
    job_id = bench.queued()
    monkeypatch.setenv("FAILPOINTS", "cancel.before_commit=raise")
    with pytest.raises(FailpointError):
        bench.store.request(job_id, D.CANCELLED, project="p", actor="me")
    assert bench.store.job(job_id).state is S.QUEUED


def test_a_cancel_that_fails_after_its_commit_did_happen(bench, monkeypatch):
    job_id = bench.queued()
    monkeypatch.setenv("FAILPOINTS", "cancel.after_commit=raise")
    with pytest.raises(FailpointError):
        bench.store.request(job_id, D.CANCELLED, project="p", actor="me")
    assert bench.store.job(job_id).state is S.CANCELLED
