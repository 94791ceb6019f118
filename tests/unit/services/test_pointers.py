import pytest
from pydantic import ValidationError

from jobs.spec import JobSpec
from services.pointers import detail_of, pointer_of, pointer_to, remedy_of

GOOD = {
    "objective": {"kind": "mige_infomax"},
    "encoder": {"kind": "mlp"},
    "data": {"kind": "digits"},
}


def errors_of(body):
    with pytest.raises(ValidationError) as caught:
        JobSpec.model_validate(body)
    return caught.value.errors()


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"data": {"kind": "arrays", "file": "../x"}}, "/data/file", "string_pattern_mismatch"),
        ({"data": {"kind": "arrays"}}, "/data/file", "missing"),
        ({"data": {"kind": "nonsense"}}, "/data/kind", "union_tag_invalid"),
        ({"data": {}}, "/data/kind", "union_tag_not_found"),
        ({"surprise": 1}, "/surprise", "extra_forbidden"),
        ({"a/b~c": 1}, "/a~1b~0c", "extra_forbidden"),
        ({"encoder": {"kind": "mlp", "out_dim": True}}, "/encoder/out_dim", "int_type"),
        (
            {"encoder": {"kind": "mlp", "hidden_dims": [8, 0]}},
            "/encoder/hidden_dims/1",
            "greater_than_equal",
        ),
        (
            {
                "objective": {
                    "kind": "mige_infomax",
                    "estimator": {
                        "kind": "spectral",
                        "bandwidth": {"kind": "median", "scale": 0},
                    },
                }
            },
            "/objective/estimator/bandwidth/scale",
            "greater_than",
        ),
        ({"metadata": {"bad key": "x"}}, "/metadata/bad key", "string_pattern_mismatch"),
    ],
)
def test_a_pointer_addresses_the_json_that_was_sent(change, pointer, code):
    body = {**GOOD, **change}
    error = errors_of(body)[0]
    error["loc"] = ("body", *error["loc"])
    assert (pointer_of(error, body), error["type"]) == (pointer, code)


def test_details_and_remedies_do_not_repeat_the_input():
    secret = "hunter2-and-more"
    for change in ({"data": {"kind": secret}}, {"seed": secret}, {"name": secret.upper()}):
        for error in errors_of({**GOOD, **change}):
            assert secret not in detail_of(error).lower()
            assert remedy_of(error)


def test_a_pointer_has_a_bounded_length():
    assert len(pointer_to(("x" * 10_000,), {})) <= 300
