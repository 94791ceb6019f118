import json

import pytest
from pydantic import ValidationError

from jobs.spec import JobSpec
from jobs.spec_base import Spec

MINIMAL = {
    "objective": {"kind": "mige_infomax"},
    "encoder": {"kind": "mlp"},
    "data": {"kind": "digits"},
}


def with_value(pointer: str, value: object) -> dict:
    spec = json.loads(json.dumps(MINIMAL))
    *parents, last = pointer.strip("/").split("/")
    part = spec
    for name in parents:
        part = part.setdefault(name, {})
    part[last] = value
    return spec


def validate(spec: dict) -> JobSpec:
    return JobSpec.model_validate_json(json.dumps(spec))


def test_a_spec_needs_only_an_objective_an_encoder_and_data():
    assert validate(MINIMAL).training.batch_size == 256


def test_a_resolved_spec_survives_a_round_trip_unchanged():
    resolved = validate(MINIMAL).resolved()
    assert resolved.resolved() == resolved
    assert JobSpec.model_validate_json(resolved.model_dump_json()) == resolved


@pytest.mark.parametrize(
    ("route", "given", "expected"),
    [("joint", None, 32), ("joint", 7, 7), ("conditional", None, None)],
)
def test_the_projection_width_defaults_to_twice_the_embedding_on_the_joint_route(
    route, given, expected
):
    spec = with_value("/objective/route", route)
    spec["objective"]["projection_dim"] = given
    assert validate(spec).resolved().objective.projection_dim == expected


def test_the_default_projection_width_stays_within_its_own_bound():
    resolved = validate(with_value("/encoder/out_dim", 4096)).resolved()
    assert JobSpec.model_validate_json(resolved.model_dump_json()) == resolved


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("/colour", "blue"),
        ("/training/batchsize", 3),
        ("/training/epochs", True),
        ("/training/epochs", 1.0),
        ("/training/epochs", "3"),
        ("/training/epochs", 0),
        ("/optimizer/learning_rate", 0),
        ("/objective/estimator", {"explained": 0.9}),
        ("/objective/estimator", {"kind": "spectral", "explained": 0.0}),
        ("/objective/estimator", {"kind": "spectral", "explained": 1.1}),
        ("/objective/estimator", {"kind": "spectral", "ridge": 0.1}),
        ("/encoder/hidden_dims", []),
        ("/encoder/hidden_dims", [True]),
        ("/encoder/kind", "transformer"),
        ("/data/kind", "imagenet"),
        ("/data", {"kind": "arrays", "file": "../secret.npz"}),
        ("/data", {"kind": "arrays", "file": "a/b.npz"}),
        ("/data", {"kind": "arrays", "file": ".."}),
        ("/data", {"kind": "image_folder", "folder": "/etc"}),
        ("/name", "Has Spaces"),
        ("/name", "a\n"),
        ("/metadata", {"k": 1}),
        ("/metadata", {"a b": "v"}),
        ("/seed", -1),
        ("/seed", 2**63),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(pointer, value):
    with pytest.raises(ValidationError):
        validate(with_value(pointer, value))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(number):
    text = json.dumps(with_value("/objective/noise_std", "HERE")).replace('"HERE"', number)
    with pytest.raises(ValidationError):
        JobSpec.model_validate_json(text)


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError):
        validate(MINIMAL).seed = 3


def test_every_part_of_the_spec_has_a_docstring_for_the_schema():
    parts = JobSpec.model_json_schema()["$defs"]
    assert [name for name, part in parts.items() if not part.get("description")] == []
    assert issubclass(JobSpec, Spec)
