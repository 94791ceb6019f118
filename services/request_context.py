"""The outermost layer: request id, allowed hosts, headers, log line, and the last resort."""

from __future__ import annotations

import time
from collections.abc import Iterable

import structlog
import uuid_utils
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.errors import problem_response
from services.metrics import RequestMetrics

_log = structlog.get_logger("services.requests")

_QUIET = ("/v1/attempts/", "/livez", "/readyz")  # asked every few seconds
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


class RequestContext:
    """ASGI middleware around everything else."""

    def __init__(
        self, app: ASGIApp, *, allowed_hosts: Iterable[str], metrics: RequestMetrics
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in allowed_hosts)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens inside."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        try:
            if _host_of(scope) in self._hosts:
                await self._app(scope, receive, answer.send)
            else:
                response = problem_response(
                    answer.request_id, "host_not_allowed", "This host name is not served here."
                )
                await response(scope, receive, answer.send)
        except Exception:  # process boundary: whatever a handler forgot becomes a 500 problem
            _log.exception("http.failed", request_id=answer.request_id, route=_route_of(scope))
            if answer.status is not None:
                raise  # half a response is out: only closing the connection says so
            response = problem_response(
                answer.request_id, "internal_error", "Something failed inside the service."
            )
            await response(scope, receive, answer.send)
        finally:
            self._record(scope, answer)

    def _record(self, scope: Scope, answer: _Answer) -> None:
        seconds = time.perf_counter() - answer.started
        route, status = _route_of(scope), answer.status or 0
        self._metrics.observe(scope["method"], route, status, seconds)
        quiet = status < 400 and route.startswith(_QUIET)
        (_log.debug if quiet else _log.info)(
            "http.request",
            request_id=answer.request_id,
            method=scope["method"],
            route=route,
            status=status,
            milliseconds=round(1000 * seconds, 2),
        )


class _Answer:
    """Adds the headers that every answer has, and remembers the status."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.started = time.perf_counter()
        self.request_id = f"req_{uuid_utils.uuid7().hex}"
        self.status: int | None = None
        self._send = send
        # uvicorn's state is shared by all requests: never write into it.
        scope["state"] = {**scope.get("state", {}), "request_id": self.request_id}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = self.request_id
            headers.setdefault("Cache-Control", "no-store")
            for name, value in _SECURITY_HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def _host_of(scope: Scope) -> str:
    """The name in the Host header, without the port."""
    host = Headers(scope=scope).get("host", "").lower()
    name, _, port = host.rpartition(":")
    return name if name and port.isdecimal() else host


def _route_of(scope: Scope) -> str:
    """The template of the route that matched: a closed set, unlike the path."""
    route = scope.get("route")
    return str(getattr(route, "path", "unmatched"))
