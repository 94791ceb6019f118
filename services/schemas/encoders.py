"""Published encoders and embeddings as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from jobs.records import EncoderRecord
from jobs.spec_base import Spec
from services.schemas.base import View


class FileView(View):
    """One file of an encoder."""

    path: str
    size_bytes: int
    sha256: str
    url: str


class EncoderView(View):
    """One published encoder: immutable."""

    object: Literal["encoder"] = "encoder"
    id: str
    job_id: str
    name: str | None
    metadata: dict[str, Any] = Field(description="out_dim, input_shape, encoder_kind, ...")
    evaluation: dict[str, Any]
    files: list[FileView]
    created_at: datetime

    @classmethod
    def of(cls, encoder: EncoderRecord) -> EncoderView:
        """The view of a record."""
        base = f"/v1/encoders/{encoder.id}/files"
        files = [
            FileView(
                path=file["path"],
                size_bytes=file["size_bytes"],
                sha256=file["sha256"],
                url=f"{base}/{file['path']}",
            )
            for file in encoder.manifest["files"]
        ]
        return cls(
            id=encoder.id,
            job_id=encoder.job_id,
            name=encoder.name,
            metadata=dict(encoder.manifest.get("metadata", {})),
            evaluation=dict(encoder.evaluation),
            files=files,
            created_at=encoder.created_at,
        )


class EmbedRequest(Spec):
    """Images to embed, as nested lists of shape (n, C, H, W)."""

    inputs: list[Any] = Field(min_length=1, max_length=4096)
    dtype: Literal["float32", "uint8"] = Field(
        default="float32", description="float32: pixels in [0, 1]. uint8: integers from 0 to 255."
    )
    encoding_format: Literal["float", "base64"] = "float"


class EmbeddingsView(View):
    """One embedding per input, in the order of the inputs."""

    object: Literal["embeddings"] = "embeddings"
    encoder_id: str
    dim: int
    encoding_format: Literal["float", "base64"]
    embeddings: list[list[float]] | list[str] = Field(
        description="Rows of numbers, or base64 of little-endian float32, one string a row."
    )
