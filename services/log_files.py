"""The log of an attempt: the end of it, or a range, never more than a megabyte at once."""

from __future__ import annotations

import os
from pathlib import Path

from services.errors import ProblemError

MAX_BYTES = 1024 * 1024


def read_range(path: Path, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` of a file, at most `MAX_BYTES`; b"" where there is no file.

    Raises:
        ProblemError: `artifact_corrupt`: something else lies where the log should be.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return b""
    except OSError as error:
        detail = f"The log cannot be opened: {error.strerror}."
        raise ProblemError("artifact_corrupt", detail, remedy="Look at the file.") from error
    try:
        return os.pread(descriptor, min(stop - start, MAX_BYTES), start)
    finally:
        os.close(descriptor)


def size_of(path: Path) -> int:
    """How long the log is; 0 where there is none yet."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


def read_tail(path: Path, num_lines: int) -> bytes:
    """The last `num_lines` lines, as far as they fit into `MAX_BYTES`."""
    size = size_of(path)
    text = read_range(path, max(0, size - MAX_BYTES), size)
    lines = text.splitlines(keepends=True)
    if size > MAX_BYTES and len(lines) > 1:
        lines = lines[1:]  # the first one is cut
    return b"".join(lines[max(0, len(lines) - num_lines) :])
