"""Files that appear whole or not at all, and objects named by their content.

Every file is written under a temporary name in the same directory, synced, renamed, and the
directory is synced: after a crash there is the old file or the new one, never a part. Directories
are 0700 and files 0600. Nothing here follows a symlink in the last part of a path.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from jobs.errors import ArtifactInvalidError, JobError, StorageFullError, StorageUnavailableError
from jobs.failpoints import fp

_TEMPORARY: Final = ".tmp"
_BLOCK_BYTES: Final = 1 << 20
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

Check = Callable[[BinaryIO], None]


def make_private_directory(path: Path) -> None:
    """Make `path` and what is missing above it, 0700.

    Raises:
        StorageFullError: there is no room.
        StorageUnavailableError: it cannot be made.
    """
    with storage_errors(path):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a small file so that it appears whole, and stays after a power cut.

    Raises:
        StorageFullError: there is no room; the old file, if any, is untouched.
        StorageUnavailableError: it cannot be written; likewise.
    """
    with atomic_file(path) as file:
        file.write(data)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the name `path` when the block ends without an error.

    Raises:
        StorageFullError: there is no room.
        StorageUnavailableError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{_TEMPORARY}")
    with storage_errors(path):
        try:
            with _new_file(temporary) as file:
                yield file
                fp("stage.mid_write")
                file.flush()
                fp("stage.before_fsync")
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fp("stage.after_rename")
        sync_directory(path.parent)


def _new_file(path: Path) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "w+b")


