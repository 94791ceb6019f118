"""From pydantic's error locations to JSON pointers (RFC 6901) into the JSON that was sent: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MAX_POINTER = 300

# What helps, by pydantic's error type; the others get no remedy of their own.
_REMEDIES: Mapping[str, str] = {
    "extra_forbidden": "Remove the key or correct its spelling.",
    "missing": "Add the field.",
    "unknown_parameter": "Remove the parameter or correct its spelling.",
    "union_tag_not_found": "Add `kind`.",
    "union_tag_invalid": "Send one of the kinds in `detail`.",
    "finite_number": "Send a finite number.",
}


def pointer_to(location: Sequence[int | str], body: Any) -> str:  # noqa: ANN401 - any JSON value
    """The pointer for a location below the body, without the tags that unions put into it.

    Pydantic names the chosen member of a union in the location: ("data", "arrays", "file") for
    {"data": {"kind": "arrays"}}. A part that is no key of the object but equals its `kind` is such
    a tag.
    """
    pointer, value = "", body
    for part in location:
        if isinstance(value, Mapping) and part not in value and part == value.get("kind"):
            continue
        if part == "[key]":
            continue
        pointer += "/" + str(part).replace("~", "~0").replace("/", "~1")
        value = _child(value, part)
    return pointer[:_MAX_POINTER]


def pointer_of(error: Mapping[str, Any], body: Any) -> str:  # noqa: ANN401
    """The pointer for one of pydantic's errors in the body; a wrong tag is an error of `kind`."""
    _source, *location = error["loc"]
    tag = ("kind",) if error["type"].startswith("union_tag") else ()
    return pointer_to((*location, *tag), body)


def _child(value: Any, part: int | str) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def detail_of(error: Mapping[str, Any]) -> str:
    """Pydantic's message, without what was sent."""
    context = error.get("ctx") or {}
    if error["type"] == "union_tag_invalid":
        return f"Must be one of {context.get('expected_tags')}"
    return str(error["msg"])[:500]


def remedy_of(error: Mapping[str, Any]) -> str:
    """What the caller can do about one field."""
    return _REMEDIES.get(error["type"], "Send a value that fits.")
