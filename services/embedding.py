"""Images in a request, embeddings in the answer: JSON or npy, in both directions."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from jobs.records import EncoderRecord
from services.body_guard import OCTET_STREAM
from services.errors import ProblemError
from services.inference import EncoderPool
from services.negotiation import preferred_type
from services.npy import NpyRefusedError, read_npy, write_npy
from services.responses import model_response
from services.schemas.encoders import EmbeddingsView, EmbedRequest
from services.schemas.problems import FieldError

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class EmbedInput:
    """Images and how the embeddings are to be written."""

    images: np.ndarray
    encoding: Literal["float", "base64"]


async def read_embed_body(request: Request) -> EmbedInput:
    """The images of a request, read in a thread.

    Raises:
        RequestValidationError: the JSON has fields that do not fit.
        ProblemError: `input_invalid`: the images are no array of numbers.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if media_type == OCTET_STREAM:
        return EmbedInput(await run_in_threadpool(_read_npy, body), "float")
    fields = await request.json() if body else {}
    try:
        wanted = EmbedRequest.model_validate(fields)
    except ValidationError as error:
        places: list[Any] = [{**e, "loc": ("body", *e["loc"])} for e in error.errors()]
        raise RequestValidationError(places, body=fields) from None
    images = await run_in_threadpool(_read_lists, wanted.inputs, wanted.dtype)
    return EmbedInput(images, wanted.encoding_format)


EmbedBody = Annotated[EmbedInput, Depends(read_embed_body)]


async def embeddings_response(
    pool: EncoderPool, encoder: EncoderRecord, body: EmbedInput, request: Request
) -> Response:
    """Embed and answer as JSON, or as npy for a client that accepts that.

    Raises:
        ProblemError: as `EncoderPool.embed`, and `not_acceptable`.
    """
    media_type = preferred_type(request, ("application/json", OCTET_STREAM))
    rows = await pool.embed(encoder, body.images)
    if media_type == OCTET_STREAM:
        return Response(write_npy(rows), media_type=OCTET_STREAM)
    view = EmbeddingsView(
        encoder_id=encoder.id,
        dim=rows.shape[1],
        encoding_format=body.encoding,
        embeddings=_as_base64(rows) if body.encoding == "base64" else rows.tolist(),
    )
    return model_response(view)


def embed_schema() -> dict[str, Any]:
    """The request body for the OpenAPI document: FastAPI cannot tell it from the two types."""
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": EmbedRequest.model_json_schema()},
                OCTET_STREAM: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    }


def _read_lists(inputs: Sequence[Any], dtype: Literal["float32", "uint8"]) -> np.ndarray:
    """Nested lists of numbers as an array; NumPy alone would also take booleans and strings."""
    import numpy as np

    kinds: set[type] = {int} if dtype == "uint8" else {int, float}
    if not _holds_only(inputs, kinds):
        raise _refused(f"`inputs` must be nested lists of numbers that fit {dtype}.", "/inputs")
    try:
        return np.asarray(inputs, dtype=dtype)
    except (ValueError, OverflowError):
        raise _refused(
            "The lists have different lengths, or a number does not fit the dtype.", "/inputs"
        ) from None


def _holds_only(values: Sequence[Any], kinds: set[type]) -> bool:
    """Whether all leaves have one of these types; depth is bounded by the body guard."""
    found = set(map(type, values))
    if found == {list}:
        return all(_holds_only(value, kinds) for value in values)
    return bool(found) and found <= kinds


def _read_npy(body: bytes) -> np.ndarray:
    """An npy body in the layout that torch takes; any byte order and layout may be sent."""
    import numpy as np

    try:
        array = read_npy(body)
    except NpyRefusedError as error:
        raise _refused(str(error)) from None
    # A copy in any case: torch wants memory that it may write to.
    return np.array(array, dtype="uint8" if array.dtype == "uint8" else "float32", order="C")


def _as_base64(rows: np.ndarray) -> list[str]:
    return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]


def _refused(detail: str, pointer: str | None = None) -> ProblemError:
    remedy = "Send images of shape (n, C, H, W): floats in [0, 1], or uint8."
    field = FieldError(pointer=pointer, detail=detail, code="input_invalid", remedy=remedy)
    return ProblemError(
        "input_invalid", detail, remedy=remedy, errors=(field,) if pointer is not None else ()
    )
