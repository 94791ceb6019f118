"""What Ray's exceptions mean for a job.

Host memory that ran out is a plain `MemoryError`; GPU memory torch's own `OutOfMemoryError`.
"""

from collections.abc import Callable, Iterable

import ray.exceptions
from ray.train.v2._internal.exceptions import (
    InsufficientClusterResourcesError,
    WorkerGroupStartupTimeoutError,
    WorkerHealthCheckFailedError,
)
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from jobs.errors import JobError, SpecInvalidError, WorkersLostError
from jobs.ray_backend.failures import WorkerGroupStartTimeoutError

# A user's code or ours is wrong: the same happens again on the next try.
_BUGS = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    TypeError,
    ValueError,
)


def is_final(error: BaseException) -> bool:
    """Whether a new worker group would meet the same error again."""
    if isinstance(error, JobError):
        return not error.retryable
    return is_out_of_memory(error) or isinstance(error, _BUGS)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the host or of the GPU."""
    # torch's class by name: this module must not decide whether torch is imported.
    return isinstance(error, MemoryError | ray.exceptions.OutOfMemoryError) or (
        type(error).__name__ == "OutOfMemoryError"
    )


RUN_FAILURES = (
    TrainingFailedError,
    ray.exceptions.RayActorError,
    ray.exceptions.RaySystemError,
)
"""What ends a Ray Train run; the last two if Ray itself was lost: its head, a raylet."""


def translate(error: Exception) -> BaseException:
    """The error of `jobs` (or the worker's own) that one of `RUN_FAILURES` stands for."""
    if isinstance(error, WorkerGroupError):
        return _most_telling(error)
    if isinstance(error, ControllerError):
        return _controller_failure(error.controller_failure)
    return WorkersLostError(str(error), "The next attempt resumes from the last checkpoint.")


def _most_telling(error: WorkerGroupError) -> BaseException:
    """Of the errors of all ranks, the one that explains the others."""
    failures = [_root(failure) for _, failure in sorted(error.worker_failures.items())]
    for wanted in (_is_final_job_error, is_out_of_memory, is_final, _is_job_error):
        found = _first(failures, wanted)
        if found is not None:
            return _as_memory_error(found)
    lost = _first(failures, _is_lost)
    if lost is None:
        return failures[0]
    ranks = ", ".join(str(r) for r, f in error.worker_failures.items() if _is_lost(_root(f)))
    return WorkersLostError(
        f"Worker {ranks} died: {lost}", "The next attempt resumes from the last checkpoint."
    )


def _controller_failure(failure: Exception) -> BaseException:
    if isinstance(failure, WorkerGroupStartupTimeoutError):
        return WorkerGroupStartTimeoutError(
            f"{failure.num_workers} workers found no place in time.",
            "Ask for fewer workers or wait until other jobs have ended.",
        )
    if isinstance(failure, InsufficientClusterResourcesError):
        return SpecInvalidError(
            "/resources/num_workers",
            "infeasible_config",
            str(failure).splitlines()[0],
            "Ask for fewer workers or fewer processors for each.",
        )
    return WorkersLostError(
        f"Ray Train's controller failed: {failure}",
        "The next attempt resumes from the last checkpoint.",
    )


def _root(failure: BaseException) -> BaseException:
    if isinstance(failure, WorkerHealthCheckFailedError):
        return failure.health_check_failure
    return failure


def _as_memory_error(error: BaseException) -> BaseException:
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return MemoryError(str(error))
    return error


def _is_job_error(error: BaseException) -> bool:
    return isinstance(error, JobError)


def _is_final_job_error(error: BaseException) -> bool:
    return _is_job_error(error) and is_final(error)


def _is_lost(error: BaseException) -> bool:
    return isinstance(error, ray.exceptions.RayError)


def _first(
    failures: Iterable[BaseException], wanted: Callable[[BaseException], bool]
) -> BaseException | None:
    return next((failure for failure in failures if wanted(failure)), None)
