"""How the training loop tells what happens and learns what is wanted, whatever runs it."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

from jobs.wire import Report


@runtime_checkable
class Reporter(Protocol):
    """The loop's only view of the outside.

    `rank`, `world_size`: this worker's place. Only rank 0's reports are kept.
    """

    rank: int
    world_size: int

    def report(self, report: Report) -> None:
        """Append one report to the attempt's `reports.jsonl` (rank 0; other ranks: nothing)."""

    def command(self) -> Literal["continue", "cancel", "pause"]:
        """What is wanted now, the same on every rank at the same step (a barrier if several)."""
