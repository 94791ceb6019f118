"""What the benchmarks share: rows that survive an interruption, and Markdown tables."""

import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import mige

Row = dict[str, Any]


class RowStore:
    """Measured rows in a file, one JSON object a line; what is there is not measured again."""

    def __init__(self, path: Path, key: Sequence[str]) -> None:
        self._path = path
        self._key = tuple(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        whole, _, cut_off = text.rpartition("\n")
        if cut_off:  # by an interruption: measured again, on a line of its own
            path.write_text(whole and whole + "\n")
        self.rows: list[Row] = [json.loads(line) for line in whole.splitlines()]
        self._known = {self._key_of(row) for row in self.rows}

    def measure(self, key: Mapping[str, object], measure: Callable[[], Row]) -> None:
        """Append `measure()` under `key`, unless a row of that key is there."""
        known = self._key_of(key)
        if known in self._known:
            return
        row = {**key, **measure()}
        self._known.add(known)
        self.rows.append(row)
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _key_of(self, row: Mapping[str, object]) -> tuple[object, ...]:
        return tuple(row[name] for name in self._key)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def environment() -> dict[str, str]:
    """What a reader needs to compare times and digits."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mige": mige.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
    }


def progress(text: str) -> None:
    """Tell the person at the terminal; tables go to standard output."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
