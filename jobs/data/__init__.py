"""Data sets in memory: one loader a file, chosen by the spec's `kind`.

`jobs.data_sources` tells their shapes beforehand from the file headers alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from jobs.data.cifar10 import load_cifar10
from jobs.data.digits import load_digits
from jobs.data.idx import load_idx
from jobs.data.image_arrays import ImageArrays
from jobs.data.image_folder import load_image_folder
from jobs.data.npz import load_npz
from jobs.spec import DataSpec

DATASETS: Mapping[str, Callable[..., ImageArrays]] = MappingProxyType(
    {
        "digits": load_digits,
        "mnist": load_idx,
        "fashion_mnist": load_idx,
        "cifar10": load_cifar10,
        "image_folder": load_image_folder,
        "arrays": load_npz,
    }
)

__all__ = ["DATASETS", "ImageArrays", "load_data"]


def load_data(data: DataSpec, data_root: Path | None) -> ImageArrays:
    """Load the data set that a spec names.

    Raises:
        SpecInvalidError: there is no data root, or a file is missing.
        DataInvalidError: a file is not what it should be.
    """
    return DATASETS[data.kind](data, data_root)
