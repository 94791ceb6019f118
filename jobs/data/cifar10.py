"""CIFAR-10 in torchvision's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from jobs.data.image_arrays import ImageArrays
from jobs.data_sources import describe, required_root
from jobs.errors import DataInvalidError
from jobs.spec import Cifar10DataSpec


def load_cifar10(data: Cifar10DataSpec, data_root: Path | None) -> ImageArrays:
    """Load CIFAR-10 by torchvision.

    The original files are pickles: torchvision compares the md5 of each with the published one
    before it opens any, so nothing but the original is ever read.

    Raises:
        SpecInvalidError: there is no data root or a file is missing.
        DataInvalidError: a file is not the original.
    """
    from torchvision.datasets import CIFAR10  # takes seconds to import, so not above

    describe(data, data_root)
    root = required_root(data, data_root)
    try:
        train, test = (CIFAR10(str(root), train=t, download=False) for t in (True, False))
    except RuntimeError as error:
        raise DataInvalidError(
            "The CIFAR-10 files are not the original ones (their md5 differs).",
            "Unpack cifar-10-python.tar.gz into the data root again.",
        ) from error
    return ImageArrays(
        x_train=_channels_first(train.data),
        y_train=np.asarray(train.targets, dtype=np.int64),
        x_test=_channels_first(test.data),
        y_test=np.asarray(test.targets, dtype=np.int64),
    )


def _channels_first(images: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.asarray(images, dtype=np.uint8).transpose(0, 3, 1, 2))
