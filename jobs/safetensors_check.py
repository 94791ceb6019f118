"""Checks a safetensors file without loading it into a model: layout, names, finite weights.

Layout (https://github.com/huggingface/safetensors): eight bytes with the length n of the header,
n bytes of JSON that map each tensor to its dtype, shape and place, then the numbers without gaps.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, BinaryIO, Final, NoReturn

from jobs.errors import ArtifactInvalidError

HEADER_LIMIT_BYTES: Final = 1 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_.]{1,200}")
_MOST_AXES: Final = 8
_CHUNK_BYTES: Final = 1 << 22
_ITEM_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "F64": 8,
        "F32": 4,
        "F16": 2,
        "BF16": 2,
        "I64": 8,
        "I32": 4,
        "I16": 2,
        "I8": 1,
        "U64": 8,
        "U32": 4,
        "U16": 2,
        "U8": 1,
        "BOOL": 1,
    }
)
# A float is not finite when all bits of its exponent are set: the masks of each format.
_EXPONENT: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "F64": ("<u8", 0x7FF0_0000_0000_0000),
        "F32": ("<u4", 0x7F80_0000),
        "F16": ("<u2", 0x7C00),
        "BF16": ("<u2", 0x7F80),
    }
)


def check_safetensors(file: BinaryIO, size_bytes: int, *, name: str) -> None:
    """Check a whole file, which stands at its beginning.

    Args:
        file: read from here on.
        size_bytes: how long the file is.
        name: for the message.

    Raises:
        ArtifactInvalidError: header too large or not strict JSON, unknown dtype, a name outside
            `[A-Za-z0-9_.]`, overlaps, gaps, a wrong total, or a weight that is NaN or infinite.
    """
    header = _read_header(file, size_bytes, name)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        _refuse(name, "__metadata__ is not a map of strings")
    tensors = [_Tensor(name, key, value) for key, value in header.items()]
    tensors.sort(key=lambda t: (t.begin, t.end))
    at = 0
    for tensor in tensors:
        if tensor.begin != at:
            _refuse(name, f"{tensor.key} overlaps another tensor or leaves a gap")
        at = tensor.end
    data_bytes = size_bytes - file.tell()
    if at != data_bytes:
        _refuse(name, f"it has {data_bytes} bytes of data, its header describes {at}")
    for tensor in tensors:
        _check_finite(file, tensor, name)


def strict_json(data: bytes, *, name: str) -> dict[str, Any]:
    """A JSON object in UTF-8 without repeated keys, NaN or Infinity.

    Raises:
        ArtifactInvalidError: it is anything else.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise ArtifactInvalidError(
            f"{name} is not strict JSON: {str(error)[:200]}.", "Write plain UTF-8 JSON."
        ) from error
    if not isinstance(value, dict):
        raise ArtifactInvalidError(f"{name} is not a JSON object.", "Write an object.")
    return value


class _Tensor:
    """One entry of the header, checked by itself. Offsets count from the end of the header."""

    def __init__(self, file: str, key: str, entry: object) -> None:
        if _NAME.fullmatch(key) is None:
            _refuse(file, f"the tensor name {key[:60]!r} is not allowed")
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            _refuse(file, f"{key} needs exactly dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
            _refuse(file, f"{key} has an unknown dtype")
        if not _counts(shape) or len(shape) > _MOST_AXES:
            _refuse(file, f"{key} has no valid shape")
        if not _counts(offsets) or len(offsets) != 2:
            _refuse(file, f"{key} has no valid data_offsets")
        self.key, self.dtype = key, dtype
        self.begin, self.end = offsets
        if self.end - self.begin != math.prod(shape) * _ITEM_BYTES[self.dtype]:
            _refuse(file, f"{key} has a shape that does not fit its data_offsets")


def _read_header(file: BinaryIO, size_bytes: int, name: str) -> dict[str, Any]:
    prefix = file.read(8)
    if len(prefix) < 8:
        _refuse(name, "it is shorter than its header")
    (length,) = struct.unpack("<Q", prefix)
    if length > min(HEADER_LIMIT_BYTES, size_bytes - 8):
        _refuse(name, f"its header claims {length} bytes")
    return strict_json(file.read(length), name=f"the header of {name}")


def _check_finite(file: BinaryIO, tensor: _Tensor, name: str) -> None:
    left = tensor.end - tensor.begin
    if tensor.dtype not in _EXPONENT:
        file.seek(left, 1)
        return
    import numpy as np  # a tenth of a second to import; only a publish needs it

    dtype, exponent = _EXPONENT[tensor.dtype]
    while left > 0:
        block = file.read(min(_CHUNK_BYTES, left))
        if not block:
            _refuse(name, f"{tensor.key} ends early")
        bits = np.frombuffer(block, dtype=dtype)
        if bool(((bits & exponent) == exponent).any()):
            _refuse(name, f"{tensor.key} holds NaN or infinite weights")
        left -= len(block)


def _counts(value: object) -> bool:
    """Whether it is a list of non-negative integers (and no booleans)."""
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 1 << 48 for v in value)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice")
    return result


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _refuse(name: str, detail: str) -> NoReturn:
    raise ArtifactInvalidError(
        f"{name} was refused: {detail}.", "Export finite weights with safetensors."
    )
