"""Embedding over HTTP gives what `mige.load_encoder(...).embed` gives, and refuses bad inputs."""

import asyncio
import base64
import io
import json

import httpx2
import numpy as np
import pytest
import torch

import mige
from jobs.golden import make_golden
from mige.encoders import make_encoder
from mige.encoders.config import EncoderConfig
from services.artifact_files import ArtifactFiles
from services.errors import ProblemError
from services.inference import EncoderPool
from tests.integration.api_service import BASE_URL, running_service

SHAPE = (1, 8, 8)
NPY = {"Content-Type": "application/octet-stream"}
RNG = np.random.default_rng(0)
FLOATS = RNG.random((5, *SHAPE), dtype=np.float32)
BYTES = RNG.integers(0, 256, (300, *SHAPE), dtype=np.uint8)


def encoder_files(folder, seed=0, **changes):
    """The files of a small encoder, as a runner would publish them."""
    torch.manual_seed(seed)
    encoder = make_encoder("mlp", input_shape=SHAPE, out_dim=3, hidden_dims=(8,))
    config = EncoderConfig(
        kind="mlp",
        options={"hidden_dims": (8,)},
        input_shape=SHAPE,
        mean=(0.3,),
        std=(0.2,),
        out_dim=3,
        normalize="none",
    )
    mige.save_encoder(encoder, config, folder)
    golden = make_golden(mige.load_encoder(folder), torch.from_numpy(FLOATS))
    files = {name: (folder / name).read_bytes() for name in ("config.json", "encoder.safetensors")}
    return {**files, "golden.json": golden.encode(), **changes}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(scope="module")
def api(service):
    service.client.headers.update(service.key())
    return service.client


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("encoder")


@pytest.fixture(scope="module")
def record(service, folder):
    return service.publish(encoder_files(folder))


@pytest.fixture(scope="module")
def url(record):
    return f"/v1/encoders/{record.id}/embed"


def expected(folder, images):
    return mige.load_encoder(folder).embed(torch.from_numpy(images)).numpy()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@pytest.mark.parametrize("images", [FLOATS, BYTES], ids=["floats", "bytes"])
@pytest.mark.parametrize("body", ["json", "npy", "npy in Fortran order", "npy, big endian"])
def test_an_embedding_equals_the_local_one(api, url, folder, images, body):
    if body == "json":
        answer = api.post(url, json={"inputs": images.tolist(), "dtype": str(images.dtype)})
    else:
        array = np.asfortranarray(images) if "Fortran" in body else images
        array = array.astype(array.dtype.newbyteorder(">")) if "endian" in body else array
        answer = api.post(url, content=npy(array), headers=NPY)
    found = answer.json()
    assert (answer.status_code, found["dim"], found["object"]) == (200, 3, "embeddings")
    np.testing.assert_allclose(found["embeddings"], expected(folder, images), atol=1e-5)


def test_an_embedding_does_not_depend_on_its_batch(api, url):
    whole = api.post(url, content=npy(BYTES), headers=NPY).json()["embeddings"]
    alone = api.post(url, content=npy(BYTES[7:8]), headers=NPY).json()["embeddings"]
    np.testing.assert_allclose(alone[0], whole[7], atol=1e-5)


def test_embeddings_come_as_base64_or_npy_too(api, url, folder):
    body = {"inputs": FLOATS.tolist(), "encoding_format": "base64"}
    rows = api.post(url, json=body).json()["embeddings"]
    found = np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])
    np.testing.assert_allclose(found, expected(folder, FLOATS), atol=1e-5)
    headers = {**NPY, "Accept": "application/octet-stream"}
    answer = api.post(url, content=npy(FLOATS), headers=headers)
    array = np.load(io.BytesIO(answer.content), allow_pickle=False)
    np.testing.assert_array_equal(array, found)


def test_float64_images_are_taken_as_float32(api, url, folder):
    answer = api.post(url, content=npy(FLOATS.astype(np.float64)), headers=NPY)
    np.testing.assert_allclose(answer.json()["embeddings"], expected(folder, FLOATS), atol=1e-5)


