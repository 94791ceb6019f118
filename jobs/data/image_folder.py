"""Image files in folders: `<folder>/{train,test}/<class>/<image>`."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from jobs.data.image_arrays import ImageArrays
from jobs.data_sources import describe, list_classes, list_images, required_root
from jobs.errors import DataInvalidError
from jobs.spec import ImageFolderDataSpec

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_SIDE_PX, MAX_PIXELS = 4096, 16_777_216
ORDER_SEED = 0


def load_image_folder(data: ImageFolderDataSpec, data_root: Path | None) -> ImageArrays:
    """Load and resize all images; a label is the place of its class folder in sorted order.

    The rows are in a fixed random order, so that the first ones are of all classes.

    Raises:
        SpecInvalidError: there is no data root, a folder is missing or laid out otherwise.
        DataInvalidError: a file is no PNG, JPEG or WebP image, is damaged or is too large.
    """
    describe(data, data_root)
    root = required_root(data, data_root) / data.folder
    classes = list_classes(root / "train")
    x_train, y_train = _load_split(root / "train", classes, data)
    x_test, y_test = _load_split(root / "test", classes, data)
    return ImageArrays(x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def _load_split(
    split: Path, classes: list[str], data: ImageFolderDataSpec
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    files = [
        (split / name / image, label)
        for label, name in enumerate(classes)
        if (split / name).is_dir()
        for image in list_images(split / name)
    ]
    order = np.random.Generator(np.random.PCG64(ORDER_SEED)).permutation(len(files))
    files = [files[i] for i in order]
    images = np.empty((len(files), data.channels, data.image_size, data.image_size), np.uint8)
    for row, (path, _) in enumerate(files):
        images[row] = read_image(path, size=data.image_size, channels=data.channels)
    return images, np.array([label for _, label in files], dtype=np.int64)


def read_image(path: Path, *, size: int, channels: int) -> npt.NDArray[np.uint8]:
    """One image as (channels, size, size).

    The shorter side is fitted and the middle cut out, by bicubic resampling. The header alone
    decides whether the image is decoded at all.

    Raises:
        DataInvalidError: not an image of an allowed format, damaged, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                _check_size(path, image.size)
                return _resized(image, size, channels)
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombWarning,
        Image.DecompressionBombError,
    ) as error:
        raise DataInvalidError(
            f"{path.parent.name}/{path.name} is not a readable PNG, JPEG or WebP image.",
            "Remove or replace the file.",
        ) from error


def _check_size(path: Path, size: tuple[int, int]) -> None:
    if max(size) > MAX_SIDE_PX or size[0] * size[1] > MAX_PIXELS:
        raise DataInvalidError(
            f"{path.parent.name}/{path.name} has {size[0]} × {size[1]} pixels.",
            f"Scale it to at most {MAX_SIDE_PX} × {MAX_SIDE_PX}.",
        )


def _resized(image: Image.Image, size: int, channels: int) -> npt.NDArray[np.uint8]:
    pixels = image.convert("L" if channels == 1 else "RGB")
    width, height = pixels.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    pixels = pixels.resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    array = np.asarray(pixels, dtype=np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)
