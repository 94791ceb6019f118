"""Whether the process lives and whether the service can take work. Open to everybody."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from services.dependencies import ContextDep
from services.health import ReadinessView, check_readiness
from services.responses import model_response
from services.schemas.base import View

router = APIRouter(tags=["health"])


class LivenessView(View):
    """The process answers."""

    status: str = "alive"


@router.get("/livez")
async def live() -> LivenessView:
    """Whether the process answers at all."""
    return LivenessView()


@router.get(
    "/readyz",
    response_model=ReadinessView,
    responses={503: {"model": ReadinessView, "description": "The service cannot take work."}},
)
def ready(context: ContextDep) -> Response:
    """Whether the service can take work, and what is in its way."""
    view = check_readiness(context)
    return model_response(view, status=200 if view.status == "ready" else 503)
