"""Who may do what: bearer keys for people, attempt tokens for runners. Every route has one of both.

Authentication is a dependency of the routers, never a look at the path, so that routing and
authentication cannot disagree; a test walks over every route and asks without a key.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, get_args

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from jobs.errors import NotFoundError
from jobs.records import ApiKeyRecord
from services.dependencies import StoreDep
from services.errors import ProblemError

Scope = Literal["jobs:read", "jobs:write", "encoders:read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_BEARER = re.compile(r"Bearer ([A-Za-z0-9_.-]{1,512})", re.IGNORECASE)


def bearer_token(request: Request) -> str:
    """The token of the one Authorization header.

    Raises:
        ProblemError: there is none, more than one, or it is not a bearer token.
    """
    values = request.headers.getlist("authorization")
    match = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        raise _unauthorized("Send one header `Authorization: Bearer <key>`.")
    return match[1]


async def authenticated(request: Request, store: StoreDep) -> ApiKeyRecord:
    """The key that the request shows; unknown, expired and revoked ones are all the same."""
    token = bearer_token(request)
    key = await run_in_threadpool(store.authenticate, token)
    if key is None:
        raise _unauthorized("This key is unknown, expired or revoked.")
    return key


KeyDep = Annotated[ApiKeyRecord, Depends(authenticated)]


def needs(scope: Scope) -> Callable[[ApiKeyRecord], Awaitable[ApiKeyRecord]]:
    """A dependency that lets a key with this scope (or `admin`) pass."""

    async def check(key: KeyDep) -> ApiKeyRecord:
        if scope not in key.scopes and "admin" not in key.scopes:
            raise ProblemError("scope_missing", f"This needs a key with the scope {scope}.")
        return key

    return check


JobsReader = Annotated[ApiKeyRecord, Depends(needs("jobs:read"))]
JobsWriter = Annotated[ApiKeyRecord, Depends(needs("jobs:write"))]
EncodersReader = Annotated[ApiKeyRecord, Depends(needs("encoders:read"))]


class AttemptIdentity:
    """The attempt that a runner's token is bound to."""

    def __init__(self, job_id: str, fence: int) -> None:
        self.job_id, self.fence = job_id, fence


async def authenticated_attempt(
    request: Request, job_id: str, fence: str, store: StoreDep
) -> AttemptIdentity:
    """The attempt in the path, if the token is bound to exactly that one."""
    owner = store.verify_attempt_token(bearer_token(request))
    if owner is None:
        raise _unauthorized("This attempt token is not valid.")
    # The fence stays text until here: a path that does not parse must ask for a token first.
    if (owner[0], str(owner[1])) != (job_id, fence):
        raise NotFoundError("attempt", f"{job_id}/{fence}")
    return AttemptIdentity(*owner)


AttemptDep = Annotated[AttemptIdentity, Depends(authenticated_attempt)]


def _unauthorized(detail: str) -> ProblemError:
    return ProblemError("unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
