"""Every error that reaches a runner has an exit code and a reason."""

from __future__ import annotations

import errno

import pytest

import jobs.errors as errors
from jobs.exits import classify
from jobs.retry import RETRY_CLASSES, RetryClass
from jobs.states import ExitCode, Reason


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


def spec_error(code: str) -> errors.SpecInvalidError:
    return errors.SpecInvalidError("/data/kind", code, "It cannot work.", "Change it.")


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (errors.StoppedError("cancel"), ExitCode.CANCELLED, Reason.USER_CANCELLED),
        (errors.StoppedError("pause"), ExitCode.PAUSED, Reason.USER_PAUSED),
        (spec_error("data_unavailable"), ExitCode.INFEASIBLE, Reason.DATA_UNAVAILABLE),
        (spec_error("data_invalid"), ExitCode.INFEASIBLE, Reason.DATA_INVALID),
        (spec_error("objective_infeasible"), ExitCode.INFEASIBLE, Reason.INFEASIBLE_CONFIG),
        (spec_error("other"), ExitCode.INFEASIBLE, Reason.SPEC_INVALID),
        (errors.DataInvalidError("d", "r"), ExitCode.INFEASIBLE, Reason.DATA_INVALID),
        (errors.DivergedError("d", "r"), ExitCode.INFEASIBLE, Reason.NAN_LOSS),
        (errors.SettingsError("d", "r"), ExitCode.INFEASIBLE, Reason.INFEASIBLE_CONFIG),
        (MemoryError(), ExitCode.OUT_OF_MEMORY, Reason.OOM_HOST),
        (OutOfMemoryError("CUDA out of memory"), ExitCode.OUT_OF_MEMORY, Reason.OOM_GPU),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            ExitCode.OUT_OF_MEMORY,
            Reason.OOM_HOST,
        ),
        (errors.WorkersLostError("d", "r"), ExitCode.INFRASTRUCTURE, Reason.WORKER_LOST),
        (errors.StorageFullError("d", "r"), ExitCode.INFRASTRUCTURE, Reason.STORAGE_UNAVAILABLE),
        (
            errors.StorageUnavailableError("d", "r"),
            ExitCode.INFRASTRUCTURE,
            Reason.STORAGE_UNAVAILABLE,
        ),
        (OSError(errno.ENOSPC, "full"), ExitCode.INFRASTRUCTURE, Reason.STORAGE_UNAVAILABLE),
        (errors.ArtifactInvalidError("d", "r"), ExitCode.INFRASTRUCTURE, Reason.ARTIFACT_INVALID),
        (errors.StaleFenceError("job_1", 2), ExitCode.FENCED, Reason.STALE_FENCE),
        (ValueError("a bug"), ExitCode.INFRASTRUCTURE, Reason.INTERNAL_ERROR),
        (KeyboardInterrupt(), ExitCode.INFRASTRUCTURE, Reason.INTERNAL_ERROR),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_become_exits(error, code, reason):
    end = classify(error)
    assert (end.exit_code, end.reason) == (code, reason)
    assert end.message


def test_the_remedy_and_the_pointer_survive():
    end = classify(spec_error("data_invalid"))
    assert (end.message, end.remedy) == ("/data/kind: It cannot work.", "Change it.")


def test_a_long_message_is_cut():
    assert len(classify(ValueError("x" * 10_000)).message) == 4000


def test_a_file_name_that_is_no_text_still_becomes_a_message():
    assert classify(errors.DataInvalidError("x\udc80.png is damaged.", "r")).message == (
        "x?.png is damaged."
    )


def test_what_no_retry_can_help_is_never_retried():
    for error in (errors.DivergedError("d", "r"), errors.DataInvalidError("d", "r")):
        assert RETRY_CLASSES[classify(error).reason] is RetryClass.NEVER
