import threading

import pytest

from jobs.errors import (
    IdempotencyConflictError,
    NotFoundError,
    QuotaExceededError,
    StorageFullError,
)
from jobs.failpoints import FailpointError
from jobs.spec import TrainingSpec
from jobs.states import DesiredState, JobState
from jobs.store import open_store


def test_a_submitted_job_is_queued_with_every_value_of_its_spec(store, spec):
    job = store.submit(spec, project="p", actor="me").job
    assert (job.state, job.desired_state) == (JobState.QUEUED, DesiredState.RUNNING)
    assert job.spec == spec.resolved().model_dump(mode="json")
    assert job.spec["objective"]["projection_dim"] == 4  # filled in by resolved()
    assert store.job(job.id) == job


def test_a_job_survives_the_store_that_took_it(home, spec):
    first = open_store(f"sqlite:///{home}/mige.db", home=home)
    job = first.submit(spec, project="p", actor="me").job
    first.close()
    second = open_store(f"sqlite:///{home}/mige.db", home=home)
    assert second.job(job.id) == job
    second.close()


def test_the_same_key_and_spec_give_the_same_job(store, spec):
    first = store.submit(spec, project="p", actor="me", idempotency_key="k")
    again = store.submit(spec, project="p", actor="me", idempotency_key="k")
    assert (first.replayed, again.replayed) == (False, True)
    assert again.job == first.job


def test_the_same_key_in_another_project_is_another_job(store, spec):
    first = store.submit(spec, project="p", actor="me", idempotency_key="k")
    other = store.submit(spec, project="q", actor="me", idempotency_key="k")
    assert not other.replayed
    assert other.job.id != first.job.id


def test_the_same_key_with_another_spec_is_refused(store, spec):
    store.submit(spec, project="p", actor="me", idempotency_key="k")
    other = spec.model_copy(update={"training": TrainingSpec(epochs=3)})
    with pytest.raises(IdempotencyConflictError):
        store.submit(other, project="p", actor="me", idempotency_key="k")


def test_64_submissions_at_once_with_one_key_make_one_job(store, spec):
    jobs, barrier = [], threading.Barrier(64)

    def submit():
        barrier.wait()
        jobs.append(store.submit(spec, project="p", actor="me", idempotency_key="k"))

    threads = [threading.Thread(target=submit) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({s.job.id for s in jobs}) == 1
    assert [s.replayed for s in jobs].count(False) == 1
    assert len(store.jobs(project="p").items) == 1


def test_a_full_queue_refuses_one_project_and_not_the_other(home, spec):
    store = open_store(f"sqlite:///{home}/mige.db", home=home, max_queued_per_project=2)
    for _ in range(2):
        store.submit(spec, project="p", actor="me")
    with pytest.raises(QuotaExceededError):
        store.submit(spec, project="p", actor="me")
    store.submit(spec, project="q", actor="me")
    store.close()


def test_a_replay_is_answered_even_when_the_queue_is_full(home, spec):
    store = open_store(f"sqlite:///{home}/mige.db", home=home, max_queued_per_project=1)
    first = store.submit(spec, project="p", actor="me", idempotency_key="k")
    assert store.submit(spec, project="p", actor="me", idempotency_key="k").job == first.job
    store.close()


def test_a_submission_that_fails_before_its_commit_leaves_nothing(store, spec, monkeypatch):
    monkeypatch.setenv("FAILPOINTS", "submit.before_commit=raise")
    with pytest.raises(FailpointError):
        store.submit(spec, project="p", actor="me", idempotency_key="k")
    monkeypatch.delenv("FAILPOINTS")
    assert store.jobs(project="p").items == ()
    assert not store.submit(spec, project="p", actor="me", idempotency_key="k").replayed


def test_a_submission_that_fails_after_its_commit_is_found_by_its_key(store, spec, monkeypatch):
    monkeypatch.setenv("FAILPOINTS", "submit.after_commit_before_reply=raise")
    with pytest.raises(FailpointError):
        store.submit(spec, project="p", actor="me", idempotency_key="k")
    monkeypatch.delenv("FAILPOINTS")
    assert store.submit(spec, project="p", actor="me", idempotency_key="k").replayed


def test_a_job_of_another_project_looks_like_none(store, spec):
    job = store.submit(spec, project="p", actor="me").job
    with pytest.raises(NotFoundError) as other:
        store.job(job.id, project="q")
    with pytest.raises(NotFoundError) as unknown:
        store.job("job_" + "0" * 32, project="q")
    assert type(other.value) is type(unknown.value)


def test_no_job_is_accepted_that_could_not_be_finished(home, spec):
    url = f"sqlite:///{home}/mige.db"
    store = open_store(url, home=home, min_free_bytes=1 << 60)
    with pytest.raises(StorageFullError, match="MiB are free"):
        store.submit(spec, project="p", actor="me")
    store.close()
