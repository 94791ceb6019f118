"""Refuses parameters that a route does not know: `?dryrun=true` would start a job."""

from __future__ import annotations

from fastapi import Request, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from services.auth import KeyDep

_ELSEWHERE = (params.Path, params.Header, params.Cookie)


async def known_query(request: Request, _key: KeyDep) -> None:
    """A dependency of a router, behind authentication.

    Raises:
        RequestValidationError: the query has a name that the route does not take.
    """
    route = request.scope["route"]
    if not isinstance(route, APIRoute):
        raise TypeError(type(route))
    fields = get_flat_params(route.dependant)  # codespell:ignore dependant
    known = {p.alias for p in fields if not isinstance(p.field_info, _ELSEWHERE)}
    if unknown := sorted(request.query_params.keys() - known):
        detail = f"No such parameter; there are: {', '.join(sorted(known)) or 'none'}"
        raise RequestValidationError(
            [{"type": "unknown_parameter", "loc": ("query", n), "msg": detail} for n in unknown]
        )
