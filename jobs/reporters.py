"""How the training loop tells what happens and learns what is wanted, whatever runs it.

What is told goes, one JSON line a report, into the attempt's `reports.jsonl`; what is wanted is
read from its `control.json`. The runner carries both to and from the control plane.
"""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol, get_args, runtime_checkable

from pydantic import ValidationError

from jobs.run_directory import RunDirectory
from jobs.wire import Command, ProgressReport, Report, ReportKind

CommandName = Literal["continue", "cancel", "pause"]
COMMANDS: Final[tuple[CommandName, ...]] = get_args(CommandName)


@runtime_checkable
class Reporter(Protocol):
    """The loop's only view of the outside.

    `rank`, `world_size`: this worker's place. Only rank 0's reports are kept.
    """

    rank: int
    world_size: int

    def report(self, report: Report) -> None:
        """Append one report to the attempt's `reports.jsonl` (rank 0; other ranks: nothing)."""

    def command(self) -> CommandName:
        """What this worker is told to do now. It waits for no other worker.

        Ranks may see news at different times: those that have to agree follow rank 0.
        """


class FileReporter:
    """The reporter of a worker that sees the attempt's run directory."""

    def __init__(self, run: RunDirectory, *, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = world_size
        self._writer = ReportWriter(run.reports_file)
        self._control = ControlFile(run.control_file)

    def report(self, report: Report) -> None:
        """Append one report (rank 0; other ranks: nothing)."""
        if self.rank == 0:
            self._writer.append(report)

    def command(self) -> CommandName:
        """What the control file says now; cheap enough for every step."""
        return self._control.read()


class ReportWriter:
    """Appends reports to a file that several processes may append to.

    Each line is one `write` in append mode, so lines never mix. Nothing is synced: a report that a
    power failure takes was at most a few seconds old.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, report: Report) -> None:
        """Append one report.

        Raises:
            OSError: the line could not be written whole (no space).
        """
        line = report.model_dump_json().encode() + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path, flags, 0o600)
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        finally:
            os.close(descriptor)


class ControlFile:
    """The last command, read again only when the file was replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int] | None = None
        self._command: CommandName = "continue"

    def read(self) -> CommandName:
        """The command in the file; `continue` as long as there is none."""
        try:
            stat = self.path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen != self._seen:
                self._command = Command.model_validate_json(self.path.read_bytes()).command
                self._seen = seen
        except FileNotFoundError:
            return "continue"
        except ValidationError:  # only the runner writes it, whole: keep what was known
            return self._command
        return self._command


def new_report(
    kind: ReportKind, data: dict[str, Any] | None = None, *, progress: ProgressReport | None = None
) -> Report:
    """A report of now."""
    return Report(kind=kind, at=datetime.now(UTC), data=data or {}, progress=progress)
