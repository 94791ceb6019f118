"""One supervisor per home: a lock that ends with the process that holds it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import SettingsError


@contextmanager
def home_lock(home: Path, url: str) -> Iterator[None]:
    """Hold `<home>/serve.lock`, which names this process and its URL.

    Raises:
        SettingsError: another supervisor holds it, or the home cannot be written.
    """
    path = home / "serve.lock"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise SettingsError(
            f"The home {home} cannot be written: {exc.strerror}.",
            "Choose another one with --home, or free space and permissions there.",
        ) from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(
                f"The home {home} is in use by `mige serve`{_holder(descriptor)}.",
                "Use that one, stop it, or choose another home with --home.",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """` (pid 12, http://…)`, or nothing while the holder is still writing it."""
    try:
        content = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return ""
    return f" (pid {content['pid']}, {content['url']})"