@pytest.mark.parametrize(
    "inputs",
    [
        [1.0, 2.0],
        [[[[0.5]]]],
        [[[["a"] * 8] * 8]],
        [[[[True] * 8] * 8]],
        [[[[None] * 8] * 8]],
        [[[[0.5] * 8] * 7 + [[0.5] * 7]]],
        [[[[2.0] * 8] * 8]],
        [[[[-0.1] * 8] * 8]],
        [[[[]]]],
        [{}],
    ],
    ids=lambda i: json.dumps(i)[:20],
)
def test_inputs_that_are_no_images_are_refused(api, url, inputs):
    answer = api.post(url, json={"inputs": inputs})
    assert (answer.status_code, answer.json()["code"]) == (422, "input_invalid")
    assert answer.json()["remedy"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/inputs"),
        ({"inputs": []}, "/inputs"),
        ({"inputs": 3}, "/inputs"),
        ({"inputs": [[[[0.5]]]], "dtype": "float16"}, "/dtype"),
        ({"inputs": [[[[0.5]]]], "model": "x"}, "/model"),
        ({"inputs": [0] * 4097}, "/inputs"),
    ],
)
def test_fields_that_do_not_fit_are_named(api, url, body, pointer):
    answer = api.post(url, json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_bytes_that_do_not_fit_their_dtype_are_refused(api, url):
    for value in (256, -1, 0.5):
        body = {"inputs": [[[[value] * 8] * 8]], "dtype": "uint8"}
        assert api.post(url, json=body).json()["code"] == "input_invalid"


def header_of(text, size=0):
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + b"x" * size


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x93NUMPY",
        b"PK\x03\x04" + b"x" * 100,
        npy(FLOATS)[:-1],
        npy(FLOATS) + b"x",
        npy(np.zeros((1, *SHAPE), dtype=np.complex64)),
        npy(np.zeros((1, *SHAPE), dtype=np.int64)),
        npy(np.full((1, *SHAPE), np.nan, dtype=np.float32)),
        npy(np.zeros((2, 3, 8, 8), dtype=np.float32)),
        header_of("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", 8),
        header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (10**18,), }"),
        header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (999999999999, 8, 8), }"),
        header_of("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8), }", 32),
        header_of("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4),
        header_of("__import__('os').abort()"),
        header_of("{" * 100),
        b"\x93NUMPY\x03\x00" + (2**31).to_bytes(4, "little"),
    ],
    ids=lambda b: repr(b[:40])[-24:],
)
def test_an_npy_body_that_is_no_array_of_images_is_refused(api, url, body):
    answer = api.post(url, content=body, headers=NPY)
    assert (answer.status_code, answer.json()["code"]) == (422, "input_invalid")


def test_no_images_give_no_embeddings(api, url):
    answer = api.post(url, content=npy(FLOATS[:0]), headers=NPY)
    assert (answer.status_code, answer.json()["embeddings"]) == (200, [])
    answer = api.post(url, json={"inputs": [[]]})
    assert (answer.status_code, answer.json()["code"]) == (422, "input_invalid")


@pytest.mark.parametrize(
    "changes",
    [
        {"config.json": b"{}"},
        {"golden.json": b"{}"},
        {"encoder.safetensors": None},
    ],
    ids=["config", "golden", "weights of another encoder"],
)
def test_an_encoder_that_is_not_as_published_embeds_nothing(api, service, tmp_path, changes):
    if "encoder.safetensors" in changes:
        changes = {"encoder.safetensors": encoder_files(tmp_path, seed=9)["encoder.safetensors"]}
    record = service.publish(encoder_files(tmp_path, **changes))
    answer = api.post(f"/v1/encoders/{record.id}/embed", content=npy(FLOATS), headers=NPY)
    assert (answer.status_code, answer.json()["code"]) == (503, "artifact_corrupt")


def pool_of(service, max_bytes=1 << 20):
    return EncoderPool(ArtifactFiles(service.store.objects), max_bytes=max_bytes, num_threads=1)


def test_the_least_recently_used_encoder_leaves_memory_first(service, tmp_path):
    records = [service.publish(encoder_files(tmp_path, seed=i)) for i in range(3)]
    size = sum(p.numel() * 4 for p in mige.load_encoder(tmp_path).parameters())
    pool = pool_of(service, max_bytes=2 * size)

    async def use():
        for index in (0, 1, 0, 2):
            await pool.embed(records[index], FLOATS)
        return list(pool.resident)

    assert asyncio.run(use()) == [records[0].id, records[2].id]


def test_an_encoder_larger_than_the_memory_is_used_and_dropped(service, record):
    pool = pool_of(service, max_bytes=0)
    assert asyncio.run(pool.embed(record, FLOATS)).shape == (5, 3)
    assert list(pool.resident) == []


def test_requests_beyond_the_queue_are_refused_at_once_and_the_others_served(service, record):
    pool = pool_of(service)

    async def burst():
        asks = (pool.embed(record, FLOATS) for _ in range(60))
        return await asyncio.gather(*asks, return_exceptions=True)

    answers = asyncio.run(burst())
    refused = [a for a in answers if isinstance(a, ProblemError)]
    assert {a.code for a in refused} == {"overloaded"}
    assert len(answers) - len(refused) == 18
    assert all(a.shape == (5, 3) for a in answers if not isinstance(a, ProblemError))


def test_an_overloaded_service_says_when_to_come_back(service, url):
    headers = {**NPY, **service.key()}
    app = service.client.app

    async def burst():
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
            asks = (client.post(url, content=npy(BYTES), headers=headers) for _ in range(60))
            return await asyncio.gather(*asks)

    answers = asyncio.run(burst())
    statuses = {a.status_code for a in answers}
    assert statuses <= {200, 503}
    assert 200 in statuses
    for answer in answers:
        if answer.status_code == 503:
            assert (answer.json()["code"], answer.headers["retry-after"]) == ("overloaded", "2")
