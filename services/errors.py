"""Every failure becomes one RFC 9457 problem: the only place where errors meet HTTP statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from jobs import errors as jobs_errors
from services.openapi import PROBLEM_TYPE
from services.pointers import detail_of, pointer_of, remedy_of
from services.problems import PROBLEMS
from services.schemas.problems import FieldError, ProblemView

_RETRY_AFTER_S = {429: 5, 503: 2}

# A test asserts that every subclass of JobError is here.
STATUS_OF: Mapping[type[jobs_errors.JobError], int] = {
    jobs_errors.SpecInvalidError: 422,
    jobs_errors.NotFoundError: 404,
    jobs_errors.StateConflictError: 409,
    jobs_errors.IdempotencyConflictError: 422,
    jobs_errors.StaleFenceError: 409,
    jobs_errors.QuotaExceededError: 429,
    jobs_errors.StorageFullError: 507,
    jobs_errors.StorageUnavailableError: 503,
    jobs_errors.ArtifactInvalidError: 422,
    jobs_errors.DataInvalidError: 422,
    jobs_errors.DivergedError: 422,
    jobs_errors.WorkersLostError: 503,
    jobs_errors.StoppedError: 409,
    jobs_errors.SettingsError: 500,
}

_CODE_OF_STATUS = {
    400: "request_invalid",
    401: "unauthorized",
    403: "scope_missing",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "body_too_large",
    415: "media_type_unsupported",
}


class ProblemError(Exception):
    """A failure that only HTTP knows: a header, a media type, a range."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        remedy: str | None = None,
        errors: tuple[FieldError, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, detail)
        self.code, self.detail, self.remedy = code, detail, remedy
        self.errors, self.headers = errors, dict(headers or {})


def problem_response(
    request_id: str,
    code: str,
    detail: str,
    *,
    status: int | None = None,
    remedy: str | None = None,
    errors: tuple[FieldError, ...] = (),
    headers: Mapping[str, str] | None = None,
    current_state: str | None = None,
    retryable: bool | None = None,
) -> JSONResponse:
    """One problem as a response. What `code` does not fix is given."""
    kind = PROBLEMS.get(code, PROBLEMS["spec_invalid"])
    status = status or kind.status
    view = ProblemView(
        type=f"/problems/{code}",
        title=kind.title,
        status=status,
        detail=detail,
        instance=f"/v1/requests/{request_id}",
        code=code,
        request_id=request_id,
        retryable=kind.retryable if retryable is None else retryable,
        remedy=remedy or kind.remedy,
        errors=errors or None,
        current_state=current_state,
    )
    all_headers = dict(headers or {})
    if status in _RETRY_AFTER_S:
        all_headers.setdefault("Retry-After", str(_RETRY_AFTER_S[status]))
    return JSONResponse(
        view.model_dump(exclude_none=True),
        status_code=status,
        headers=all_headers,
        media_type=PROBLEM_TYPE,
    )


def install_error_handlers(app: FastAPI) -> None:
    """Answer every expected failure with a problem; the unexpected ones are caught outside."""
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(jobs_errors.JobError, _on_job_error)
    app.add_exception_handler(ProblemError, _on_problem)


def request_id_of(request: Request) -> str:
    """The id that `services.request_context` gave this request."""
    return str(request.scope["state"]["request_id"])


async def _on_problem(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, ProblemError):
        raise TypeError(type(error))
    return problem_response(
        request_id_of(request),
        error.code,
        error.detail,
        remedy=error.remedy,
        errors=error.errors,
        headers=error.headers,
    )


async def _on_job_error(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, jobs_errors.JobError):
        raise TypeError(type(error))
    status = next(STATUS_OF[cls] for cls in type(error).__mro__ if cls in STATUS_OF)
    return problem_response(
        request_id_of(request),
        error.code,
        _detail_of_job_error(error),
        status=status,
        remedy=getattr(error, "remedy", None),
        errors=_fields_of(error, in_body=request.method != "GET"),
        current_state=getattr(error, "current_state", None),
        retryable=error.retryable,
    )


def _detail_of_job_error(error: jobs_errors.JobError) -> str:
    """The detail without ids or keys that the caller sent."""
    if isinstance(error, jobs_errors.NotFoundError):
        return f"No {error.kind} has this id."
    if isinstance(error, jobs_errors.IdempotencyConflictError):
        return "This idempotency key was used before with a different body."
    return str(getattr(error, "detail", None) or error)


def _fields_of(error: jobs_errors.JobError, *, in_body: bool) -> tuple[FieldError, ...]:
    if not isinstance(error, jobs_errors.SpecInvalidError):
        return ()
    field = FieldError(
        pointer=error.pointer if in_body else None,
        parameter=None if in_body else f"query.{error.pointer.removeprefix('/')}",
        detail=error.detail,
        code=error.code,
        remedy=error.remedy,
    )
    return (field,)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise TypeError(type(error))
    code = _CODE_OF_STATUS.get(error.status_code, "request_invalid")
    kind = PROBLEMS[code]
    if error.status_code == 405:
        error.headers = {"Allow": ", ".join(sorted(_methods_of(request)))}
    return problem_response(
        request_id_of(request),
        code,
        f"{kind.title}.",
        status=error.status_code,
        headers=error.headers,
    )


def _methods_of(request: Request) -> set[str]:
    """Every method of every route that has this path."""
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path_regex.match(request.scope["path"]):
            methods |= route.methods or set()
    return methods


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise TypeError(type(error))
    fields = tuple(_field_error(item, error.body) for item in error.errors()[:20])
    places = ", ".join(sorted({f.pointer or f.parameter or "/" for f in fields})[:5])
    return problem_response(
        request_id_of(request),
        "validation_failed",
        f"{len(error.errors())} field(s) do not fit: {places}.",
        errors=fields,
    )


def _field_error(error: Mapping[str, Any], body: Any) -> FieldError:  # noqa: ANN401
    source, *rest = error["loc"]
    in_body = source == "body"
    return FieldError(
        pointer=pointer_of(error, body) if in_body else None,
        parameter=None if in_body else f"{source}.{'.'.join(map(str, rest))}"[:200],
        detail=detail_of(error),
        code=error["type"],
        remedy=remedy_of(error),
    )
