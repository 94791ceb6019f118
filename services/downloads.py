"""Ranges, ETags and conditions (RFC 9110): decided by pure functions, sent by `FileSlice`."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from jobs.records import EncoderRecord
from jobs.wire import ManifestFile
from services.artifact_files import ArtifactFiles
from services.errors import ProblemError

OCTET_STREAM = "application/octet-stream"
_CHUNK = 512 * 1024
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_ENTITY_TAG = re.compile(r'(?:W/)?"[^"]*"')
_IMMUTABLE = "private, immutable, max-age=31536000"


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes `start` to `stop` (exclusive) of a file of `size` bytes."""

    start: int
    stop: int
    size: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self.start == 0 and self.stop == self.size


def file_etag(sha256: str) -> str:
    """The strong entity tag of immutable bytes."""
    return f'"sha256-{sha256}"'


def etag_matches(header: str | None, etag: str, *, weak: bool) -> bool:
    """Whether an If-Match or If-None-Match header names this entity tag.

    Args:
        header: the header's value; None: not sent.
        etag: the strong tag of what is there.
        weak: compare weakly (If-None-Match) or strongly (If-Match).
    """
    if header is None:
        return False
    if header.strip() == "*":
        return True
    tags = _ENTITY_TAG.findall(header)
    return etag in (tag.removeprefix("W/") if weak else tag for tag in tags)


def requested_slice(headers: Mapping[str, str], etag: str, size: int) -> Slice:
    """Which bytes to send. One range is honoured; several, or a malformed one, mean the whole file.

    Raises:
        ProblemError: `range_not_satisfiable`.
    """
    whole = Slice(0, size, size)
    match = _RANGE.fullmatch(headers.get("range", "").strip())
    if match is None or headers.get("if-range", etag).strip() != etag:
        return whole
    first, last = match.groups()
    if not first and not last:
        return whole
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if first and last and int(last) < int(first):
        return whole
    if start >= size:
        raise ProblemError(
            "range_not_satisfiable",
            f"The file has {size} bytes.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return Slice(start, stop, size)


def decide(headers: Mapping[str, str], entry: ManifestFile) -> Slice | None:
    """What to send for a file: a slice, or None for "304 Not Modified".

    Raises:
        ProblemError: `precondition_failed` or `range_not_satisfiable`.
    """
    etag = file_etag(entry.sha256)
    if "if-match" in headers and not etag_matches(headers["if-match"], etag, weak=False):
        raise ProblemError("precondition_failed", "The file has another ETag.")
    if etag_matches(headers.get("if-none-match"), etag, weak=True):
        return None
    return requested_slice(headers, etag, entry.size_bytes)


def download_headers(entry: ManifestFile) -> dict[str, str]:
    """What every answer about this file says. The name comes from the manifest's alphabet."""
    digest = base64.b64encode(bytes.fromhex(entry.sha256)).decode()
    return {
        "ETag": file_etag(entry.sha256),
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": _IMMUTABLE,
        "Content-Disposition": f'attachment; filename="{entry.path}"',
    }


def slice_response(
    path: Path, part: Slice, headers: Mapping[str, str], *, media_type: str, body: bool = True
) -> Response:
    """Send a slice of a file; without `body`, only what a GET would announce."""
    lengths = {"Content-Length": str(part.stop - part.start)}
    if not part.is_whole:
        lengths["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{part.size}"
    return StreamingResponse(
        _read(path, part) if body else _nothing(),
        status_code=200 if part.is_whole else 206,
        headers={**headers, **lengths},
        media_type=media_type,
    )


async def _read(path: Path, part: Slice) -> AsyncIterator[bytes]:
    """Read in the thread pool; the open file survives even if its name goes away."""
    descriptor = await run_in_threadpool(os.open, path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        position = part.start
        while position < part.stop:
            length = min(_CHUNK, part.stop - position)
            chunk = await run_in_threadpool(os.pread, descriptor, length, position)
            if not chunk:
                raise OSError(f"the file ended at byte {position} of {part.stop}")
            position += len(chunk)
            yield chunk
    finally:
        os.close(descriptor)


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


def file_response(
    files: ArtifactFiles, encoder: EncoderRecord, name: str, request: Request
) -> Response:
    """Answer a GET or HEAD for a file of an encoder.

    Raises:
        NotFoundError: the encoder has no such file.
        ProblemError: `precondition_failed`, `range_not_satisfiable` or `artifact_corrupt`.
    """
    entry = files.entry(encoder, name)
    headers = download_headers(entry)
    part = decide(request.headers, entry)
    if part is None:
        return Response(status_code=304, headers=headers)
    stored = files.open(entry)
    return slice_response(
        stored.path, part, headers, media_type=OCTET_STREAM, body=request.method == "GET"
    )
