"""Which processes need the head."""

import os
from pathlib import Path

from jobs.processes import is_running, start_mark


class UserRegistry:
    """One file for each process that needs the head: its number; in it, its mark."""

    def __init__(self, root: Path) -> None:
        self._directory = root / "users"

    def add_self(self) -> None:
        """Count this process as a user until it ends."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = self._directory / f".{os.getpid()}"
        beside.write_text(start_mark(os.getpid()) or "", encoding="utf-8")
        beside.replace(self._directory / str(os.getpid()))

    def living(self) -> int:
        """How many users run; the files of others are removed."""
        count = 0
        for entry in self._directory.glob("[0-9]*"):
            if is_running(int(entry.name), entry.read_text(encoding="utf-8")):
                count += 1
            else:
                entry.unlink(missing_ok=True)
        return count
