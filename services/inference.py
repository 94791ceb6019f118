"""Published encoders in memory, ready to embed: the only module of `services` that meets torch.

Torch is imported with the first encoder, in a thread. Memory is bounded by bytes (least recently
used goes first, never one that is in use), work by a semaphore with a short queue: beyond it a
request is refused at once rather than kept waiting.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from starlette.concurrency import run_in_threadpool

from jobs.errors import ArtifactInvalidError
from jobs.records import EncoderRecord
from services.artifact_files import ArtifactFiles
from services.errors import ProblemError

if TYPE_CHECKING:
    import numpy as np

    from mige.encoders.io import LoadedEncoder

_log = structlog.get_logger("services.inference")

_PARALLEL = 2
_WAITING = 16
_FILES = frozenset({"config.json", "encoder.safetensors", "golden.json"})


@dataclass(slots=True)
class _Entry:
    encoder: LoadedEncoder
    size_bytes: int
    users: int = 0


class EncoderPool:
    """Loads encoders when they are first asked for and keeps the most recently used ones."""

    def __init__(self, files: ArtifactFiles, *, max_bytes: int, num_threads: int) -> None:
        self._files = files
        self._max_bytes = max_bytes
        self._num_threads = num_threads
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()  # guards `_entries`
        self._loading = threading.Lock()  # one encoder is loaded at a time
        self._slots = asyncio.Semaphore(_PARALLEL)
        self._waiting = 0

    @property
    def resident(self) -> tuple[str, ...]:
        """The encoders in memory, the least recently used one first."""
        with self._lock:
            return tuple(self._entries)

    async def embed(self, record: EncoderRecord, images: np.ndarray) -> np.ndarray:
        """Embed images, as `mige.load_encoder(...).embed` does.

        Args:
            record: the encoder.
            images: (n, C, H, W), uint8 or floating point.

        Returns:
            float32, (n, out_dim).

        Raises:
            ProblemError: `overloaded`, `input_invalid` or `artifact_corrupt`.
        """
        if self._waiting >= _PARALLEL + _WAITING:
            raise ProblemError("overloaded", "Too many inputs wait to be embedded.")
        self._waiting += 1
        try:
            async with self._slots:
                return await run_in_threadpool(self._embed, record, images)
        finally:
            self._waiting -= 1

    def _embed(self, record: EncoderRecord, images: np.ndarray) -> np.ndarray:
        import torch

        from mige.errors import InvalidInputError

        with self._lease(record) as encoder:
            try:
                rows = encoder.embed(torch.from_numpy(images))
            except InvalidInputError as error:
                raise ProblemError("input_invalid", str(error)) from None
        embeddings: np.ndarray = rows.numpy()
        return embeddings

    @contextmanager
    def _lease(self, record: EncoderRecord) -> Iterator[LoadedEncoder]:
        """An encoder that stays in memory while it is used."""
        entry = self._take(record.id)
        if entry is None:
            with self._loading:
                entry = self._take(record.id) or self._put(record.id, self._load(record))
        try:
            yield entry.encoder
        finally:
            with self._lock:
                entry.users -= 1
                self._evict()

    def _take(self, encoder_id: str) -> _Entry | None:
        with self._lock:
            entry = self._entries.get(encoder_id)
            if entry is not None:
                entry.users += 1
                self._entries.move_to_end(encoder_id)
            return entry

    def _put(self, encoder_id: str, encoder: LoadedEncoder) -> _Entry:
        tensors = [*encoder.parameters(), *encoder.buffers()]
        size = sum(t.numel() * t.element_size() for t in tensors)
        entry = _Entry(encoder, size, users=1)
        with self._lock:
            self._entries[encoder_id] = entry
            self._evict()
        return entry

    def _evict(self) -> None:
        """Drop idle encoders, least recently used first, until the rest fits."""
        total = sum(entry.size_bytes for entry in self._entries.values())
        for encoder_id in [k for k, entry in self._entries.items() if entry.users == 0]:
            if total <= self._max_bytes:
                return
            total -= self._entries.pop(encoder_id).size_bytes

    def _load(self, record: EncoderRecord) -> LoadedEncoder:
        import torch

        from jobs.golden import GOLDEN_FILE, check_golden
        from mige.encoders.io import load_encoder
        from mige.errors import MigeError

        torch.set_num_threads(self._num_threads)
        with tempfile.TemporaryDirectory(prefix="mige-encoder-") as name:
            folder = Path(name)
            names = {file["path"] for file in record.manifest["files"]} & _FILES
            self._files.link_all(record, names, folder)
            try:
                encoder = load_encoder(folder)
                if GOLDEN_FILE in names:
                    check_golden(encoder, (folder / GOLDEN_FILE).read_bytes())
            except (MigeError, ArtifactInvalidError) as error:
                _log.error("encoder.refused", encoder_id=record.id, cause=str(error))
                raise _corrupt() from None
        _log.info("encoder.loaded", encoder_id=record.id)
        return encoder


def _corrupt() -> ProblemError:
    detail = "This encoder cannot be loaded, or does not embed as it did when it was published."
    return ProblemError("artifact_corrupt", detail)
