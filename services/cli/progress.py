"""How far a job is, live: a bar on a terminal, a line per piece of news elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_LINE_EVERY = 0.1  # of all steps, where lines are printed instead of a bar


class JobProgress:
    """Shows a job again and again: `update` takes it as the service sends it."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stderr, highlight=False)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line, self._next_share = "", 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[detail]}"),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("queued", total=None, detail="")
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, job: Mapping[str, Any]) -> None:
        """Show the job as it is now."""
        if self._bar is None or self._task is None:
            self._print_news(job)
            return
        progress = job.get("progress") or {}
        self._bar.update(
            self._task,
            description=stage_of(job),
            completed=progress.get("step", 0),
            total=progress.get("total_steps") or None,
            detail=detail_of(job),
        )

    def _print_news(self, job: Mapping[str, Any]) -> None:
        progress = job.get("progress") or {}
        share = progress.get("step", 0) / (progress.get("total_steps") or 1)
        stage = stage_of(job)
        if stage == self._last_line and share < self._next_share:
            return
        if stage != self._last_line or share > 0:
            detail = detail_of(job)
            self._console.print(f"{stage}  {detail}" if detail else stage, soft_wrap=True)
        self._last_line = stage
        while self._next_share <= share:
            self._next_share += _LINE_EVERY


def stage_of(job: Mapping[str, Any]) -> str:
    """One word for where it stands: the phase while it runs, else the status."""
    phase = job.get("phase")
    if job["status"] == "running" and phase:
        return str(phase).replace("_", " ")
    return str(job["status"])


def detail_of(job: Mapping[str, Any]) -> str:
    """`step 120/400  epoch 24/80  loss -3.21  ETA 0:42`; empty before the first step."""
    progress = job.get("progress")
    if not progress or not progress["total_steps"]:
        return ""
    parts = [
        f"step {progress['step']}/{progress['total_steps']}",
        f"epoch {progress['epoch']}/{progress['epochs']}",
    ]
    if progress.get("loss") is not None:
        parts.append(f"loss {progress['loss']:.3g}")
    if progress.get("eta_seconds") is not None and stage_of(job) == "training":
        minutes, seconds = divmod(round(progress["eta_seconds"]), 60)
        parts.append(f"ETA {minutes}:{seconds:02d}")
    return "  ".join(parts)
