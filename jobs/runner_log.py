"""The log of a runner: one line an event on stdout, which is the attempt's log file."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog


def configure_log(stream: TextIO | None = None) -> None:
    """Send this process's events to `stream` (None: stdout), tracebacks below them.

    What cannot be written is left out: a full disk must not end the thread that gives the sign of
    life.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        logger_factory=structlog.PrintLoggerFactory(
            cast("TextIO", _Unfailing(sys.stdout if stream is None else stream))
        ),
    )


class _Unfailing:
    """The part of a text stream that structlog uses, without its errors."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()
