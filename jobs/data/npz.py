"""Arrays of a person's own: one npz file with x_train, y_train, x_test, y_test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.data.image_arrays import ImageArrays, checked_images
from jobs.data_headers import NPZ_ERRORS
from jobs.data_sources import ARRAY_NAMES, describe, required_root
from jobs.errors import DataInvalidError
from jobs.spec import ArraysDataSpec


def load_npz(data: ArraysDataSpec, data_root: Path | None) -> ImageArrays:
    """Load the four arrays, never unpickling: (n, H, W) or (n, H, W, C) to (n, C, H, W).

    Raises:
        SpecInvalidError: there is no data root, the file is missing or its headers are wrong.
        DataInvalidError: the file is damaged, or holds floating-point pixels outside [0, 1].
    """
    describe(data, data_root)
    path = required_root(data, data_root) / data.file
    try:
        with np.load(path, allow_pickle=False) as archive:
            x_train, y_train, x_test, y_test = (archive[name] for name in ARRAY_NAMES)
    except (*NPZ_ERRORS, OSError) as error:
        raise DataInvalidError(
            f"{data.file} cannot be read: {error}.", "Write it again with numpy.savez."
        ) from error
    return ImageArrays(
        x_train=_images("x_train", x_train),
        y_train=y_train.astype(np.int64),
        x_test=_images("x_test", x_test),
        y_test=y_test.astype(np.int64),
    )


def _images(
    name: str, images: npt.NDArray[np.generic]
) -> npt.NDArray[np.uint8] | npt.NDArray[np.float32]:
    if images.ndim == 3:
        images = images[..., None]
    images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if images.dtype == np.uint8:
        return images.astype(np.uint8, copy=False)
    return checked_images(name, images)
