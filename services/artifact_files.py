"""The files of published encoders: found by manifest, verified before the first byte goes out.

A path that a client sends is only ever compared with the names in the manifest; what is opened is
built from the sha256 that stands there.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from jobs.artifacts import ObjectStore
from jobs.errors import NotFoundError
from jobs.records import EncoderRecord
from jobs.wire import ManifestFile
from services.errors import ProblemError

_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A verified file: its manifest entry and where its bytes are."""

    entry: ManifestFile
    path: Path


class ArtifactFiles:
    """Opens files of encoders. Each is hashed once per process, and again if it changed."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._verified: OrderedDict[tuple[str, int, int, int], None] = OrderedDict()
        self._lock = threading.Lock()

    def entry(self, encoder: EncoderRecord, name: str) -> ManifestFile:
        """The manifest's entry for a file name.

        Raises:
            NotFoundError: the manifest has no such file.
        """
        for file in encoder.manifest["files"]:
            if file["path"] == name:
                return ManifestFile.model_validate(file)
        raise NotFoundError("file of this encoder", name)

    def open(self, entry: ManifestFile) -> StoredFile:
        """Find and verify the bytes of an entry.

        Raises:
            ProblemError: `artifact_corrupt`: the bytes are missing or not what was published.
        """
        path = self._objects.path(entry.sha256)
        try:
            status = path.stat()
        except FileNotFoundError:
            raise _corrupt("no bytes at all") from None
        if status.st_size != entry.size_bytes:
            raise _corrupt(f"{status.st_size} bytes instead of {entry.size_bytes}")
        identity = (entry.sha256, status.st_ino, status.st_mtime_ns, status.st_size)
        if not self._is_known(identity):
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                    raise _corrupt("another sha256 than its manifest says")
            self._remember(identity)
        return StoredFile(entry, path)

    def link_all(self, encoder: EncoderRecord, names: Collection[str], folder: Path) -> None:
        """Make verified files of an encoder appear under their names in a private folder."""
        for name in names:
            (folder / name).symlink_to(self.open(self.entry(encoder, name)).path)

    def _is_known(self, identity: tuple[str, int, int, int]) -> bool:
        with self._lock:
            return identity in self._verified

    def _remember(self, identity: tuple[str, int, int, int]) -> None:
        with self._lock:
            self._verified[identity] = None
            while len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)


def _corrupt(found: str) -> ProblemError:
    return ProblemError("artifact_corrupt", f"A stored file of this encoder has {found}.")
