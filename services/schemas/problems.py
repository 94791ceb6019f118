"""The body of every failure: RFC 9457 with a code, a remedy and JSON pointers."""

from __future__ import annotations

from pydantic import Field

from services.schemas.base import View


class FieldError(View):
    """One field that does not fit. Exactly one of `pointer` and `parameter` is given."""

    pointer: str | None = Field(default=None, description="JSON pointer into the body.")
    parameter: str | None = Field(
        default=None, description="Query, path or header, such as query.limit."
    )
    detail: str
    code: str
    remedy: str


class ProblemView(View):
    """`application/problem+json`. `type` leads to a page about `code`."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    retryable: bool
    remedy: str
    errors: tuple[FieldError, ...] | None = None
    current_state: str | None = None
