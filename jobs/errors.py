"""Every error that `jobs` raises on purpose. None of them knows HTTP.

JobError
├── SpecInvalidError            a value of the spec cannot work; names the field
├── NotFoundError               no such job, encoder, ...
├── StateConflictError          the job's state does not allow this
├── IdempotencyConflictError    the same key with another body
├── StaleFenceError             a newer attempt of the job exists
├── QuotaExceededError          too much is queued
├── StorageFullError            no room to accept or write
├── StorageUnavailableError     storage or database does not answer; safe to retry
├── ArtifactInvalidError        a staged or stored file is not what its manifest says
├── DataInvalidError            the data set cannot be read or does not fit the spec
├── DivergedError               loss, gradient or weights are not finite
├── WorkersLostError            workers of the attempt died or never started; worth another attempt
├── StoppedError                the attempt was told to stop (cancel or pause)
└── SettingsError               the service is set up in a way that cannot work

Each keeps its arguments in `args`, so it survives pickling between processes.
"""

from __future__ import annotations


class JobError(Exception):
    """Base of every error raised on purpose. `code` is a stable word for machines."""

    code = "internal_error"
    retryable = False


class SpecInvalidError(JobError):
    """A value of the spec cannot work. `pointer` is a JSON pointer into the spec."""

    def __init__(self, pointer: str, code: str, detail: str, remedy: str) -> None:
        super().__init__(pointer, code, detail, remedy)
        self.pointer, self.code, self.detail, self.remedy = pointer, code, detail, remedy

    def __str__(self) -> str:
        return f"{self.pointer}: {self.detail} {self.remedy}"


class NotFoundError(JobError):
    """No resource of this kind has this id (or it belongs to another project)."""

    code = "not_found"

    def __init__(self, kind: str, resource_id: str) -> None:
        super().__init__(kind, resource_id)
        self.kind, self.resource_id = kind, resource_id

    def __str__(self) -> str:
        return f"no {self.kind} has the id {self.resource_id!r}"


class StateConflictError(JobError):
    """The current state does not allow the request."""

    code = "state_conflict"

    def __init__(self, job_id: str, current_state: str, detail: str) -> None:
        super().__init__(job_id, current_state, detail)
        self.job_id, self.current_state, self.detail = job_id, current_state, detail

    def __str__(self) -> str:
        return f"{self.job_id} is {self.current_state}: {self.detail}"


class IdempotencyConflictError(JobError):
    """An idempotency key was used again with a different body."""

    code = "idempotency_key_reused"

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return f"the idempotency key {self.key!r} was used before with a different body"


class StaleFenceError(JobError):
    """The attempt that asked is no longer the active one: it must stop and write nothing."""

    code = "stale_fence"

    def __init__(self, job_id: str, fence: int) -> None:
        super().__init__(job_id, fence)
        self.job_id, self.fence = job_id, fence

    def __str__(self) -> str:
        return f"attempt {self.fence} of {self.job_id} is not the active one"


class _DetailError(JobError):
    """Shared shape: what is wrong, and what to do about it."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail, remedy)
        self.detail, self.remedy = detail, remedy

    def __str__(self) -> str:
        return f"{self.detail} {self.remedy}"


class QuotaExceededError(_DetailError):
    """Too much is queued already."""

    code = "quota_exceeded"
    retryable = True


class StorageFullError(_DetailError):
    """There is no room to accept or to write."""

    code = "storage_full"
    retryable = True


class StorageUnavailableError(_DetailError):
    """Storage or database does not answer; safe to retry."""

    code = "storage_unavailable"
    retryable = True


class ArtifactInvalidError(_DetailError):
    """A staged or stored file is not what its manifest says."""

    code = "artifact_invalid"


class DataInvalidError(_DetailError):
    """The data set cannot be read or does not fit the spec."""

    code = "data_invalid"


class DivergedError(_DetailError):
    """Loss, gradient or weights are not finite."""

    code = "nan_loss"


class WorkersLostError(_DetailError):
    """Workers of the attempt died or never started; worth another attempt."""

    code = "worker_lost"
    retryable = True


class SettingsError(_DetailError):
    """The service is set up in a way that cannot work."""

    code = "settings_invalid"


class StoppedError(JobError):
    """The attempt was told to stop: `command` is `cancel` or `pause`."""

    code = "stopped"

    def __init__(self, command: str) -> None:
        super().__init__(command)
        self.command = command

    def __str__(self) -> str:
        return f"stopped by the command {self.command!r}"
