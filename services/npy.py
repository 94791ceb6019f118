"""Arrays as npy files (NumPy's format), read strictly: nothing is evaluated, allocated or guessed.

NumPy's own reader parses the header as Python. This one knows the three fields, four number types,
and that the data are exactly as long as the header says.
"""

from __future__ import annotations

import io
import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 4096
_FIELD = (
    r"(?:'descr': *'(?P<descr{n}>[<>|=][a-z][0-9])'"
    r"|'fortran_order': *(?P<order{n}>True|False)"
    r"|'shape': *\((?P<shape{n}>[0-9, ]{{0,200}})\))"
)
_HEADER = re.compile(
    r"\{ *" + r" *, *".join(_FIELD.format(n=n) for n in range(3)) + r" *,? *\} *\n?"
)
_TYPES = {"u1": "uint8", "f4": "float32", "f8": "float64"}


class NpyRefusedError(ValueError):
    """The bytes are no npy file that is accepted; the message says why."""


def read_npy(body: bytes) -> np.ndarray:
    """Read an array of uint8, float32 or float64 numbers, without copying it where possible.

    Raises:
        NpyRefusedError: wrong format, another type, or not as long as the header says.
    """
    import numpy as np

    header, start = _split(body)
    fields = _fields(header)
    shape = tuple(int(n) for n in fields["shape"].replace(" ", "").split(",") if n)
    kind = fields["descr"][1:]
    if kind not in _TYPES:
        raise NpyRefusedError(f"The array must be one of {', '.join(sorted(_TYPES.values()))}.")
    dtype = np.dtype(fields["descr"])
    if len(shape) > 8 or math.prod(shape) * dtype.itemsize != len(body) - start:
        raise NpyRefusedError("The npy file has another length than its header says.")
    flat = np.frombuffer(body, dtype, offset=start)
    return flat.reshape(shape, order="F" if fields["order"] == "True" else "C")


def write_npy(array: np.ndarray) -> bytes:
    """The npy file of an array."""
    import numpy as np

    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _split(body: bytes) -> tuple[str, int]:
    """The header's text and where the data begin."""
    version = body[6:8]
    if not body.startswith(_MAGIC) or version not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise NpyRefusedError("The body is no npy file.")
    width = 2 if version == b"\x01\x00" else 4
    length = int.from_bytes(body[8 : 8 + width], "little")
    start = 8 + width + length
    if length > _MAX_HEADER or start > len(body):
        raise NpyRefusedError("The npy file is cut off in its header.")
    return body[8 + width : start].decode("latin-1"), start


def _fields(header: str) -> dict[str, str]:
    """The three fields by name, in whatever order they stand."""
    match = _HEADER.fullmatch(header)
    groups = match.groupdict() if match else {}
    fields = {name.rstrip("012"): value for name, value in groups.items() if value is not None}
    if len(fields) != 3:
        raise NpyRefusedError("The npy file's header is not understood.")
    return fields
