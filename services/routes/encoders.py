"""Published encoders: list, read, download, embed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from jobs.records import EncoderRecord
from jobs.wire import Manifest
from services.auth import EncodersReader
from services.body_guard import GuardedRoute
from services.dependencies import ContextDep, StoreDep
from services.downloads import file_response
from services.embedding import EmbedBody, embed_schema, embeddings_response
from services.openapi import problem_responses
from services.query import known_query
from services.responses import page_response
from services.schemas.base import ListView
from services.schemas.encoders import EmbeddingsView, EncoderView

router = APIRouter(
    prefix="/v1/encoders",
    tags=["encoders"],
    route_class=GuardedRoute,
    dependencies=[Depends(known_query)],
    responses=problem_responses(401, 403),
)


class EncoderQuery(BaseModel):
    """What a list of encoders can be narrowed down by."""

    model_config = ConfigDict(extra="forbid")

    job_id: str | None = Field(default=None, max_length=64)
    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=512)


def own_encoder(encoder_id: str, key: EncodersReader, store: StoreDep) -> EncoderRecord:
    """The encoder in the path; another project's is as unknown as one that never was."""
    return store.encoder(encoder_id, project=key.project)


EncoderDep = Annotated[EncoderRecord, Depends(own_encoder)]


@router.get("", response_model=ListView[EncoderView], responses=problem_responses(422))
def list_encoders(
    query: Annotated[EncoderQuery, Query()], key: EncodersReader, store: StoreDep, request: Request
) -> Response:
    """List published encoders, newest first."""
    page = store.encoders(project=key.project, **query.model_dump())
    return page_response(page, EncoderView.of, request)


@router.get("/{encoder_id}", responses=problem_responses(404))
def read_encoder(encoder: EncoderDep) -> EncoderView:
    """Read one encoder with its evaluation and its files."""
    return EncoderView.of(encoder)


@router.get("/{encoder_id}/manifest", responses=problem_responses(404))
def read_manifest(encoder: EncoderDep) -> Manifest:
    """Read the manifest: every file with size and sha256."""
    return Manifest.model_validate(encoder.manifest)


@router.get(
    "/{encoder_id}/files/{name}",
    responses={
        200: {"content": {"application/octet-stream": {}}},
        206: {"description": "A part of the file."},
        304: {"description": "The client has the file."},
        **problem_responses(404, 412, 416, 503),
    },
)
@router.head("/{encoder_id}/files/{name}", include_in_schema=False)
def download(name: str, encoder: EncoderDep, context: ContextDep, request: Request) -> Response:
    """Download a file: ETag and Repr-Digest are its sha256; Range and If-Range resume."""
    return file_response(context.files, encoder, name, request)


@router.post(
    "/{encoder_id}/embed",
    response_model=EmbeddingsView,
    responses=problem_responses(404, 413, 415, 422, 503),
    openapi_extra=embed_schema(),
)
async def embed(
    encoder: EncoderDep, context: ContextDep, body: EmbedBody, request: Request
) -> Response:
    """Embed images, given as nested lists (JSON) or as an npy file (octet-stream)."""
    return await embeddings_response(context.encoders, encoder, body, request)
