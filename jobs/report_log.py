"""Reads the reports that an attempt left on this host and nobody forwarded."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from jobs.artifacts import open_regular
from jobs.errors import ArtifactInvalidError
from jobs.wire import MAX_REPORTS, Report, ReportBatch

_LINE_LIMIT_BYTES: Final = 1 << 20


def read_batches(path: Path, first: int) -> Iterator[ReportBatch]:
    """The whole lines of a `reports.jsonl` from line `first` on, some at a time.

    A line that is not a report becomes one that says so: lines keep their numbers. A last line
    without an end is left out.
    """
    try:
        with open_regular(path) as file:
            pieces = iter(lambda: file.readline(_LINE_LIMIT_BYTES), b"")
            lines = (piece for piece in pieces if piece.endswith(b"\n"))  # of a huge line the end
            reports = map(parse_report, islice(lines, first, None))
            while batch := tuple(islice(reports, MAX_REPORTS)):
                yield ReportBatch(first=first, reports=batch)
                first += len(batch)
    except ArtifactInvalidError:
        return  # the attempt ended before it reported anything


def parse_report(line: bytes) -> Report:
    """The report of a line, or one that says that there is none in it."""
    try:
        return Report.model_validate_json(line)
    except ValidationError:
        return Report(
            kind="diagnostic.unreadable", at=datetime.now(UTC), data={"size_bytes": len(line)}
        )
