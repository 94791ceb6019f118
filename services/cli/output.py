"""How the commands speak: text for people, `--json` for programs, one line per expected error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

EXIT_FAILED = 1
EXIT_REJECTED = 2
EXIT_CANCELLED = 130

_PIPE_WIDTH = 250  # a pipe has none, and what reads it should find a row in a line


def console() -> Console:
    """For people, on standard output. Made on each call: tests and pipes replace the stream."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    return Console(file=sys.stdout, soft_wrap=True, highlight=False, width=width)


def errors() -> Console:
    """For people, on standard error: what must not end in a pipe."""
    return Console(file=sys.stderr, soft_wrap=True, highlight=False)


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_text(text: str) -> None:
    """Text as it is, whatever it holds, on standard output."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table; `empty` where there is no row."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "ID")
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007  (the count is used after the loop)
        table.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    if count:
        console().print(table)
    else:
        errors().print(empty)


def fail(message: str, code: int = EXIT_FAILED) -> typer.Exit:
    """Print what went wrong; raise what this returns."""
    errors().print(f"[red]error[/red] {escape(message)}")
    return typer.Exit(code)


def note(message: str) -> None:
    """A hint for people, on standard error."""
    errors().print(f"[dim]{escape(message)}[/dim]")


def progress_text(job: Mapping[str, Any]) -> str:
    """`step 120/400`, or nothing before the first step."""
    progress = job.get("progress")
    return f"step {progress['step']}/{progress['total_steps']}" if progress else ""


def why(job: Mapping[str, Any]) -> str:
    """Why a job ended, in one paragraph: message, remedy, reason."""
    parts = [job.get("message"), job.get("remedy")]
    text = " ".join(str(part) for part in parts if part)
    reason = job.get("reason")
    return f"{text} ({reason})" if text and reason else text or str(reason or "no reason is known")
