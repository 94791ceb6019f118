"""Reads an attempt's `reports.jsonl` as it grows, in batches that the API takes."""

from __future__ import annotations

from pathlib import Path

from jobs.report_log import parse_report
from jobs.wire import MAX_REPORTS, ReportBatch

MAX_BATCH_BYTES = 256 * 1024


class ReportTail:
    """The lines that nobody has acknowledged yet.

    A line counts once its newline is there. A line that is no report (a full disk cut one short)
    becomes a `diagnostic.unreadable` report, for line numbers must not shift.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0  # of the first line that is not acknowledged
        self._first = 0  # its number

    def next_batch(self) -> ReportBatch | None:
        """The next lines, the same ones until they are acknowledged; None if there are none."""
        lines = self._next_lines()
        if not lines:
            return None
        return ReportBatch(first=self._first, reports=tuple(parse_report(line) for line in lines))

    def acknowledge(self, lines: int) -> None:
        """All lines before number `lines` are stored."""
        for line in self._next_lines()[: max(0, lines - self._first)]:
            self._offset += len(line)
            self._first += 1

    def _next_lines(self) -> list[bytes]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read(MAX_BATCH_BYTES)
        except FileNotFoundError:
            return []
        lines = [line + b"\n" for line in content.split(b"\n")[:-1]]
        if not lines and len(content) == MAX_BATCH_BYTES:
            raise ValueError(f"line {self._first} of {self._path.name} has no end")
        return lines[:MAX_REPORTS]
