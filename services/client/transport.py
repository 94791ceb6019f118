"""One HTTP exchange with patience: what is safe to repeat is repeated, with jitter, for a while.

Every request of this client may be repeated: reads, verbs that are idempotent by design, and
submissions, which carry an idempotency key. So a lost answer never costs more than a second try.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

import httpx2

from services.client.errors import ApiError, ConnectionFailedError

_RETRY_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often to try again.

    A service that never answered may simply not run: `first_s` is short. One that has answered
    before is more likely restarting: `again_s`.
    """

    first_s: float = 4.0
    again_s: float = 60.0
    delay_s: float = 0.2
    longest_delay_s: float = 2.0

    def delay(self, tries: int, jitter: float) -> float:
        """Seconds before the next try: doubled each time, bounded, times 0.5 … 1 (`jitter`)."""
        doubled: float = self.delay_s * 2.0 ** min(tries, 30)
        return min(self.longest_delay_s, doubled) * (0.5 + 0.5 * jitter)


class RequestOptions(TypedDict, total=False):
    """What one request may carry; as `httpx2.Client.request` takes it."""

    params: Mapping[str, Any]
    headers: Mapping[str, str]
    json: Mapping[str, Any]
    content: bytes
    timeout: float


class Clock:
    """Time as the client sees it; a test passes its own."""

    def now(self) -> float:
        """Seconds of a monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Retrier:
    """Decides, failure after failure, whether to try again; sleeps, or raises what happened."""

    def __init__(self, limit_s: float, patience: Patience, clock: Clock, url: str) -> None:
        self._limit_s, self._patience, self._clock, self._url = limit_s, patience, clock, url
        self._first_failure, self._tries = 0.0, 0

    def progressed(self) -> None:
        """Something came through: the patience starts anew, and is that for a known service."""
        self._limit_s, self._tries = self._patience.again_s, 0

    def failed(self, failure: httpx2.HTTPError | ApiError) -> None:
        """Sleep before the next try; never less than the service asked for.

        Args:
            failure: what happened.

        Raises:
            ConnectionFailedError: the patience is used up without an answer.
            ApiError: the patience is used up; this was the last answer.
        """
        asked = failure.retry_after_s if isinstance(failure, ApiError) else 0.0
        delay = max(asked, self._patience.delay(self._tries, random.random()))  # noqa: S311
        if self._tries == 0:
            self._first_failure = self._clock.now()
        waited = self._clock.now() - self._first_failure
        if waited + delay > self._limit_s:
            if isinstance(failure, ApiError):
                raise failure
            raise ConnectionFailedError(self._url, _cause(failure), waited) from failure
        self._tries += 1
        self._clock.sleep(delay)


class Transport:
    """Sends requests to one service and turns refusals into `ApiError`."""

    def __init__(
        self, http: httpx2.Client, *, patience: Patience | None = None, clock: Clock | None = None
    ) -> None:
        self._http = http
        self._patience = patience or Patience()
        self._clock = clock or Clock()
        self._answered = False

    def now(self) -> float:
        """Seconds of the client's monotonic clock."""
        return self._clock.now()

    def pause(self, seconds: float) -> None:
        """Wait, by the client's clock."""
        self._clock.sleep(seconds)

    def retrier(self) -> Retrier:
        """A fresh judge of failures for one request or one stream."""
        limit_s = self._patience.again_s if self._answered else self._patience.first_s
        return Retrier(limit_s, self._patience, self._clock, str(self._http.base_url))

    def request(
        self,
        method: str,
        path: str,
        *,
        accept: Callable[[int], bool] = lambda status: status < 400,
        **options: Unpack[RequestOptions],
    ) -> httpx2.Response:
        """Send one request, again where that may help.

        Args:
            method: HTTP method.
            path: below the base URL.
            accept: which statuses are an answer rather than a problem.
            options: passed to `httpx2.Client.request`.

        Raises:
            ApiError: the service refused, or kept failing.
            ConnectionFailedError: no answer.
        """
        retrier = self.retrier()
        while True:
            try:
                response = self._http.request(method, path, **options)
            except httpx2.TransportError as exc:
                retrier.failed(exc)
                continue
            self._answered = True
            if accept(response.status_code):
                return response
            error = problem_of(response)
            if not is_transient(error):
                raise error
            retrier.failed(error)

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str], read_timeout_s: float
    ) -> Iterator[httpx2.Response]:
        """Open one streamed GET, without retries: who reads it knows where to go on.

        Raises:
            ApiError: the service refused.
            httpx2.TransportError: the connection failed or broke.
        """
        timeout = httpx2.Timeout(10.0, read=read_timeout_s)
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            self._answered = True
            if response.status_code >= 400:
                response.read()
                raise problem_of(response)
            yield response


def problem_of(response: httpx2.Response) -> ApiError:
    """The problem in a refusal; a plain one where the body is not a problem document."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {"title": response.reason_phrase, "detail": response.text[:500]}
    return ApiError(response.status_code, body, _retry_after(response))


def is_transient(error: ApiError) -> bool:
    """Whether the same request may succeed later."""
    return error.status in _RETRY_STATUSES or (error.status == 409 and error.retryable)


def _retry_after(response: httpx2.Response) -> float:
    """Seconds the service asked to wait (0 if it did not, or named a date)."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else 0.0


def _cause(failure: httpx2.HTTPError) -> str:
    return str(failure) or type(failure).__name__
