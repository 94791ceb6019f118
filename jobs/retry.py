"""What follows the end of an attempt: a pure function of what is known, no clock, no database.

Each reason belongs to one class:

* never: another attempt would end the same way. The job fails.
* once: perhaps bad luck. One more attempt, whatever the budget, if it is the first failure.
* budgeted: infrastructure. Up to `max_attempts`, with a back-off of 10, 40, then 160 s; the first
  retry after a lost process comes after 2 s, for it is usually a killed process and nothing else;
  so does every one after an orderly stop.
* free: not the job's doing (storage away, orderly stop of the host). It costs no budget, but a job
  does not start more than `MOST_ATTEMPTS` times in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType
from typing import Final

from jobs.states import DesiredState, ExitCode, JobState, Reason
from jobs.wire import Exit

BACK_OFF_S: Final = (10.0, 40.0, 160.0)
QUICK_RETRY_S: Final = 2.0
MOST_ATTEMPTS: Final = 50


class RetryClass(Enum):
    """How often a reason may be followed by another attempt."""

    NEVER = auto()
    ONCE = auto()
    BUDGETED = auto()
    FREE = auto()


_R, _C = Reason, RetryClass
RETRY_CLASSES: Mapping[Reason, RetryClass] = MappingProxyType(
    {
        _R.SPEC_INVALID: _C.NEVER,
        _R.DATA_UNAVAILABLE: _C.NEVER,
        _R.DATA_INVALID: _C.NEVER,
        _R.INFEASIBLE_CONFIG: _C.NEVER,
        _R.NAN_LOSS: _C.NEVER,
        _R.MAX_RUNTIME_EXCEEDED: _C.NEVER,
        _R.RETRIES_EXHAUSTED: _C.NEVER,
        _R.OOM_HOST: _C.ONCE,
        _R.OOM_GPU: _C.ONCE,
        _R.INTERNAL_ERROR: _C.ONCE,
        _R.WORKER_LOST: _C.BUDGETED,
        _R.DRIVER_LOST: _C.BUDGETED,
        _R.LEASE_EXPIRED: _C.BUDGETED,
        _R.STALE_FENCE: _C.BUDGETED,
        _R.WORKER_GROUP_START_TIMEOUT: _C.BUDGETED,
        _R.ARTIFACT_INVALID: _C.BUDGETED,
        _R.COMPLETED: _C.BUDGETED,  # it says so, yet nothing was published
        _R.USER_CANCELLED: _C.BUDGETED,  # nobody asked for it
        _R.USER_PAUSED: _C.FREE,  # the pause was taken back while the attempt obeyed it
        _R.HEAD_LOST: _C.FREE,
        _R.STORAGE_UNAVAILABLE: _C.FREE,
    }
)
_LOST: Final = frozenset({_R.DRIVER_LOST, _R.WORKER_LOST, _R.LEASE_EXPIRED, _R.HEAD_LOST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The job's next state and why; `delay_s` before a queued job may be claimed again."""

    state: JobState
    reason: Reason
    message: str
    remedy: str | None
    delay_s: float = 0.0
    failures: int = 0


def decide(
    end: Exit, *, desired: DesiredState, attempts: int, failures: int, max_attempts: int
) -> Decision:
    """What becomes of a job whose attempt ended.

    Args:
        end: how the attempt ended.
        desired: what the user wants of the job.
        attempts: how many attempts were started, this one included.
        failures: how many of the earlier ones used up the budget.
        max_attempts: the budget.

    Returns:
        Never SUCCEEDED: only a publish makes that.
    """
    if desired is DesiredState.CANCELLED:
        return _ended(JobState.CANCELLED, Reason.USER_CANCELLED, "Cancelled on request.", failures)
    retry = _retry_class(end)
    failures += retry is not RetryClass.FREE
    if retry is RetryClass.NEVER or (retry is RetryClass.ONCE and failures > 1):
        return _failed(end, failures)
    if desired is DesiredState.PAUSED:
        return _ended(JobState.PAUSED, Reason.USER_PAUSED, "Paused on request.", failures)
    budgeted = retry is RetryClass.BUDGETED
    if attempts >= MOST_ATTEMPTS or (budgeted and failures >= max_attempts):
        return _exhausted(end, attempts, failures)
    return Decision(
        state=JobState.QUEUED,
        reason=end.reason,
        message=end.message,
        remedy=end.remedy,
        delay_s=_delay(end, attempts),
        failures=failures,
    )


def _retry_class(end: Exit) -> RetryClass:
    return RetryClass.FREE if _stopped_in_order(end) else RETRY_CLASSES[end.reason]


def _stopped_in_order(end: Exit) -> bool:
    """A runner that was told to stop and said so (SIGTERM) is not a failure of the job."""
    return end.reason is Reason.DRIVER_LOST and end.exit_code == ExitCode.INFRASTRUCTURE


def _delay(end: Exit, attempts: int) -> float:
    if end.reason is Reason.USER_PAUSED:
        return 0.0
    if _stopped_in_order(end) or (attempts == 1 and end.reason in _LOST):
        return QUICK_RETRY_S
    return BACK_OFF_S[min(attempts, len(BACK_OFF_S)) - 1]


def _ended(state: JobState, reason: Reason, message: str, failures: int) -> Decision:
    return Decision(state=state, reason=reason, message=message, remedy=None, failures=failures)


def _failed(end: Exit, failures: int) -> Decision:
    return Decision(
        state=JobState.FAILED,
        reason=end.reason,
        message=end.message,
        remedy=end.remedy,
        failures=failures,
    )


def _exhausted(end: Exit, attempts: int, failures: int) -> Decision:
    if attempts == 1:
        return _failed(end, failures)
    return Decision(
        state=JobState.FAILED,
        reason=Reason.RETRIES_EXHAUSTED,
        message=f"{attempts} attempts ended. The last: {end.reason}: {end.message}"[:4000],
        remedy=end.remedy,
        failures=failures,
    )
