"""What the reconciler needs of a place that runs attempts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from jobs.wire import Exit, Launch


@dataclass(frozen=True, slots=True)
class Observation:
    """What is seen of an attempt: evidence, not truth. `exit` only where the runner left one."""

    status: Literal["running", "exited", "absent"]
    exit: Exit | None = None


@runtime_checkable
class Executor(Protocol):
    """Starts, watches and ends the runner process of an attempt. All methods are idempotent."""

    def ensure(self, launch: Launch) -> None:
        """Start the runner of this attempt unless it was started before.

        Raises:
            StorageUnavailableError: its directory cannot be written.
            WorkersLostError: no process could be started.
        """

    def observe(self, job_id: str, fence: int) -> Observation:
        """What is known of the attempt's runner now."""

    def stop(self, job_id: str, fence: int, *, grace_s: float) -> None:
        """Ask the runner and all its children to end; kill what is left after `grace_s`."""
