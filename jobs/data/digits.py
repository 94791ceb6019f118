"""The 1,797 handwritten digits (8 × 8) that scikit-learn ships."""

from __future__ import annotations

import gzip
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

from jobs.data.image_arrays import ImageArrays
from jobs.data_sources import DIGITS_NUM_TRAIN
from jobs.errors import DataInvalidError
from jobs.spec import DigitsDataSpec

DIGITS_FILE = "sklearn/datasets/data/digits.csv.gz"
MAX_PIXEL = 16.0
SPLIT_SEED = 0


def load_digits(data: DigitsDataSpec, data_root: Path | None) -> ImageArrays:
    """Load the digits: pixels 0..16 divided by 16, and a fixed split.

    The split is `numpy.random.Generator(PCG64(0)).permutation(1797)`: the first 1,297 rows train,
    the other 500 test. The table is read without importing scikit-learn, which takes seconds.
    """
    del data, data_root  # no options; comes with scikit-learn
    path = Path(str(distribution("scikit-learn").locate_file(DIGITS_FILE)))
    with gzip.open(path, "rt", encoding="ascii") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    if table.shape != (1797, 65):
        raise DataInvalidError(
            f"scikit-learn's table of digits has the shape {table.shape}.",
            "Reinstall scikit-learn.",
        )
    table = table[np.random.Generator(np.random.PCG64(SPLIT_SEED)).permutation(len(table))]
    images = (table[:, :64].astype(np.float32) / np.float32(MAX_PIXEL)).reshape(-1, 1, 8, 8)
    labels = np.ascontiguousarray(table[:, 64])
    return ImageArrays(
        x_train=images[:DIGITS_NUM_TRAIN],
        y_train=labels[:DIGITS_NUM_TRAIN],
        x_test=images[DIGITS_NUM_TRAIN:],
        y_test=labels[DIGITS_NUM_TRAIN:],
    )
