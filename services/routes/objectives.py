"""What can be trained: objectives with their JSON Schemas."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from services.auth import authenticated
from services.catalogue import ObjectiveView, list_objective_views, objective_schema
from services.openapi import problem_responses
from services.schemas.base import ListView

router = APIRouter(
    prefix="/v1/objectives",
    tags=["objectives"],
    dependencies=[Depends(authenticated)],
    responses=problem_responses(401),
)


@router.get("")
def list_objectives() -> ListView[ObjectiveView]:
    """List the objectives."""
    return ListView(data=list_objective_views(), has_more=False, next_cursor=None)


@router.get("/{name}/schema", responses=problem_responses(404))
def read_schema(name: str) -> dict[str, Any]:
    """Read the JSON Schema of a whole job spec with this objective."""
    return objective_schema(name)
