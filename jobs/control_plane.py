"""The control plane as a runner sees it: five requests, bound to one attempt by its token."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, TypeVar, runtime_checkable

import httpx2
from pydantic import BaseModel, ValidationError

from jobs.errors import (
    ArtifactInvalidError,
    JobError,
    StaleFenceError,
    StateConflictError,
    StorageUnavailableError,
)
from jobs.wire import (
    Acknowledged,
    Command,
    Exit,
    Heartbeat,
    Launch,
    Manifest,
    Published,
    ReportBatch,
)

TIMEOUT_S = 10.0
PUBLISH_TIMEOUT_S = 120.0  # the control plane hashes and copies every file meanwhile
CONFLICT, FIRST_ERROR, TOO_MANY = 409, 400, 429
UNAUTHORIZED = (401, 403)

M = TypeVar("M", bound=BaseModel)


@runtime_checkable
class ControlPlane(Protocol):
    """What a runner asks of the control plane.

    Every method raises `StaleFenceError` if a newer attempt exists, `StorageUnavailableError` if
    the same request may succeed later, and `ArtifactInvalidError` if it never will.
    """

    def heartbeat(self, heartbeat: Heartbeat) -> Command:
        """Say that the attempt lives; learn what is wanted of it."""

    def report(self, batch: ReportBatch) -> Acknowledged:
        """Hand over reports; learn how many lines are stored."""

    def finalize(self) -> None:
        """From here on a cancel comes too late; `StateConflictError` if one came before."""

    def publish(self, manifest: Manifest) -> Published:
        """Publish the staged files."""

    def end(self, end: Exit) -> None:
        """The attempt is over."""


class HttpControlPlane:
    """The control plane over HTTP. Safe to use from several threads."""

    def __init__(self, launch: Launch, transport: httpx2.BaseTransport | None = None) -> None:
        self._job_id, self._fence = launch.job_id, launch.fence
        self._client = httpx2.Client(
            base_url=f"{launch.api_url.rstrip('/')}/v1/attempts/{launch.job_id}/{launch.fence}/",
            headers={"Authorization": f"Bearer {launch.token}"},
            timeout=TIMEOUT_S,
            trust_env=False,  # a proxy of the environment must not see the token
            transport=transport,
        )

    def __enter__(self) -> HttpControlPlane:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def heartbeat(self, heartbeat: Heartbeat) -> Command:
        """Say that the attempt lives; learn what is wanted of it."""
        return self._answer(Command, self._post("heartbeat", heartbeat))

    def report(self, batch: ReportBatch) -> Acknowledged:
        """Hand over reports; learn how many lines are stored."""
        return self._answer(Acknowledged, self._post("reports", batch))

    def finalize(self) -> None:
        """From here on a cancel comes too late."""
        self._post("finalize", None)

    def publish(self, manifest: Manifest) -> Published:
        """Publish the staged files."""
        return self._answer(Published, self._post("publish", manifest, PUBLISH_TIMEOUT_S))

    def end(self, end: Exit) -> None:
        """The attempt is over."""
        self._post("end", end)

    def _post(
        self, path: str, message: BaseModel | None, timeout_s: float = TIMEOUT_S
    ) -> httpx2.Response:
        content = "{}" if message is None else message.model_dump_json()
        try:
            response = self._client.post(
                path,
                content=content,
                headers={"Content-Type": "application/json"},
                timeout=timeout_s,
            )
        except httpx2.TransportError as error:
            raise _unavailable(f"{type(error).__name__}: {error}") from error
        if response.status_code >= FIRST_ERROR:
            raise self._error(response)
        return response

    def _error(self, response: httpx2.Response) -> JobError:
        status, problem = response.status_code, _problem(response)
        code, detail = problem.get("code"), str(problem.get("detail", f"HTTP {status}"))
        if status == CONFLICT and code == StaleFenceError.code:
            return StaleFenceError(self._job_id, self._fence)
        if status == CONFLICT:
            state = str(problem.get("current_state", "in another state"))
            return StateConflictError(self._job_id, state, detail)
        if status >= 500 or status == TOO_MANY or status in UNAUTHORIZED:
            return _unavailable(f"HTTP {status}: {detail}")
        remedy = str(problem.get("remedy") or "See the log of the attempt.")
        return ArtifactInvalidError(f"The control plane refused a request: {detail}", remedy)

    def _answer(self, model: type[M], response: httpx2.Response) -> M:
        try:
            return model.model_validate_json(response.content)
        except ValidationError as error:  # something else listens there
            raise _unavailable("its answer is not understood") from error


def _unavailable(detail: str) -> StorageUnavailableError:
    return StorageUnavailableError(
        f"The control plane does not answer: {detail}.", "Check that the service runs."
    )


def _problem(response: httpx2.Response) -> dict[str, object]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
