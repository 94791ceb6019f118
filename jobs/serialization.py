"""JSON as it is stored: compact, ASCII, and never NaN or Infinity."""

from __future__ import annotations

import json
import math

from pydantic import JsonValue


def dumps(value: object) -> str:
    """`value` as JSON that every reader accepts.

    Raises:
        ValueError: a number is not finite; see `finite`.
    """
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def canonical(value: object) -> bytes:
    """`value` as JSON with sorted keys: equal values give equal bytes."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()


def finite(value: object) -> JsonValue:
    """A copy of a JSON value in which a number that is not finite became null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    raise TypeError(f"{type(value).__name__} is not JSON")


def clean_text(text: str) -> str:
    """`text` without what databases refuse: NUL and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
