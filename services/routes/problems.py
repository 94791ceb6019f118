"""The pages behind the `type` of problems. Open to everybody: they hold nothing but words."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse

from jobs.errors import NotFoundError
from services.openapi import problem_responses
from services.problems import PROBLEMS, problem_page

router = APIRouter(prefix="/problems", tags=["problems"])


@router.get("/{code}", response_class=PlainTextResponse, responses=problem_responses(404))
def read_problem(code: str) -> PlainTextResponse:
    """What a problem means and what helps."""
    if code not in PROBLEMS:
        raise NotFoundError("problem", code)
    return PlainTextResponse(problem_page(code))
