"""The OpenAPI document: FastAPI's, with problems described as what they are."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.schemas.problems import ProblemView

PROBLEM_TYPE = "application/problem+json"
_REFERENCE = "#/components/schemas/"


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that can fail with these statuses."""
    schema = {"$ref": f"{_REFERENCE}ProblemView"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def build_openapi(app: FastAPI) -> dict[str, Any]:
    """The document for this application, built once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        _describe_problems(document)
        app.openapi_schema = document
    return app.openapi_schema


def _describe_problems(document: dict[str, Any]) -> None:
    """Add the schema of problems and take FastAPI's own error body out."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    view = ProblemView.model_json_schema(ref_template=_REFERENCE + "{model}")
    schemas.update(view.pop("$defs", {}))
    schemas["ProblemView"] = view
    for path in document["paths"].values():
        for operation in path.values():
            if _is_fastapi_error(operation["responses"].get("422")):
                operation["responses"].update(
                    {str(k): v for k, v in problem_responses(422).items()}
                )
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)


def _is_fastapi_error(response: dict[str, Any] | None) -> bool:
    content = (response or {}).get("content", {}).get("application/json", {})
    return str(content.get("schema", {}).get("$ref", "")).endswith("/HTTPValidationError")
