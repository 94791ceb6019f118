"""The one form every data set takes in memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from jobs.errors import DataInvalidError

ROWS_AT_ONCE = 4096  # bounds the float copies of uint8 images
MIN_STD = 1e-3  # of a channel, in [0, 1]; below it the channel counts as constant


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageArrays:
    """Images (n, C, H, W), uint8 in 0..255 or float32 in [0, 1], and labels (n,), int64."""

    x_train: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    y_train: npt.NDArray[np.int64]
    x_test: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    y_test: npt.NDArray[np.int64]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.x_train.shape[1:]
        return channels, height, width

    def limited(self, num_train: int | None) -> ImageArrays:
        """The same with only the first `num_train` training rows; None: all."""
        if num_train is None:
            return self
        return ImageArrays(
            x_train=self.x_train[:num_train],
            y_train=self.y_train[:num_train],
            x_test=self.x_test,
            y_test=self.y_test,
        )

    def digest(self) -> str:
        """sha256 over names, types, shapes and contents of the four arrays."""
        digest = hashlib.sha256()
        for field in fields(self):
            array = np.ascontiguousarray(getattr(self, field.name))
            digest.update(f"{field.name}:{array.dtype.str}:{array.shape};".encode())
            digest.update(array.data)
        return digest.hexdigest()

    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over the training set, in [0, 1].

        A channel that is constant gets the standard deviation 1: it is only centred.
        """
        channels = self.x_train.shape[1]
        total, total_squares = np.zeros(channels), np.zeros(channels)
        for start in range(0, len(self.x_train), ROWS_AT_ONCE):
            rows = unit_scale(self.x_train[start : start + ROWS_AT_ONCE]).astype(np.float64)
            total += rows.sum(axis=(0, 2, 3))
            total_squares += np.square(rows).sum(axis=(0, 2, 3))
        count = self.x_train.size / channels
        mean = total / count
        std = np.sqrt(np.maximum(total_squares / count - np.square(mean), 0.0))
        std[std < MIN_STD] = 1.0
        return tuple(mean.tolist()), tuple(std.tolist())


def unit_scale(
    images: npt.NDArray[np.uint8] | npt.NDArray[np.float32],
) -> npt.NDArray[np.float32]:
    """Pixels as float32 in [0, 1]."""
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(255.0)
    return images.astype(np.float32, copy=False)


def checked_images(name: str, images: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Float images as float32, refused unless every pixel lies in [0, 1]."""
    converted = images.astype(np.float32)
    low, high = float(converted.min()), float(converted.max())
    if not (low >= 0.0 and high <= 1.0):  # also false for NaN
        raise DataInvalidError(
            f"The pixels of {name} range from {low:g} to {high:g}.",
            "Scale floating-point images to [0, 1], or store uint8 in 0..255.",
        )
    return converted
