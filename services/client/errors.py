"""What can go wrong between a client and the service.

ClientError
├── CredentialsError        no address or no key to use
├── ConnectionFailedError   no answer, after bounded retries
├── ApiError                the service answered with a problem
├── StreamBrokenError       the event stream skips events again and again
├── WaitTimeoutError        a job did not end in the time given
└── DownloadError           a file cannot be fetched or written
    └── DigestMismatchError the bytes received are not the ones the manifest names
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ClientError(Exception):
    """Base of every error the client raises on purpose."""


class CredentialsError(ClientError):
    """There is no address or no key to use, or the file that holds them cannot be read."""


class ConnectionFailedError(ClientError):
    """The service gave no answer, after bounded retries."""

    def __init__(self, url: str, cause: str, waited_s: float) -> None:
        super().__init__(url, cause, waited_s)
        self.url, self.cause, self.waited_s = url, cause, waited_s

    def __str__(self) -> str:
        return (
            f"no answer from {self.url} in {self.waited_s:.0f} s ({self.cause}). Start the service "
            "with `mige serve`, or set MIGE_API_URL to where it runs."
        )


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One entry of a problem's `errors`: where, what, and a word for machines."""

    pointer: str
    detail: str
    code: str


class ApiError(ClientError):
    """The service refused or failed: an RFC 9457 problem, or what stood in its place.

    `status` is the HTTP status, `code` a stable word, `errors` the fields that are wrong,
    `retry_after_s` how long the service asked to wait.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], retry_after_s: float = 0.0) -> None:
        super().__init__(status, dict(problem), retry_after_s)
        self.status, self.retry_after_s = status, retry_after_s
        self.code = str(problem.get("code") or f"http_{status}")
        self.title = str(problem.get("title") or "The service refused the request")
        self.detail = str(problem.get("detail") or "")
        self.remedy = _text_or_none(problem.get("remedy"))
        self.request_id = _text_or_none(problem.get("request_id"))
        self.retryable = problem.get("retryable") is True
        self.errors = _field_problems(problem.get("errors"))

    def __str__(self) -> str:
        lines = [f"{self.title} ({self.status} {self.code})"]
        if self.detail and self.detail != self.title:
            lines.append(self.detail)
        lines += [f"  {e.pointer or '/'}: {e.detail}" for e in self.errors]
        if self.remedy:
            lines.append(f"Remedy: {self.remedy}")
        if self.status >= 500 and self.request_id:
            lines.append(f"Request id: {self.request_id}")
        return "\n".join(lines)


class StreamBrokenError(ClientError):
    """The event stream skipped events again and again."""

    def __init__(self, job_id: str, after: int, got: int) -> None:
        super().__init__(job_id, after, got)
        self.job_id, self.after, self.got = job_id, after, got

    def __str__(self) -> str:
        return f"the events of {self.job_id} jump from {self.after} to {self.got}"


class WaitTimeoutError(ClientError):
    """A job did not end in the time given. It goes on."""

    def __init__(self, job_id: str, status: str, timeout_s: float) -> None:
        super().__init__(job_id, status, timeout_s)
        self.job_id, self.status, self.timeout_s = job_id, status, timeout_s

    def __str__(self) -> str:
        return f"{self.job_id} is still {self.status} after {self.timeout_s:.0f} s"


class DownloadError(ClientError):
    """A file cannot be fetched or written."""


class DigestMismatchError(DownloadError):
    """The bytes received are not the ones the manifest names. The partial file is removed."""

    def __init__(self, path: Path, expected: str, got: str) -> None:
        super().__init__(path, expected, got)
        self.path, self.expected, self.got = path, expected, got

    def __str__(self) -> str:
        return (
            f"{self.path.name}: expected sha256 {self.expected}, got {self.got}. "
            "The partial file was removed; download again."
        )


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _field_problems(value: object) -> tuple[FieldProblem, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(
        FieldProblem(
            str(entry.get("pointer", "")), str(entry.get("detail", "")), str(entry.get("code", ""))
        )
        for entry in value
        if isinstance(entry, dict)
    )
