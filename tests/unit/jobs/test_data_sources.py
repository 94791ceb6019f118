"""Data sets told from headers, and the same data sets loaded."""

from __future__ import annotations

import gzip
import io
import typing
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.data import DATASETS, load_data
from jobs.data.image_arrays import unit_scale
from jobs.data_sources import describe
from jobs.errors import DataInvalidError, SpecInvalidError
from jobs.spec import (
    ArraysDataSpec,
    Cifar10DataSpec,
    DataSpec,
    DigitsDataSpec,
    ImageFolderDataSpec,
    MnistDataSpec,
)

ARRAYS = ArraysDataSpec(kind="arrays", file="mine.npz")
MNIST = MnistDataSpec(kind="mnist")
FOLDER = ImageFolderDataSpec(kind="image_folder", folder="pets", image_size=8)


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(b"\0\0\x08" + bytes([array.ndim]) + sizes + array.tobytes())


def write_mnist(root: Path, num_train: int = 30, num_test: int = 10) -> None:
    rng = np.random.default_rng(0)
    for prefix, rows in (("train", num_train), ("t10k", num_test)):
        images = rng.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, rows, dtype=np.uint8)
        write_idx(root / f"MNIST/raw/{prefix}-images-idx3-ubyte", images)
        write_idx(root / f"MNIST/raw/{prefix}-labels-idx1-ubyte", labels)


def write_arrays(path: Path, **changes: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8),
        "y_train": rng.integers(0, 3, 20),
        "x_test": rng.integers(0, 256, (8, 6, 5, 3), dtype=np.uint8),
        "y_test": rng.integers(0, 3, 8),
    }
    np.savez(path, **(arrays | changes))


def write_folder(root: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for label, colour in (("cat", 250), ("dog", 20)):
            folder = root / "pets" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (12, 9), (colour, i, 0)).save(folder / f"{i}.png")


def test_every_kind_of_data_spec_has_a_loader():
    union = typing.get_args(typing.get_args(DataSpec)[0])
    kinds = {typing.get_args(part.model_fields["kind"].annotation)[0] for part in union}
    assert set(DATASETS) == kinds


def test_digits_equal_scikit_learns_table_in_another_order():
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = datasets.load_digits()
    ours = load_data(DigitsDataSpec(kind="digits"), None)
    pixels = np.concatenate([ours.x_train, ours.x_test]).reshape(-1, 64) * 16
    labels = np.concatenate([ours.y_train, ours.y_test])
    sort_ours, sort_theirs = np.lexsort(pixels.T), np.lexsort(theirs.data.T)
    np.testing.assert_array_equal(pixels[sort_ours], theirs.data[sort_theirs])
    np.testing.assert_array_equal(labels[sort_ours], theirs.target[sort_theirs])
    assert len(ours.x_train) == 1297


def test_the_digest_tells_data_sets_apart_and_is_stable(tmp_path):
    write_arrays(tmp_path / "mine.npz")
    first = load_data(ARRAYS, tmp_path)
    assert first.digest() == load_data(ARRAYS, tmp_path).digest()
    changed = first.y_train.copy()
    changed[0] += 1
    write_arrays(tmp_path / "mine.npz", y_train=changed)
    assert load_data(ARRAYS, tmp_path).digest() != first.digest()


