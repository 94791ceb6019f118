"""How a runner ends: from an error to an exit code and a reason. Pure; imports no torch."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import MappingProxyType

from jobs.errors import (
    ArtifactInvalidError,
    DataInvalidError,
    DivergedError,
    SettingsError,
    SpecInvalidError,
    StaleFenceError,
    StoppedError,
    StorageFullError,
    StorageUnavailableError,
    WorkersLostError,
)
from jobs.serialization import clean_text
from jobs.states import ExitCode, Reason
from jobs.wire import Exit

MAX_MESSAGE, MAX_REMEDY = 4000, 2000
RESUMES = "The next attempt resumes from the last checkpoint."

COMPLETED = Exit(exit_code=ExitCode.OK, reason=Reason.COMPLETED, message="Published.")
INTERRUPTED = Exit(
    exit_code=ExitCode.INFRASTRUCTURE,
    reason=Reason.DRIVER_LOST,
    message="The runner was told to end (SIGTERM) and saved a checkpoint.",
    remedy=RESUMES,
)
UNACKNOWLEDGED = Exit(
    exit_code=ExitCode.INFRASTRUCTURE,
    reason=Reason.LEASE_EXPIRED,
    message="Nobody acknowledged the runner for too long; it ended itself.",
    remedy=RESUMES,
)
FENCED = Exit(
    exit_code=ExitCode.FENCED,
    reason=Reason.STALE_FENCE,
    message="A newer attempt of the job exists; this one wrote nothing more.",
)

_BY_TYPE: Mapping[type[BaseException], tuple[int, Reason]] = MappingProxyType(
    {
        StaleFenceError: (ExitCode.FENCED, Reason.STALE_FENCE),
        DataInvalidError: (ExitCode.INFEASIBLE, Reason.DATA_INVALID),
        DivergedError: (ExitCode.INFEASIBLE, Reason.NAN_LOSS),
        SettingsError: (ExitCode.INFEASIBLE, Reason.INFEASIBLE_CONFIG),
        MemoryError: (ExitCode.OUT_OF_MEMORY, Reason.OOM_HOST),
        ArtifactInvalidError: (ExitCode.INFRASTRUCTURE, Reason.ARTIFACT_INVALID),
        StorageFullError: (ExitCode.INFRASTRUCTURE, Reason.STORAGE_UNAVAILABLE),
        StorageUnavailableError: (ExitCode.INFRASTRUCTURE, Reason.STORAGE_UNAVAILABLE),
        WorkersLostError: (ExitCode.INFRASTRUCTURE, Reason.WORKER_LOST),
    }
)
_BY_CODE: Mapping[str, Reason] = MappingProxyType(
    {
        "data_unavailable": Reason.DATA_UNAVAILABLE,
        "data_invalid": Reason.DATA_INVALID,
        "infeasible_config": Reason.INFEASIBLE_CONFIG,
        "objective_infeasible": Reason.INFEASIBLE_CONFIG,
        "too_large": Reason.INFEASIBLE_CONFIG,
        "worker_group_start_timeout": Reason.WORKER_GROUP_START_TIMEOUT,
        "head_lost": Reason.HEAD_LOST,
    }
)
_STORAGE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE})


def classify(error: BaseException) -> Exit:
    """What an error that reached the runner means for the job."""
    code, reason = _code_and_reason(error)
    remedy = getattr(error, "remedy", None)
    return Exit(
        exit_code=code,
        reason=reason,
        message=clean_text(_message(error))[:MAX_MESSAGE],
        remedy=clean_text(str(remedy))[:MAX_REMEDY] if remedy else None,
    )


def _code_and_reason(error: BaseException) -> tuple[int, Reason]:
    if isinstance(error, StoppedError):
        if error.command == "pause":
            return ExitCode.PAUSED, Reason.USER_PAUSED
        return ExitCode.CANCELLED, Reason.USER_CANCELLED
    if isinstance(error, SpecInvalidError):
        return ExitCode.INFEASIBLE, _BY_CODE.get(error.code, Reason.SPEC_INVALID)
    if _is_out_of_memory(error):
        is_gpu = "CUDA" in str(error) or "HIP" in str(error)
        return ExitCode.OUT_OF_MEMORY, Reason.OOM_GPU if is_gpu else Reason.OOM_HOST
    if isinstance(error, OSError) and error.errno in _STORAGE_ERRNOS:
        return ExitCode.INFRASTRUCTURE, Reason.STORAGE_UNAVAILABLE
    for kind, (code, reason) in _BY_TYPE.items():
        if isinstance(error, kind):
            return code, _BY_CODE.get(str(getattr(error, "code", "")), reason)
    return ExitCode.INFRASTRUCTURE, Reason.INTERNAL_ERROR


def _is_out_of_memory(error: BaseException) -> bool:
    """By name, without importing torch; on the CPU torch raises a plain RuntimeError."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _message(error: BaseException) -> str:
    detail = getattr(error, "detail", None)
    if detail:
        pointer = getattr(error, "pointer", None)
        return f"{pointer}: {detail}" if pointer else str(detail)
    text = str(error) or "no message"
    return (
        text
        if isinstance(error, StoppedError | StaleFenceError)
        else (f"{type(error).__name__}: {text}")
    )
