"""The one door for request bodies: bounded, decoded strictly and once, before a route sees them.

A JSON body is parsed here and handed on in the scope; `GuardedRoute` gives it to FastAPI, so that
nothing parses it again. Whatever is refused is answered with a problem and never repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.errors import problem_response
from services.schemas.problems import FieldError
from services.strict_json import JsonLimits, JsonRefusedError, parse_strict

_JSON_KEY = "mige.json"
OCTET_STREAM = "application/octet-stream"
_STRANGER_BYTES = 64 * 1024  # without any key, more than this is not even read
# Batches of reports, far above what `jobs.report_tail` makes of one.
REPORT_LIMITS = JsonLimits(max_bytes=4 * 1024 * 1024, max_keys=100_000)
MAX_ARRAY_BYTES = 32 * 1024 * 1024  # about 2,600 float32 images of 3 × 32 × 32


@dataclass(frozen=True, slots=True)
class _Rule:
    """What the paths that match `pattern` accept."""

    pattern: re.Pattern[str]
    json: JsonLimits
    array_bytes: int = 0  # 0: no application/octet-stream


_RULES = (
    # Images as nested lists; more than about 300 small images belong into an npy body.
    _Rule(
        re.compile(r"/v1/encoders/[^/]+/embed"),
        JsonLimits(max_bytes=4 * 1024 * 1024),
        MAX_ARRAY_BYTES,
    ),
    _Rule(re.compile(r"/v1/attempts/.*"), REPORT_LIMITS),
)
_DEFAULT_RULE = _Rule(re.compile(""), JsonLimits())


class _RefusedError(Exception):
    """The body is refused with this problem."""

    def __init__(
        self,
        code: str,
        detail: str,
        remedy: str | None = None,
        errors: tuple[FieldError, ...] = (),
    ) -> None:
        super().__init__(code, detail)
        self.code, self.detail, self.remedy, self.errors = code, detail, remedy, errors


class BodyGuard:
    """ASGI middleware: refuses bodies that are too large or malformed, parses JSON strictly."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the body of an HTTP request, then call the application."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            body = await _checked_body(scope, receive)
        except _RefusedError as error:
            request_id = scope["state"]["request_id"]
            headers = {"WWW-Authenticate": "Bearer"} if error.code == "unauthorized" else None
            response = problem_response(
                request_id,
                error.code,
                error.detail,
                remedy=error.remedy,
                errors=error.errors,
                headers=headers,
            )
            await response(scope, receive, send)
            return
        if body is not None:  # None: the client went away
            await self._app(scope, _Replay(body, receive), send)


class _Replay:
    """Hands the body on as one message, then whatever the server says (a disconnect)."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _checked_body(scope: Scope, receive: Receive) -> bytes | None:
    headers = Headers(scope=scope)
    if "content-encoding" in headers:
        raise _RefusedError("media_type_unsupported", "A Content-Encoding is not accepted.")
    rule = next((r for r in _RULES if r.pattern.fullmatch(scope["path"])), _DEFAULT_RULE)
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_array = media_type == OCTET_STREAM and rule.array_bytes > 0
    limit = rule.array_bytes if is_array else rule.json.max_bytes
    if "authorization" not in headers and limit > _STRANGER_BYTES:
        body = await _read(headers, receive, _STRANGER_BYTES, _stranger)
    else:
        body = await _read(headers, receive, limit, _too_large)
    if not body or is_array:
        return body
    if media_type != "application/json":
        accepted = f"application/json{f' or {OCTET_STREAM}' if rule.array_bytes else ''}"
        raise _RefusedError("media_type_unsupported", f"The body must be {accepted}.")
    try:
        scope[_JSON_KEY] = parse_strict(body, rule.json)
    except JsonRefusedError as error:
        raise _json_refused(error) from None
    return body


async def _read(
    headers: Headers, receive: Receive, limit: int, refusal: Callable[[int], _RefusedError]
) -> bytes | None:
    """Read at most `limit` bytes; a declared length beyond it is refused without reading."""
    declared = headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
        raise refusal(limit)
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise refusal(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _json_refused(error: JsonRefusedError) -> _RefusedError:
    errors: tuple[FieldError, ...] = ()
    if error.pointer is not None:
        errors = (
            FieldError(
                pointer=error.pointer,
                code="json_refused",
                detail=error.detail,
                remedy=error.remedy,
            ),
        )
    return _RefusedError("json_refused", error.detail, error.remedy, errors)


def _too_large(limit: int) -> _RefusedError:
    return _RefusedError("body_too_large", f"The body may have at most {limit} bytes.")


def _stranger(_limit: int) -> _RefusedError:
    return _RefusedError("unauthorized", "Send one header `Authorization: Bearer <key>`.")


class _GuardedRequest(Request):
    """A request whose JSON was parsed by the guard."""

    async def json(self) -> Any:  # noqa: ANN401 - any JSON value
        return self.scope[_JSON_KEY]


class GuardedRoute(APIRoute):
    """A route that takes its JSON from the guard."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler on a request that does not parse again."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await handler(_GuardedRequest(request.scope, request.receive))

        return handle
