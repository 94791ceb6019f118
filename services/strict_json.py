"""JSON as this service accepts it: pure, no HTTP.

Stricter than the standard: one way to write a thing, nothing that a database, a log line or a float
cannot hold. Refused are duplicate keys, NaN, Infinity and numbers that overflow a float, integers
beyond 64 bits, lone surrogates and NUL, too deep nesting, too many keys, and anything but UTF-8.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
# A NUL is refused although JSON allows it: PostgreSQL text cannot store it.
_BAD_CHARACTER = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """How large a body may be before and after parsing."""

    max_bytes: int = 1024 * 1024
    max_depth: int = 32
    max_keys: int = 2_000


class JsonRefusedError(ValueError):
    """The text is not acceptable JSON. `detail` never repeats what was sent."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail, remedy)
        self.detail, self.remedy = detail, remedy


def parse_strict(body: bytes, limits: JsonLimits) -> Any:  # noqa: ANN401 - any JSON value
    """Parse `body` once and check every value in it.

    Raises:
        JsonRefusedError: the body breaks one of the rules above.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"The body is not UTF-8: the byte at position {error.start} does not fit."
        raise JsonRefusedError(detail, "Send JSON encoded as UTF-8.") from None
    counter = _KeyCounter(limits.max_keys)
    try:
        value = json.loads(
            text, object_pairs_hook=counter.object_of, parse_constant=_refuse_constant
        )
    except json.JSONDecodeError as error:
        detail = f"The body is not JSON: {error.msg} at line {error.lineno} column {error.colno}."
        raise JsonRefusedError(detail, "Send one JSON document.") from None
    except RecursionError:
        raise _too_deep(limits.max_depth) from None
    except JsonRefusedError:
        raise
    except ValueError:  # an integer of more than 4,300 digits
        raise _integer_refused() from None
    _check_values(value, limits.max_depth)
    return value


class _KeyCounter:
    """Builds objects, refuses duplicates and counts keys over the whole document."""

    def __init__(self, max_keys: int) -> None:
        self._left = self._max = max_keys

    def object_of(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self._left -= len(pairs)
        if self._left < 0:
            detail = f"The body has more than {self._max} keys."
            raise JsonRefusedError(detail, "Send a smaller document.")
        value = dict(pairs)
        if len(value) != len(pairs):
            detail = "An object of the body has the same key twice."
            raise JsonRefusedError(detail, "Send each key once.")
        return value


def _check_values(root: Any, max_depth: int) -> None:  # noqa: ANN401
    """Walk without recursion; a list of plain numbers is checked without a Python loop."""
    stack: list[tuple[Any, int]] = [(root, 0)]
    while stack:
        value, depth = stack.pop()
        if isinstance(value, dict):
            _check_depth(depth + 1, max_depth)
            for key in value:
                _check_text(key)
            stack.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list):
            _check_depth(depth + 1, max_depth)
            if not _is_plain_numbers(value):
                stack.extend((item, depth + 1) for item in value)
        else:
            _check_scalar(value)


def _is_plain_numbers(values: list[Any]) -> bool:
    """Whether all are numbers within range; a number out of range is left to the slow path."""
    kinds = set(map(type, values))
    if not values or not kinds <= {int, float}:
        return False
    low, high = min(values), max(values)
    return bool(low >= _INT64_MIN and high <= _INT64_MAX)


def _check_scalar(value: Any) -> None:  # noqa: ANN401
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise _not_finite()
    elif isinstance(value, int) and not _INT64_MIN <= value <= _INT64_MAX:
        raise _integer_refused()


def _check_text(text: str) -> None:
    if _BAD_CHARACTER.search(text):
        detail = "A string of the body holds NUL or half of a surrogate pair."
        raise JsonRefusedError(detail, "Remove the character.")


def _check_depth(depth: int, max_depth: int) -> None:
    if depth > max_depth:
        raise _too_deep(max_depth)


def _refuse_constant(_name: str) -> Any:  # noqa: ANN401
    raise _not_finite()


def _too_deep(max_depth: int) -> JsonRefusedError:
    return JsonRefusedError(
        f"The body is nested deeper than {max_depth} levels.", "Send a flatter document."
    )


def _not_finite() -> JsonRefusedError:
    return JsonRefusedError(
        "A number of the body is NaN, Infinity or too large for a 64-bit float.",
        "Send finite numbers; leave a field out to use its default.",
    )


def _integer_refused() -> JsonRefusedError:
    return JsonRefusedError(
        "An integer of the body does not fit 64 bits.", "Send integers from -2^63 to 2^63 - 1."
    )
