import json
import math

import pytest

from jobs.serialization import canonical, clean_text, dumps, finite


def test_equal_values_have_equal_canonical_bytes():
    assert canonical({"a": 1, "b": [2]}) == canonical({"b": [2], "a": 1})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused_or_made_null(number):
    with pytest.raises(ValueError, match="JSON compliant"):
        dumps({"loss": number})
    assert dumps(finite({"loss": [number, 1.5, True, None, "x"]})) == (
        '{"loss":[null,1.5,true,null,"x"]}'
    )


def test_every_text_can_be_stored():
    text = "a\0b\ud800c"
    assert clean_text(text) == "ab?c"
    assert json.loads(dumps(text)) == text


def test_what_is_not_json_is_a_mistake():
    with pytest.raises(TypeError, match="set"):
        finite({"x": {1}})
