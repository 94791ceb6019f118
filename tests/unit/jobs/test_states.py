import itertools

import pytest

from jobs.states import (
    ACTIVE_STATES,
    NEXT_STATES,
    STATUSES,
    DesiredState,
    JobState,
    public_status,
)


def test_every_state_has_its_row_in_the_table_of_moves():
    assert set(NEXT_STATES) == set(JobState)


def test_the_terminal_states_are_the_three_ends():
    ends = {s for s in JobState if s.is_terminal}
    assert ends == {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


def test_only_finalizing_leads_to_success():
    assert [s for s in JobState if JobState.SUCCEEDED in NEXT_STATES[s]] == [JobState.FINALIZING]


def test_a_cancel_comes_too_late_once_finalizing():
    assert JobState.CANCELLED not in NEXT_STATES[JobState.FINALIZING]


def test_every_state_can_reach_an_end():
    reached = {s for s in JobState if s.is_terminal}
    for _ in JobState:
        reached |= {s for s in JobState if NEXT_STATES[s] & reached}
    assert reached == set(JobState)


def test_every_status_shown_is_one_of_the_closed_set():
    shown = {public_status(s, d) for s, d in itertools.product(JobState, DesiredState)}
    assert shown == set(STATUSES)


@pytest.mark.parametrize("state", sorted(ACTIVE_STATES))
def test_an_active_job_shows_what_was_asked_of_it(state):
    assert public_status(state, DesiredState.RUNNING) == "running"
    assert public_status(state, DesiredState.CANCELLED) == "cancelling"
    assert public_status(state, DesiredState.PAUSED) == "pausing"
