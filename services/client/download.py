"""Fetch the files of an encoder: resumed where they were cut, verified, whole or not there at all.

While a file is on its way there stand `<name>.partial` (its first bytes) and
`<name>.partial.json` (the ETag and size they belong to). Only verified bytes get the final name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from services.client.errors import ApiError, DigestMismatchError, DownloadError
from services.client.transport import Retrier, Transport, is_transient

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/\d+")
_READ_TIMEOUT_S = 30.0

OnBytes = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that are here, and its size."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of an encoder, as its manifest names it."""

    path: str
    size_bytes: int
    sha256: str


def remote_files(manifest: Mapping[str, Any]) -> list[RemoteFile]:
    """The files of a manifest, with names that are safe to create.

    Raises:
        DownloadError: an entry is malformed or its name could leave the directory.
    """
    files = []
    for entry in manifest.get("files", ()):
        path, size, digest = (entry.get(k) for k in ("path", "size_bytes", "sha256"))
        well_formed = (
            isinstance(path, str)
            and _NAME.fullmatch(path)
            and type(size) is int
            and size >= 0
            and isinstance(digest, str)
            and _DIGEST.fullmatch(digest)
        )
        if not well_formed:
            raise DownloadError(f"the manifest has an entry that cannot be trusted: {entry!r}")
        files.append(RemoteFile(path, size, digest))
    return files


def select(files: Sequence[RemoteFile], names: Sequence[str] | None) -> list[RemoteFile]:
    """The files called `names` (all, for None).

    Raises:
        DownloadError: there is no file of that name.
    """
    if names is None:
        return list(files)
    by_name = {f.path: f for f in files}
    missing = [n for n in names if n not in by_name]
    if missing:
        raise DownloadError(f"no file {missing[0]!r}; there are: {', '.join(sorted(by_name))}")
    return [by_name[n] for n in names]


class FileDownload:
    """One file on its way from a URL into a directory."""

    def __init__(
        self, transport: Transport, url: str, file: RemoteFile, directory: Path, on_bytes: OnBytes
    ) -> None:
        self._transport, self._url, self._file, self._on_bytes = transport, url, file, on_bytes
        self._final = directory / file.path
        self._partial = directory / f"{file.path}.partial"
        self._sidecar = directory / f"{file.path}.partial.json"
        self._furthest = 0

    def run(self) -> Path:
        """Fetch what is missing, verify all of it, give it its name.

        Returns:
            Where the file is. A file that is there already and has the right digest is not
            fetched again.

        Raises:
            DigestMismatchError: the bytes are wrong; nothing of them is kept.
            ConnectionFailedError: the service was away for too long; a later run goes on.
            ApiError: the service refused.
            OSError: the directory cannot be written.
        """
        if self._is_done():
            self._on_bytes(self._file.path, self._file.size_bytes, self._file.size_bytes)
            return self._final
        if self._resumable_etag() is None:
            self._discard()
        self._furthest = self._held()
        retrier = self._transport.retrier()
        while self._held() < self._file.size_bytes or not self._partial.exists():
            try:
                self._fetch(retrier)
            except httpx2.TransportError as exc:
                retrier.failed(exc)
            except ApiError as exc:
                if exc.status == 416:  # the partial file belongs to something else
                    self._discard()
                elif not is_transient(exc):
                    raise
                retrier.failed(exc)
        return self._publish()

    def _is_done(self) -> bool:
        same_size = self._final.is_file() and self._final.stat().st_size == self._file.size_bytes
        return same_size and _sha256(self._final) == self._file.sha256

    def _held(self) -> int:
        return self._partial.stat().st_size if self._partial.exists() else 0

    def _fetch(self, retrier: Retrier) -> None:
        """One connection: go on where the partial file ends, if it still fits."""
        headers = {"Accept-Encoding": "identity"}  # a range of compressed bytes would be of no use
        etag = self._resumable_etag()
        if etag is not None:
            headers |= {"Range": f"bytes={self._held()}-", "If-Range": etag}
        with self._transport.stream(
            self._url, headers=headers, read_timeout_s=_READ_TIMEOUT_S
        ) as response:
            start = _start_of(response)
            if start not in (0, self._held()):
                raise httpx2.RemoteProtocolError(f"the answer starts at byte {start}")
            with self._partial.open("ab" if start else "wb") as sink:
                self._remember(response.headers.get("etag"))
                for chunk in response.iter_raw():
                    sink.write(chunk)
                    if sink.tell() > self._file.size_bytes:
                        break  # not the file of the manifest; the digest will say so
                    if sink.tell() > self._furthest:
                        self._furthest = sink.tell()
                        retrier.progressed()
                    self._on_bytes(self._file.path, sink.tell(), self._file.size_bytes)
        if self._held() < self._file.size_bytes:
            raise httpx2.RemoteProtocolError("the answer ended before the file did")

    def _resumable_etag(self) -> str | None:
        """The ETag the partial file belongs to, if it can be continued."""
        if not 0 < self._held() <= self._file.size_bytes:
            return None
        try:
            sidecar = json.loads(self._sidecar.read_text(encoding="utf-8"))
            etag, size = sidecar["etag"], sidecar["size"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # nobody knows what these bytes are: start again
        strong = isinstance(etag, str) and etag.startswith('"')
        return etag if strong and size == self._file.size_bytes else None

    def _remember(self, etag: str | None) -> None:
        if etag is None:
            self._sidecar.unlink(missing_ok=True)
        else:
            text = json.dumps({"etag": etag, "size": self._file.size_bytes})
            self._sidecar.write_text(text, encoding="utf-8")

    def _publish(self) -> Path:
        got = _sha256(self._partial)
        if got != self._file.sha256:
            self._discard()
            raise DigestMismatchError(self._final, self._file.sha256, got)
        with self._partial.open("rb+") as whole:
            os.fsync(whole.fileno())
        self._partial.replace(self._final)
        self._sidecar.unlink(missing_ok=True)
        return self._final

    def _discard(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._sidecar.unlink(missing_ok=True)


def _start_of(response: httpx2.Response) -> int:
    if response.status_code != 206:
        return 0
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None:
        raise httpx2.RemoteProtocolError("a partial answer without a usable Content-Range")
    return int(match.group(1))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
