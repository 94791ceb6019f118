"""The life of a job as data: states, allowed moves, reasons, and the words the API uses."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class JobState(StrEnum):
    """Where a job stands. Exactly the three active states have an ACTIVE attempt and an owner."""

    QUEUED = "queued"
    LEASED = "leased"  # an attempt is placed; no step of training has run yet
    RUNNING = "running"
    FINALIZING = "finalizing"  # everything is staged; a cancel comes too late
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can follow this state."""
        return not NEXT_STATES[self]

    @property
    def is_active(self) -> bool:
        """Whether an attempt holds the job."""
        return self in ACTIVE_STATES


_S = JobState
_LOST = frozenset({_S.QUEUED, _S.PAUSED, _S.FAILED, _S.CANCELLED})  # how an attempt can end
NEXT_STATES: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        _S.QUEUED: frozenset({_S.LEASED, _S.PAUSED, _S.CANCELLED}),
        _S.LEASED: frozenset({_S.RUNNING}) | _LOST,
        _S.RUNNING: frozenset({_S.FINALIZING}) | _LOST,
        _S.FINALIZING: frozenset({_S.SUCCEEDED, _S.QUEUED, _S.FAILED}),
        _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED}),
        _S.SUCCEEDED: frozenset(),
        _S.FAILED: frozenset(),
        _S.CANCELLED: frozenset(),
    }
)
ACTIVE_STATES = frozenset({_S.LEASED, _S.RUNNING, _S.FINALIZING})


class DesiredState(StrEnum):
    """What the user asked for; user verbs write nothing else."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"


class Phase(StrEnum):
    """What an active attempt is doing. An open set for clients: it may grow."""

    PROVISIONING = "provisioning"
    LOADING_DATA = "loading_data"
    TRAINING = "training"
    EVALUATING = "evaluating"
    EXPORTING = "exporting"
    PUBLISHING = "publishing"


class Reason(StrEnum):
    """Why an attempt or a job ended. A closed set."""

    COMPLETED = "completed"
    USER_CANCELLED = "user_cancelled"
    USER_PAUSED = "user_paused"
    SPEC_INVALID = "spec_invalid"
    DATA_UNAVAILABLE = "data_unavailable"
    DATA_INVALID = "data_invalid"
    INFEASIBLE_CONFIG = "infeasible_config"
    NAN_LOSS = "nan_loss"
    OOM_HOST = "oom_host"
    OOM_GPU = "oom_gpu"
    WORKER_LOST = "worker_lost"
    HEAD_LOST = "head_lost"
    DRIVER_LOST = "driver_lost"
    LEASE_EXPIRED = "lease_expired"
    STALE_FENCE = "stale_fence"
    WORKER_GROUP_START_TIMEOUT = "worker_group_start_timeout"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    ARTIFACT_INVALID = "artifact_invalid"
    MAX_RUNTIME_EXCEEDED = "max_runtime_exceeded"
    RETRIES_EXHAUSTED = "retries_exhausted"
    INTERNAL_ERROR = "internal_error"


class ExitCode:
    """Exit status of a runner process; the control side reads its meaning, not its text."""

    OK = 0
    PAUSED = 10
    CANCELLED = 11
    INFEASIBLE = 20  # the spec or the data: no retry can help
    OUT_OF_MEMORY = 21
    INFRASTRUCTURE = 30  # worth another attempt
    FENCED = 40  # a newer attempt exists; this one must not write


STATUSES = (
    "queued",
    "running",
    "pausing",
    "paused",
    "cancelling",
    "cancelled",
    "succeeded",
    "failed",
)


def public_status(state: JobState, desired: DesiredState) -> str:
    """The API's word, from a closed set, for a state and what the user asked for."""
    if state.is_active:
        if desired is DesiredState.CANCELLED:
            return "cancelling"
        return "pausing" if desired is DesiredState.PAUSED else "running"
    return state.value
