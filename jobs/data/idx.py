"""MNIST and Fashion-MNIST from their idx files, where torchvision puts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.data.image_arrays import ImageArrays
from jobs.data_headers import read_idx_header
from jobs.data_sources import IDX_FILES, IDX_FOLDERS, describe, required_root
from jobs.spec import FashionMnistDataSpec, MnistDataSpec


def load_idx(data: MnistDataSpec | FashionMnistDataSpec, data_root: Path | None) -> ImageArrays:
    """Load the four files, their sizes checked against their headers.

    Raises:
        SpecInvalidError: there is no data root, a file is missing or is not what it should be.
    """
    describe(data, data_root)
    folder = required_root(data, data_root) / IDX_FOLDERS[data.kind]
    x_train, y_train, x_test, y_test = (_read(folder / name) for name in IDX_FILES)
    return ImageArrays(
        x_train=x_train[:, None],
        y_train=y_train.astype(np.int64),
        x_test=x_test[:, None],
        y_test=y_test.astype(np.int64),
    )


def _read(path: Path) -> npt.NDArray[np.uint8]:
    header = read_idx_header(path)
    return np.fromfile(path, dtype=np.uint8, offset=header.offset).reshape(header.shape)
