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

from services.pointers import pointer_to

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
    """The text is not acceptable JSON. `detail` never repeats what was sent.

    `pointer` is the place of the value (RFC 6901); None where the text has no values yet.
    """

    def __init__(self, detail: str, remedy: str, pointer: str | None = None) -> None:
        super().__init__(detail, remedy, pointer)
        self.detail, self.remedy, self.pointer = detail, remedy, pointer


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
        value = json.loads(text, object_pairs_hook=counter.object_of)
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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value lies; written out as a pointer only when the value is refused."""

    above: _Place | None = None
    key: str | int = ""
    depth: int = 0

    def below(self, key: str | int) -> _Place:
        return _Place(self, key, self.depth + 1)

    def pointer(self) -> str:
        keys, place = [], self
        while place.above is not None:
            keys.append(place.key)
            place = place.above
        return pointer_to(keys[::-1], None)


def _check_values(root: Any, max_depth: int) -> None:  # noqa: ANN401
    """Walk without recursion; a list of plain numbers is checked without a Python loop."""
    stack: list[tuple[Any, _Place]] = [(root, _Place())]
    while stack:
        value, place = stack.pop()
        if isinstance(value, dict):
            _check_depth(place.depth + 1, max_depth)
            for key in value:
                _check_text(key, place)
            stack.extend((item, place.below(key)) for key, item in value.items())
        elif isinstance(value, list):
            _check_depth(place.depth + 1, max_depth)
            if not _is_plain_numbers(value):
                stack.extend((item, place.below(index)) for index, item in enumerate(value))
        else:
            _check_scalar(value, place)


def _is_plain_numbers(values: list[Any]) -> bool:
    """Whether all are finite and within range; a list with another is left to the slow path."""
    kinds = set(map(type, values))
    if not values or not kinds <= {int, float}:
        return False
    low, high = min(values), max(values)  # NaN only if it comes first: then the next line is false
    in_range = low >= _INT64_MIN and high <= _INT64_MAX
    return in_range and all(map(math.isfinite, values))


def _check_scalar(value: Any, place: _Place) -> None:  # noqa: ANN401
    if isinstance(value, str):
        _check_text(value, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise JsonRefusedError(
            "A number of the body is NaN, Infinity or too large for a 64-bit float.",
            "Send finite numbers; leave a field out to use its default.",
            place.pointer(),
        )
    elif isinstance(value, int) and not _INT64_MIN <= value <= _INT64_MAX:
        raise _integer_refused(place.pointer())


def _check_text(text: str, place: _Place) -> None:
    if _BAD_CHARACTER.search(text):
        detail = "A string of the body holds NUL or half of a surrogate pair."
        raise JsonRefusedError(detail, "Remove the character.", place.pointer())


def _check_depth(depth: int, max_depth: int) -> None:
    if depth > max_depth:
        raise _too_deep(max_depth)


def _too_deep(max_depth: int) -> JsonRefusedError:
    return JsonRefusedError(
        f"The body is nested deeper than {max_depth} levels.", "Send a flatter document."
    )


def _integer_refused(pointer: str | None = None) -> JsonRefusedError:
    return JsonRefusedError(
        "An integer of the body does not fit 64 bits.",
        "Send integers from -2^63 to 2^63 - 1.",
        pointer,
    )
