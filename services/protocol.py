"""uvicorn's httptools protocol with the patience and the strictness that it lacks.

A connection is closed when its header is not complete 10 s after it was expected, when its body
comes slower than 1 kB/s after 10 s of grace, and when the client takes no bytes for 60 s. A header
above 64 KiB or of more than 200 lines and a request without exactly one Host are refused. The
approach is that of xinference's pull request 5213.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_S = 10.0
BODY_GRACE_S = 10.0
BODY_BYTES_PER_S = 1000
WRITE_STALL_S = 60.0
LINGER_S = 2.0
MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 200


class _Expected(Enum):
    """What the next byte of a connection belongs to."""

    ANYTHING = auto()  # the next request, if there is one
    HEADER = auto()
    BODY = auto()


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*args, **kwargs)
        self._receive_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._expected = _Expected.ANYTHING
        self._header_bytes = 0
        self._num_headers = 0
        self._num_hosts = 0
        self._body_bytes = 0
        self._body_started = 0.0
        self._refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a header soon."""
        super().connection_made(transport)
        self._arm_receive(HEADER_S, self._check_header)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._disarm_receive()
        self._disarm_write()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; a header may not grow without end."""
        if self._refused or self.transport.is_closing():
            return
        before = self._expected
        super().data_received(data)
        if before is self._expected is _Expected.HEADER:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_message_begin(self) -> None:
        """A new header begins."""
        super().on_message_begin()
        self._expected = _Expected.HEADER
        self._header_bytes = self._num_headers = self._num_hosts = 0
        self._arm_receive(HEADER_S, self._check_header)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count what the checks need."""
        super().on_header(name, value)
        self._num_hosts += name.lower() == b"host"
        self._num_headers += 1
        self._header_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """Start the request, unless its header is refused."""
        self._expected = _Expected.BODY
        if self._header_bytes > MAX_HEADER_BYTES or self._num_headers > MAX_HEADERS:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._num_hosts != 1:
            self._refuse(HTTPStatus.BAD_REQUEST)
        if self._refused:
            return
        self._body_bytes, self._body_started = 0, self.loop.time()
        self._arm_receive(BODY_GRACE_S, self._check_body)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count the bytes of the body."""
        if not self._refused:
            self._body_bytes += len(body)
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is here: nothing more is expected for now."""
        if not self._refused:
            self._disarm_receive()
            self._expected = _Expected.ANYTHING
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Discard what is left of a refused body for a moment: a reset could lose the answer."""
        super().on_response_complete()
        if self._expected is _Expected.BODY:
            self._arm_receive(LINGER_S, self._close)

    def pause_writing(self) -> None:
        """The client takes no bytes: wait for it, but not for ever."""
        super().pause_writing()
        self._disarm_write()
        self._write_timer = self.loop.call_later(WRITE_STALL_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client took some bytes."""
        super().resume_writing()
        self._disarm_write()

    def _check_header(self) -> None:
        """Close, unless an earlier request of the connection is still being answered."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete:
            self._arm_receive(1.0, self._check_header)
        else:
            self._close()

    def _check_body(self) -> None:
        """Close unless the body comes fast enough; while we do not read, it is our own doing."""
        expected_s = self.loop.time() - self._body_started - BODY_GRACE_S
        if self._body_bytes < BODY_BYTES_PER_S * (1 + expected_s) and not self.flow.read_paused:
            self._close()
            return
        self._arm_receive(1.0, self._check_body)

    def _refuse(self, status: HTTPStatus) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        line = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\n"
        self.transport.write(f"{line}content-length: 0\r\n\r\n".encode("ascii"))
        self.transport.close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()

    def _arm_receive(self, seconds: float, then: Any) -> None:  # noqa: ANN401 - a callback
        self._disarm_receive()
        self._receive_timer = self.loop.call_later(seconds, then)

    def _disarm_receive(self) -> None:
        if self._receive_timer is not None:
            self._receive_timer.cancel()
            self._receive_timer = None

    def _disarm_write(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
