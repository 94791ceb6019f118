import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.npy import NpyRefusedError, read_npy, write_npy


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (1, 2, 3, 4)])
@pytest.mark.parametrize("dtype", ["u1", "<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_writes_is_read(shape, dtype, order):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype, order=order)
    for version in ((1, 0), (2, 0), (3, 0)):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array, version=version)
        found = read_npy(stream.getvalue())
        assert (found.dtype, found.shape) == (array.dtype, shape)
        np.testing.assert_array_equal(found, array)


def test_numpy_reads_what_is_written():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(np.load(io.BytesIO(write_npy(array))), array)


def test_other_orders_of_the_fields_are_read():
    text = "{'shape': (2,), 'fortran_order': False, 'descr': '<f4'}\n"
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + b"\0" * 8
    assert read_npy(body).shape == (2,)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'descr': '<f4', 'shape': (2,), }",
        "{'descr': '<f4', 'fortran_order': False, }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1, }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,2), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }",
    ],
)
def test_another_header_is_refused(header):
    body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 8
    with pytest.raises(NpyRefusedError):
        read_npy(body)


@given(st.binary(max_size=300), st.integers(0, 200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(noise, keep):
    body = write_npy(np.zeros((2, 2), dtype=np.float32))[:keep] + noise
    with contextlib.suppress(NpyRefusedError):
        read_npy(body)
