"""The objectives that `jobs.spec` knows, as data for clients."""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import create_model

from jobs.errors import NotFoundError
from jobs.spec import JobSpec
from jobs.spec_base import Spec
from services.schemas.base import View


class ObjectiveView(View):
    """One objective."""

    object: Literal["objective"] = "objective"
    name: str
    summary: str
    schema_url: str


def list_objective_views() -> list[ObjectiveView]:
    """Every objective, by name."""
    return [
        ObjectiveView(
            name=name,
            summary=(spec.__doc__ or "").partition("\n")[0],
            schema_url=f"/v1/objectives/{name}/schema",
        )
        for name, spec in sorted(_objectives().items())
    ]


def objective_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a job spec whose objective is this one.

    Raises:
        NotFoundError: there is no such objective.
    """
    spec = _objectives().get(name)
    if spec is None:
        raise NotFoundError("objective", name)
    model = create_model(
        "JobSpec", __base__=JobSpec, __doc__=JobSpec.__doc__, objective=(spec, ...)
    )
    return model.model_json_schema()


def _objectives() -> dict[str, type[Spec]]:
    """The members of the union in `JobSpec.objective`, by their `kind`."""
    annotation = JobSpec.model_fields["objective"].annotation
    members = get_args(annotation) or (annotation,)
    return {get_args(member.model_fields["kind"].annotation)[0]: member for member in members}
