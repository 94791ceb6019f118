import contextlib
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.strict_json import JsonLimits, JsonRefusedError, parse_strict

LIMITS = JsonLimits()
REFUSED = {
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": [-Infinity]}',
    "overflowing float": b'{"a": 1e999}',
    "overflowing float in a list of numbers": b"[1.0, 1e999, 2.0]",
    "integer beyond 64 bits": b'{"a": 9223372036854775808}',
    "integer beyond 64 bits in a list": b"[1, -9223372036854775809]",
    "integer of 5,000 digits": b"[" + b"1" * 5000 + b"]",
    "lone surrogate": b'{"a": "\\ud800"}',
    "lone surrogate as a key": b'{"\\udfff": 1}',
    "NUL": b'{"a": "x\\u0000y"}',
    "duplicate key": b'{"a": {"b": 1, "b": 1}}',
    "33 levels": b"[" * 33 + b"]" * 33,
    "100,000 levels": b"[" * 100_000,
    "2,001 keys": json.dumps({str(i): i for i in range(2001)}).encode(),
    "2,001 keys in many objects": json.dumps([{"a": 1}] * 2001).encode(),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "nothing": b" ",
    "two documents": b"{} {}",
    "no JSON": b"{'a': 1}",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_is_not_plain_json_is_refused_quickly_without_repeating_it(body):
    began = time.perf_counter()
    with pytest.raises(JsonRefusedError) as caught:
        parse_strict(body, LIMITS)
    assert time.perf_counter() - began < 5.0
    assert caught.value.detail.endswith(".")
    assert caught.value.remedy
    assert "ud800" not in caught.value.detail


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"a": {"b/c": [0, NaN]}}', "/a/b~1c/1"),
        (b"[NaN, 1, 2]", "/0"),
        (b"[1, NaN, 2]", "/1"),
        (b"[1, -Infinity]", "/1"),
        (b"[[0.5], [1e999]]", "/1/0"),
        (b'[{"a": 9223372036854775808}]', "/0/a"),
        (b'{"a": ["x", "\\u0000"]}', "/a/1"),
        (b'{"a": {"\\u0000": 1}}', "/a"),
        (b"Infinity", ""),
        (b'{"a": 1, "a": 1}', None),
    ],
)
def test_a_refused_value_is_pointed_at(body, pointer):
    with pytest.raises(JsonRefusedError) as caught:
        parse_strict(body, LIMITS)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        True,
        {"a": [1, 2.5, -0.0, 5e-324, 1e308, 2**63 - 1, -(2**63)]},
        {"a": "é\U0001f600\t", "b": [True, None, "x"]},
        {str(i): i for i in range(2000)},
    ],
)
def test_plain_json_comes_out_as_it_went_in(value):
    assert parse_strict(json.dumps(value).encode(), LIMITS) == value


def test_32_levels_are_allowed():
    assert parse_strict(b"[" * 32 + b"]" * 32, LIMITS) is not None


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_every_plain_document_survives(value):
    assert parse_strict(json.dumps(value).encode(), LIMITS) == value


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_parsed_or_refused(body):
    with contextlib.suppress(JsonRefusedError):
        parse_strict(body, LIMITS)
