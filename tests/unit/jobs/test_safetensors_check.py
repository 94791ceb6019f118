import io
import json
import struct

import numpy as np
import pytest
from safetensors.numpy import save

from jobs.errors import ArtifactInvalidError
from jobs.safetensors_check import HEADER_LIMIT_BYTES, check_safetensors, strict_json


def check(data: bytes) -> None:
    check_safetensors(io.BytesIO(data), len(data), name="encoder.safetensors")


def f32(*values) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def raw(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "uint8", "bool"])
def test_what_the_library_writes_is_accepted(dtype):
    tensors = {
        "net.0.weight": np.arange(12).reshape(3, 4).astype(dtype),
        "scalar": np.array(1, dtype=dtype),
        "empty": np.zeros((0, 3), dtype=dtype),
    }
    check(save(tensors, metadata={"format": "pt"}))


def test_an_empty_set_of_tensors_is_accepted(make_safetensors):
    check(make_safetensors({}))


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("F64", "<d", [struct.pack("<d", float("nan")), struct.pack("<d", float("-inf"))]),
        ("F32", "<f", [struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))]),
        ("F16", "<e", [struct.pack("<e", float("nan")), struct.pack("<e", float("-inf"))]),
        ("BF16", "<xx", [b"\x80\x7f", b"\x80\xff", b"\xc0\x7f", b"\x81\x7f"]),
    ],
)
def test_weights_that_are_not_finite_are_refused_in_every_format(
    make_safetensors, dtype, good, bad
):
    fine = b"\x00\x00" if dtype == "BF16" else struct.pack(good, -1.5)
    check(make_safetensors({"w": (dtype, [3], fine * 3)}))
    for value in bad:
        with pytest.raises(ArtifactInvalidError, match="NaN or infinite"):
            check(make_safetensors({"w": (dtype, [3], fine * 2 + value)}))


@pytest.mark.parametrize("value", [b"\x7f\x7f", b"\x7f\xff", b"\x01\x00"])
def test_the_largest_and_smallest_bfloat16_are_finite(make_safetensors, value):
    check(make_safetensors({"w": ("BF16", [1], value)}))


def test_a_bad_weight_beyond_the_first_chunk_is_found(make_safetensors, monkeypatch):
    monkeypatch.setattr("jobs.safetensors_check._CHUNK_BYTES", 8)
    data = f32(*[1.0] * 9, float("nan"))
    with pytest.raises(ArtifactInvalidError, match="NaN"):
        check(make_safetensors({"w": ("F32", [10], data)}))


def test_integers_may_have_any_bits(make_safetensors):
    check(make_safetensors({"n": ("I32", [1], b"\xff\xff\xff\x7f"), "w": ("F32", [1], f32(1))}))


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", "", "a" * 201, "a b", "weiß", "a\n", "__metadata__/x"]
)
def test_a_tensor_name_that_could_be_a_path_is_refused(make_safetensors, name):
    with pytest.raises(ArtifactInvalidError, match="name"):
        check(make_safetensors({name: ("F32", [1], f32(1))}))


def entry(**changes) -> dict:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


@pytest.mark.parametrize(
    ("entries", "data"),
    [
        ({"w": entry(dtype="F8_E4M3")}, f32(1, 2)),
        ({"w": entry(dtype=["F32"])}, f32(1, 2)),
        ({"w": entry(shape=[3])}, f32(1, 2)),
        ({"w": entry(shape=[-2])}, f32(1, 2)),
        ({"w": entry(shape=[True, 2])}, f32(1, 2)),
        ({"w": entry(shape=[2.0])}, f32(1, 2)),
        ({"w": entry(shape="2")}, f32(1, 2)),
        ({"w": entry(shape=[1] * 8 + [2])}, f32(1, 2)),
        ({"w": entry(shape=[2**40, 2**40])}, f32(1, 2)),
        ({"w": entry(data_offsets=[0])}, f32(1, 2)),
        ({"w": entry(data_offsets=[8, 0])}, f32(1, 2)),
        ({"w": entry(data_offsets=[4, 12])}, f32(1, 2, 3)),  # a gap
        ({"w": entry(data_offsets=[0, 2**60])}, f32(1, 2)),
        ({"w": entry(), "v": entry()}, f32(1, 2)),  # both in one place
        ({"w": entry(), "v": entry(data_offsets=[4, 12])}, f32(1, 2, 3)),  # overlap
        ({"w": entry(extra=1)}, f32(1, 2)),
        ({"w": None}, f32(1, 2)),
        ({"w": entry()}, f32(1)),  # truncated
        ({"w": entry()}, f32(1, 2, 3)),  # trailing bytes
        ({"w": entry(), "__metadata__": {"a": 1}}, f32(1, 2)),
        ({"w": entry(), "__metadata__": "x"}, f32(1, 2)),
    ],
)
def test_a_header_that_does_not_describe_its_data_is_refused(entries, data):
    with pytest.raises(ArtifactInvalidError):
        check(raw(json.dumps(entries).encode(), data))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        raw(b"{}" + b" " * HEADER_LIMIT_BYTES),
        raw(b"[]"),
        raw(b'{"w": NaN}'),
        raw(b'{"a": 1, "a": 2}'),
        raw(b"[" * 100_000),
        raw(b'{"w":' * 100_000),
        raw(b"\xff\xfe{}"),
        raw(b'{"a": ' + b"9" * 5000 + b"}"),
        b"\x80\x04\x95" + b"pickle" * 10,
        b"PK\x03\x04" + b"\0" * 100,
    ],
)
def test_what_is_not_a_safetensors_file_is_refused(data):
    with pytest.raises(ArtifactInvalidError):
        check(data)


@pytest.mark.parametrize("text", [b"[]", b"1", b'{"a": Infinity}', b'{"a":1,"a":1}', b"{", b"\xff"])
def test_json_that_is_not_strict_is_refused(text):
    assert strict_json(b'{"a": [1, null]}', name="x.json") == {"a": [1, None]}
    with pytest.raises(ArtifactInvalidError, match=r"x\.json"):
        strict_json(text, name="x.json")
