"""What a data set looks like, told from file headers before a job is accepted.

Control side: reads no image and imports neither torch nor scikit-learn. The arrays themselves are
loaded by `jobs.data`, in the worker, which looks for the same files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from jobs.data_headers import ArrayHeader, read_idx_header, read_npz_headers
from jobs.errors import DataInvalidError, SpecInvalidError
from jobs.spec import (
    ArraysDataSpec,
    Cifar10DataSpec,
    DataSpec,
    DigitsDataSpec,
    FashionMnistDataSpec,
    ImageFolderDataSpec,
    MnistDataSpec,
)

DIGITS_NUM_TRAIN, DIGITS_NUM_TEST = 1297, 500
IDX_FOLDERS: Mapping[str, str] = MappingProxyType(
    {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}
)
IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
ARRAY_NAMES = ("x_train", "y_train", "x_test", "y_test")
IMAGE_DTYPES = ("uint8", "float32", "float64")
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
MAX_CHANNELS, MAX_SIDE = 16, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DataDescription:
    """The outside of a data set.

    `image_shape` is (C, H, W). `num_classes` is None where only the labels themselves tell it.
    `files` are the files or folders it is read from, relative to the data root.
    """

    image_shape: tuple[int, int, int]
    num_train: int
    num_test: int
    num_classes: int | None
    files: tuple[str, ...]


def describe(data: DataSpec, data_root: Path | None) -> DataDescription:
    """Describe the data set that a spec names.

    Args:
        data: the `data` part of a job spec.
        data_root: the service's folder of data sets; None where it has none.

    Raises:
        SpecInvalidError: code `data_unavailable` (no data root, a file is missing) or
            `data_invalid` (a file is not what it should be).
    """
    try:
        return _describe(data, data_root)
    except DataInvalidError as error:
        raise SpecInvalidError(
            _pointer(data), "data_invalid", error.detail, error.remedy
        ) from error
    except OSError as error:
        raise SpecInvalidError(
            _pointer(data),
            "data_unavailable",
            f"The data set cannot be read: {error.strerror or type(error).__name__}.",
            "Make its files readable for the service.",
        ) from error


def required_root(data: DataSpec, data_root: Path | None) -> Path:
    """The data root, for a data set that needs one.

    Raises:
        SpecInvalidError: there is none, or it is no folder.
    """
    if data_root is None:
        raise SpecInvalidError(
            "/data/kind",
            "data_unavailable",
            f"The data set {data.kind!r} needs a data root and the service has none.",
            "Start the service with MIGE_DATA_ROOT=<folder>, or use the data set 'digits'.",
        )
    if not data_root.is_dir():
        raise SpecInvalidError(
            "/data/kind",
            "data_unavailable",
            "The service's data root (MIGE_DATA_ROOT) is not a folder.",
            "Set MIGE_DATA_ROOT to the folder that holds the data sets and start again.",
        )
    return data_root


def _describe(data: DataSpec, data_root: Path | None) -> DataDescription:
    match data:
        case DigitsDataSpec():
            return _describe_digits()
        case MnistDataSpec() | FashionMnistDataSpec():
            return _describe_idx(data, required_root(data, data_root))
        case Cifar10DataSpec():
            return _describe_cifar10(data, required_root(data, data_root))
        case ImageFolderDataSpec():
            return _describe_image_folder(data, required_root(data, data_root))
        case ArraysDataSpec():
            return _describe_arrays(data, required_root(data, data_root))


def _describe_digits() -> DataDescription:
    return DataDescription(
        image_shape=(1, 8, 8),
        num_train=DIGITS_NUM_TRAIN,
        num_test=DIGITS_NUM_TEST,
        num_classes=10,
        files=(),
    )


def _describe_idx(data: MnistDataSpec | FashionMnistDataSpec, root: Path) -> DataDescription:
    files = tuple(f"{IDX_FOLDERS[data.kind]}/{name}" for name in IDX_FILES)
    headers = [read_idx_header(_existing(data, root, name)) for name in files]
    train, train_labels, test, test_labels = (header.shape for header in headers)
    if len(train) != 3 or train[1:] != test[1:]:
        raise DataInvalidError(
            f"The images have the shapes {train} and {test}.",
            "Expected (n, height, width) in both.",
        )
    if train_labels != train[:1] or test_labels != test[:1]:
        raise DataInvalidError(
            f"{train[0]} and {test[0]} images have {train_labels} and {test_labels} labels.",
            "Images and labels belong to different sets: copy all four files again.",
        )
    return DataDescription(
        image_shape=(1, train[1], train[2]),
        num_train=train[0],
        num_test=test[0],
        num_classes=10,
        files=files,
    )


def _describe_cifar10(data: Cifar10DataSpec, root: Path) -> DataDescription:
    files = tuple(f"{CIFAR10_FOLDER}/{name}" for name in CIFAR10_FILES)
    for name in files:
        _existing(data, root, name)
    return DataDescription(
        image_shape=(3, 32, 32), num_train=50_000, num_test=10_000, num_classes=10, files=files
    )


def _describe_arrays(data: ArraysDataSpec, root: Path) -> DataDescription:
    headers = read_npz_headers(_existing(data, root, data.file))
    missing = [name for name in ARRAY_NAMES if name not in headers]
    if missing:
        raise DataInvalidError(
            f"{data.file} has no array {', '.join(missing)}.",
            f"It needs {', '.join(ARRAY_NAMES)}; it has {', '.join(sorted(headers)) or 'none'}.",
        )
    for split in ("train", "test"):
        _check_split(split, headers[f"x_{split}"], headers[f"y_{split}"])
    train, test = headers["x_train"], headers["x_test"]
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise DataInvalidError(
            f"x_train is {train.dtype} of {train.shape[1:]} an image, x_test {test.dtype} of "
            f"{test.shape[1:]}.",
            "Give both the same shape and type.",
        )
    height, width, channels = (*train.shape[1:], 1)[:3]
    if not (1 <= channels <= MAX_CHANNELS and 1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise DataInvalidError(
            f"The images are {height} × {width} with {channels} channels.",
            f"Channels come last; at most {MAX_SIDE} × {MAX_SIDE} with {MAX_CHANNELS} channels.",
        )
    return DataDescription(
        image_shape=(channels, height, width),
        num_train=train.shape[0],
        num_test=test.shape[0],
        num_classes=None,
        files=(data.file,),
    )


def _check_split(split: str, images: ArrayHeader, labels: ArrayHeader) -> None:
    if len(images.shape) not in (3, 4) or 0 in images.shape:
        raise DataInvalidError(
            f"x_{split} has the shape {images.shape}.", "It must be (n, H, W) or (n, H, W, C)."
        )
    if images.dtype.name not in IMAGE_DTYPES:
        raise DataInvalidError(
            f"x_{split} has the type {images.dtype}.",
            "Images are uint8 (0 to 255), float32 or float64 (0 to 1).",
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise DataInvalidError(
            f"y_{split} is {labels.dtype} of {labels.shape}.",
            f"It must hold {images.shape[0]} integers, one a row of x_{split}.",
        )


def _describe_image_folder(data: ImageFolderDataSpec, root: Path) -> DataDescription:
    files = (f"{data.folder}/train", f"{data.folder}/test")
    train, test = (_count_images(data, root, name) for name in files)
    unknown = sorted(test.keys() - train.keys())
    if not train or not all(train.values()) or not any(test.values()):
        raise DataInvalidError(
            f"{data.folder} has a split or a class without images "
            f"({', '.join(sorted(IMAGE_SUFFIXES))}).",
            f"Lay it out as {data.folder}/train/<class>/<image> and "
            f"{data.folder}/test/<class>/<image>.",
        )
    if unknown:
        raise DataInvalidError(
            f"{len(unknown)} classes of {files[1]} are not in {files[0]}: {unknown[0]!r}, ...",
            "Every class of the test set needs training images.",
        )
    return DataDescription(
        image_shape=(data.channels, data.image_size, data.image_size),
        num_train=sum(train.values()),
        num_test=sum(test.values()),
        num_classes=len(train),
        files=files,
    )


def list_classes(split: Path) -> list[str]:
    """The class folders of one split, sorted: their places are the labels."""
    with os.scandir(split) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def list_images(folder: Path) -> list[str]:
    """The names of the image files directly in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            e.name for e in entries if Path(e.name).suffix.lower() in IMAGE_SUFFIXES and e.is_file()
        )


def _count_images(data: DataSpec, root: Path, name: str) -> dict[str, int]:
    split = _existing(data, root, name)
    if not split.is_dir():
        raise DataInvalidError(f"{name} is not a folder.", "Put one folder per class into it.")
    return {label: len(list_images(split / label)) for label in list_classes(split)}


def _existing(data: DataSpec, root: Path, name: str) -> Path:
    path = root / name
    if not path.exists():
        _refuse_missing(data, name)
    return path


def _refuse_missing(data: DataSpec, name: str) -> NoReturn:
    unpack = ""
    if data.kind in IDX_FOLDERS:
        unpack = " Use torchvision's layout, with the .gz files unpacked."
    elif data.kind == "cifar10":
        unpack = " Use torchvision's layout: unpack cifar-10-python.tar.gz there."
    raise SpecInvalidError(
        _pointer(data),
        "data_unavailable",
        f"{name} is not in the data root.",
        f"Put it there (MIGE_DATA_ROOT/{name}).{unpack}",
    )


def _pointer(data: DataSpec) -> str:
    fields = {"arrays": "/data/file", "image_folder": "/data/folder"}
    return fields.get(data.kind, "/data/kind")