def sync_directory(path: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(name: str) -> bool:
    """Whether a file of this name was left by a write that did not end."""
    return name.startswith(".") and name.endswith(_TEMPORARY)


def is_sha256(name: str) -> bool:
    """Whether this is a sha256 in hex, as objects are named."""
    return _SHA256.fullmatch(name) is not None


@contextlib.contextmanager
def open_regular(path: Path | str, *, dir_fd: int | None = None) -> Iterator[BinaryIO]:
    """Open a file for reading that is a plain one with one name: no link, pipe or device.

    Raises:
        ArtifactInvalidError: it is missing, or anything but a regular file with one name.
        StorageUnavailableError: it cannot be opened.
    """
    name = Path(path).name
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR}:
            what = "is missing" if error.errno == errno.ENOENT else "is not a regular file"
            raise ArtifactInvalidError(
                f"{name} {what}.", "Write it again; only regular files are accepted."
            ) from error
        raise storage_error(Path(path), error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise ArtifactInvalidError(
                f"{name} is not a regular file with one name.",
                "Write it again; links, pipes and devices are refused.",
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_regular(path: Path | str, *, limit_bytes: int, dir_fd: int | None = None) -> bytes:
    """The content of a regular file of at most `limit_bytes`.

    Raises:
        ArtifactInvalidError: missing, not regular, or larger.
    """
    with open_regular(path, dir_fd=dir_fd) as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ArtifactInvalidError(
            f"{Path(path).name} is larger than {limit_bytes} bytes.", "Write a smaller one."
        )
    return data


def check_room(path: Path, min_free_bytes: int) -> None:
    """Refuse new work while there is still room to finish what was begun.

    Raises:
        StorageFullError: the file system of `path` has less room than `min_free_bytes`.
    """
    with storage_errors(path):
        free_bytes = shutil.disk_usage(path).free
    if free_bytes < min_free_bytes:
        raise StorageFullError(
            f"Only {free_bytes >> 20} MiB are free in the storage directory, "
            f"{min_free_bytes >> 20} MiB are needed.",
            "Free some space; jobs that run go on.",
        )


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn what the system says about a file into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


def storage_error(path: Path, error: OSError) -> JobError:
    """The error to raise for one of the system about `path`."""
    reason = error.strerror or type(error).__name__
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFullError(
            f"There is no room to write {path.name}.", "Free some space in the storage directory."
        )
    return StorageUnavailableError(
        f"{path.name} cannot be used: {reason}.", "Check the storage directory."
    )


class ObjectStore:
    """Immutable files under their sha256: `<root>/objects/ab/<sha256>`; deleted by way of `trash/`.

    An object is a private copy: whoever wrote the original cannot change it through another name.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._changes = threading.Lock()  # a put of an old object against its collection

    def path(self, sha256: str) -> Path:
        """Where the object of this hash lies, or would lie."""
        if not is_sha256(sha256):
            raise ArtifactInvalidError(f"{sha256[:80]!r} is not a sha256.", "Give 64 hex digits.")
        return self.root / "objects" / sha256[:2] / sha256

    def open_object(self, sha256: str) -> tuple[BinaryIO, int]:
        """The object, opened for reading, and its size in bytes. The caller closes it.

        Raises:
            ArtifactInvalidError: there is no such object.
            StorageUnavailableError: it cannot be opened.
        """
        path = self.path(sha256)
        try:
            file = path.open("rb")
        except FileNotFoundError as error:
            raise ArtifactInvalidError(
                f"The object {sha256} is missing from storage.", "Restore it from a backup."
            ) from error
        except OSError as error:
            raise storage_error(path, error) from error
        return file, os.fstat(file.fileno()).st_size

    def put(
        self, source: BinaryIO, *, sha256: str, size_bytes: int, check: Check | None = None
    ) -> None:
        """Keep a copy of `source`, if it is what it should be.

        Args:
            source: an open file, read from where it stands to its end.
            sha256: what the copy must hash to.
            size_bytes: how long it must be.
            check: gets the copy, before it has a name; raises to refuse it.

        Raises:
            ArtifactInvalidError: size or hash differ, or `check` says so.
            StorageFullError: there is no room.
        """
        final = self.path(sha256)
        make_private_directory(final.parent)
        temporary = final.with_name(f".{secrets.token_hex(8)}{_TEMPORARY}")
        with storage_errors(final):
            try:
                with _new_file(temporary) as copy:
                    found = _copy(source, copy, size_bytes)
                    if found != sha256:
                        raise ArtifactInvalidError(
                            f"A file hashes to {found}, its manifest says {sha256}.",
                            "Stage the result again and write the manifest last.",
                        )
                    if check is not None:
                        copy.seek(0)
                        check(copy)
                    os.fsync(copy.fileno())
                fp("publish.before_link")
                self._link(temporary, final, sha256)
            finally:
                temporary.unlink(missing_ok=True)
            sync_directory(final.parent)

    def trash(self, sha256: str, *, unused: Callable[[], bool]) -> bool:
        """Move an object out of the way if, with puts held back, it is still `unused`."""
        bin_ = self.root / "trash"
        make_private_directory(bin_)
        with self._changes, storage_errors(bin_):
            if not unused():
                return False
            self.path(sha256).replace(bin_ / sha256)
            os.utime(bin_ / sha256)  # from now on it counts as trash of this age
        return True

    def _link(self, temporary: Path, final: Path, sha256: str) -> None:
        with self._changes:
            temporary.chmod(0o400)
            try:
                os.link(temporary, final)
            except FileExistsError:
                with final.open("rb") as file:
                    intact = hashlib.file_digest(file, "sha256").hexdigest() == sha256
                if intact:
                    os.utime(final)  # young again: the collector leaves it alone
                else:
                    temporary.replace(final)


def _copy(source: BinaryIO, copy: BinaryIO, size_bytes: int) -> str:
    """Copy up to one byte more than `size_bytes`; the hash of what was copied."""
    digest, left = hashlib.sha256(), size_bytes + 1
    while left > 0 and (block := source.read(min(_BLOCK_BYTES, left))):
        digest.update(block)
        copy.write(block)
        left -= len(block)
    if left != 1:
        raise ArtifactInvalidError(
            f"A file is {'longer' if left == 0 else 'shorter'} than the {size_bytes} bytes of its "
            "manifest.",
            "Stage the result again and write the manifest last.",
        )
    copy.flush()
    return digest.hexdigest()
