"""Shapes and types of array files, read from their headers alone and without unpickling anything.

Used before a job is accepted (nothing else of the file is read) and again when the file is loaded.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from jobs.errors import DataInvalidError

IDX_UBYTE_MAGIC = b"\0\0\x08"  # then one byte: the number of axes
# What zipfile and numpy raise for a damaged file; RuntimeError: its flags say that it is encrypted.
NPZ_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError)


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """Shape and type of one array. `offset`: bytes of the file before the data."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


def read_idx_header(path: Path) -> ArrayHeader:
    """Header of an uncompressed idx file (MNIST's format) of unsigned bytes.

    Raises:
        DataInvalidError: not such a file, or its size is not what its header says.
    """
    with path.open("rb") as file:
        magic = file.read(4)
        if magic[:3] != IDX_UBYTE_MAGIC or magic[3:] not in (b"\1", b"\2", b"\3", b"\4"):
            raise DataInvalidError(
                f"{path.name} is not an idx file of unsigned bytes.",
                "Unpack the original file (without .gz) into the data root again.",
            )
        sizes = file.read(4 * magic[3])
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, 4 * magic[3], 4))
    offset = 4 + 4 * magic[3]
    if path.stat().st_size != offset + math.prod(shape):
        raise DataInvalidError(
            f"{path.name} has {path.stat().st_size} bytes, its header says "
            f"{offset + math.prod(shape)}.",
            "The file is truncated or damaged: copy it again.",
        )
    return ArrayHeader(shape, np.dtype(np.uint8), offset)


def read_npz_headers(path: Path) -> Mapping[str, ArrayHeader]:
    """Headers of the arrays of an npz file, by name.

    Raises:
        DataInvalidError: not an npz file, an array holds Python objects, or a size is wrong.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename.removesuffix(".npy"): _member_header(archive, info)
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
    except NPZ_ERRORS as error:
        raise DataInvalidError(
            f"{path.name} is not a readable npz file: {error}.",
            "Write it with numpy.savez or numpy.savez_compressed.",
        ) from error


def _member_header(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> ArrayHeader:
    with archive.open(info) as member:
        shape, dtype = _npy_header(member)
        offset = member.tell()
    if dtype.hasobject:
        raise DataInvalidError(
            f"{info.filename} holds Python objects, which would have to be unpickled.",
            "Store numbers: uint8 or float32 images, integer labels.",
        )
    if info.file_size != offset + math.prod(shape) * dtype.itemsize:
        raise DataInvalidError(
            f"{info.filename} has {info.file_size} bytes, which does not fit its shape {shape}.",
            "Write it again with numpy.savez.",
        )
    return ArrayHeader(shape, dtype, offset)


def _npy_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    else:
        raise ValueError(f"npy format version {version} is not supported")
    return shape, dtype