@pytest.mark.parametrize(
    ("data", "write", "shape"),
    [
        (MNIST, write_mnist, (1, 28, 28)),
        (ARRAYS, lambda root: write_arrays(root / "mine.npz"), (3, 6, 5)),
        (FOLDER, write_folder, (3, 8, 8)),
        (DigitsDataSpec(kind="digits"), lambda root: None, (1, 8, 8)),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_the_description_agrees_with_what_is_loaded(tmp_path, data, write, shape):
    write(tmp_path)
    description = describe(data, tmp_path)
    arrays = load_data(data, tmp_path)
    assert description.image_shape == arrays.image_shape == shape
    assert description.num_train == len(arrays.x_train) == len(arrays.y_train)
    assert description.num_test == len(arrays.x_test) == len(arrays.y_test)
    assert all((tmp_path / name).exists() for name in description.files)
    mean, std = arrays.channel_statistics()
    pixels = unit_scale(arrays.x_train)
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3), dtype=np.float64), atol=1e-6)
    expected = pixels.std((0, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(std, np.where(expected < 1e-3, 1, expected), atol=1e-5)


def test_image_folder_labels_are_the_sorted_class_folders(tmp_path):
    write_folder(tmp_path)
    arrays = load_data(FOLDER, tmp_path)
    assert sorted(arrays.y_train.tolist()) == [0, 0, 0, 1, 1, 1]
    red = arrays.x_train[:, 0].mean((1, 2))
    np.testing.assert_array_equal(red, np.where(arrays.y_train == 0, 250, 20))  # cats, dogs


@pytest.mark.parametrize("data", [MNIST, ARRAYS, FOLDER, Cifar10DataSpec(kind="cifar10")])
def test_missing_files_are_named_relative_to_the_data_root(tmp_path, data):
    with pytest.raises(SpecInvalidError) as refused:
        describe(data, tmp_path)
    assert refused.value.code == "data_unavailable"
    assert str(tmp_path) not in str(refused.value)
    assert "MIGE_DATA_ROOT/" in refused.value.remedy
    assert refused.value.pointer in ("/data/kind", "/data/file", "/data/folder")


@pytest.mark.parametrize("root", [None, Path("/nonexistent/folder")])
def test_a_missing_data_root_names_the_variable_to_set(root):
    with pytest.raises(SpecInvalidError, match="MIGE_DATA_ROOT") as refused:
        describe(MNIST, root)
    assert refused.value.code == "data_unavailable"


def test_a_truncated_idx_file_is_refused(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SpecInvalidError, match="truncated") as refused:
        describe(MNIST, tmp_path)
    assert refused.value.code == "data_invalid"


def test_a_packed_idx_file_is_refused(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(SpecInvalidError, match="idx file"):
        describe(MNIST, tmp_path)


def test_labels_of_another_length_are_refused(tmp_path):
    write_mnist(tmp_path)
    write_idx(tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte", np.zeros(9, np.uint8))
    with pytest.raises(SpecInvalidError, match="labels"):
        describe(MNIST, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": np.array([{}] * 20)}, "unpickled"),
        ({"y_train": np.array(["a"] * 20)}, "integers"),
        ({"y_train": np.zeros(19, int)}, "20 integers"),
        ({"x_test": np.zeros((8, 6, 4, 3), np.uint8)}, "same shape"),
        ({"x_train": np.zeros((20, 6, 5, 3), complex)}, "complex"),
        ({"x_train": np.zeros((20, 30), np.uint8)}, "(n, H, W)"),
        ({"x_train": np.zeros((0, 6, 5, 3), np.uint8), "y_train": np.zeros(0, int)}, "(n, H, W)"),
    ],
)
def test_arrays_of_another_kind_are_refused_by_their_headers(tmp_path, changes, words):
    write_arrays(tmp_path / "mine.npz", **changes)
    with pytest.raises(SpecInvalidError) as refused:
        describe(ARRAYS, tmp_path)
    assert words in str(refused.value)
    assert (refused.value.pointer, refused.value.code) == ("/data/file", "data_invalid")


def test_a_missing_array_is_named(tmp_path):
    np.savez(tmp_path / "mine.npz", x_train=np.zeros((2, 3, 3)))
    with pytest.raises(SpecInvalidError, match="y_train, x_test, y_test"):
        describe(ARRAYS, tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"PK\x05\x06" + b"\0" * 10])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(SpecInvalidError) as refused:
        describe(ARRAYS, tmp_path)
    assert refused.value.code == "data_invalid"


@pytest.mark.parametrize("position", range(0, 1000, 31))
def test_a_byte_that_changed_in_a_packed_npz_is_never_an_unexpected_error(tmp_path, position):
    path = tmp_path / "mine.npz"
    images, labels = np.arange(160, dtype=np.uint8).reshape(-1, 4, 4), np.arange(10)
    np.savez_compressed(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 0x55
    path.write_bytes(content)
    with suppress(SpecInvalidError):
        describe(ARRAYS, tmp_path)
        with suppress(DataInvalidError):
            load_data(ARRAYS, tmp_path)


def test_a_header_that_lies_about_the_size_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"shape": (10**9, 28, 28), "fortran_order": False, "descr": "|u1"}
    )
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
        archive.writestr("x_train.npy", buffer.getvalue() + b"\0" * 100)
    with pytest.raises(SpecInvalidError, match="does not fit its shape"):
        describe(ARRAYS, tmp_path)


@pytest.mark.parametrize("pixel", [-0.1, 255.0, np.nan])
def test_float_pixels_outside_zero_to_one_are_refused(tmp_path, pixel):
    x_train = np.zeros((20, 6, 5, 3), np.float32)
    x_train[3, 2, 1, 0] = pixel
    write_arrays(tmp_path / "mine.npz", x_train=x_train, x_test=x_train[:8])
    with pytest.raises(DataInvalidError, match="x_train"):
        load_data(ARRAYS, tmp_path)


def test_a_test_class_without_training_images_is_refused(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "pets/test/bird").mkdir()
    with pytest.raises(SpecInvalidError, match="'bird'"):
        describe(FOLDER, tmp_path)


@pytest.mark.parametrize("bad", ["text", "large", "gif", "truncated"])
def test_images_that_are_damaged_too_large_or_of_another_format_are_refused(tmp_path, bad):
    write_folder(tmp_path)
    path = tmp_path / "pets/train/cat/0.png"
    if bad == "text":
        path.write_text("not an image")
    elif bad == "large":
        Image.new("1", (5000, 2)).save(path)
    elif bad == "gif":
        Image.new("L", (9, 9)).save(path, format="GIF")
    else:
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataInvalidError, match=r"cat/0\.png"):
        load_data(FOLDER, tmp_path)


def test_an_image_bomb_is_refused_by_its_header(tmp_path):
    write_folder(tmp_path)
    Image.new("1", (13_000, 13_000)).save(tmp_path / "pets/train/cat/0.png")
    with pytest.raises(DataInvalidError, match=r"cat/0\.png"):
        load_data(FOLDER, tmp_path)
