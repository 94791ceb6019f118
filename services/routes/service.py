"""About the service itself: its OpenAPI document and its Prometheus metrics."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from services.auth import authenticated
from services.dependencies import ContextDep
from services.openapi import build_openapi, problem_responses

router = APIRouter(
    tags=["service"], dependencies=[Depends(authenticated)], responses=problem_responses(401)
)


@router.get("/v1/openapi.json", include_in_schema=False)
async def read_openapi(request: Request) -> dict[str, Any]:
    """The OpenAPI document."""
    return build_openapi(request.app)


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}})
def read_metrics(context: ContextDep) -> Response:
    """Metrics for Prometheus; any key may read them."""
    text = context.metrics.render(context.store)
    return Response(text, media_type="text/plain; version=1.0.0; charset=utf-8")
