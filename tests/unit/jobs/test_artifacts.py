import errno
import hashlib
import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.artifacts import (
    ObjectStore,
    is_temporary,
    make_private_directory,
    open_regular,
    read_regular,
    storage_error,
    write_atomic,
)
from jobs.errors import ArtifactInvalidError, StorageFullError, StorageUnavailableError

ROOT = Path(__file__).parents[3]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_written_file_is_private_and_alone(tmp_path):
    make_private_directory(tmp_path / "a" / "b")
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("point", ["stage.mid_write", "stage.before_fsync", "stage.after_rename"])
def test_a_killed_write_leaves_the_old_file_or_the_new_one(tmp_path, point):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    code = (
        "import sys; from pathlib import Path; from jobs.artifacts import write_atomic;"
        "write_atomic(Path(sys.argv[1]), b'new')"
    )
    environment = {**os.environ, "FAILPOINTS": f"{point}=kill"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], env=environment, cwd=ROOT, check=False
    )
    assert done.returncode == -9
    assert path.read_bytes() == (b"new" if point == "stage.after_rename" else b"old")
    assert all(is_temporary(p.name) for p in tmp_path.iterdir() if p != path)
    write_atomic(path, b"again")
    assert path.read_bytes() == b"again"


@pytest.mark.parametrize(
    ("action", "error"), [("enospc", StorageFullError), ("eio", StorageUnavailableError)]
)
def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing(
    tmp_path, monkeypatch, action, error
):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setenv("FAILPOINTS", f"stage.before_fsync={action}")
    with pytest.raises(error) as raised:
        write_atomic(path, b"new")
    assert str(tmp_path) not in str(raised.value)  # it may reach a client
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_planted_link_is_replaced_and_never_followed(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"safe")
    path.symlink_to(victim)
    write_atomic(path, b"new")
    assert victim.read_bytes() == b"safe"
    assert not path.is_symlink()


@pytest.mark.parametrize("kind", ["missing", "symlink", "fifo", "hardlink", "directory"])
def test_only_plain_files_are_opened(tmp_path, kind):
    path, other = tmp_path / "file", tmp_path / "other"
    other.write_bytes(b"secret")
    if kind == "symlink":
        path.symlink_to(other)
    elif kind == "fifo":
        os.mkfifo(path)  # opening it the plain way would hang
    elif kind == "hardlink":
        path.hardlink_to(other)
    elif kind == "directory":
        path.mkdir()
    with pytest.raises(ArtifactInvalidError), open_regular(path) as file:
        file.read()


def test_a_file_larger_than_allowed_is_not_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", limit_bytes=5) == b"12345"
    with pytest.raises(ArtifactInvalidError, match="larger"):
        read_regular(tmp_path / "file", limit_bytes=4)


# --- objects ----------------------------------------------------------------------------------

DATA = b"weights" * 1000
SIZE = len(DATA)
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def objects(tmp_path) -> ObjectStore:
    return ObjectStore(tmp_path / "storage")


def put(objects, data=DATA, sha=SHA, size=SIZE, check=None):
    objects.put(io.BytesIO(data), sha256=sha, size_bytes=size, check=check)


def files(objects) -> list[str]:
    return [p.name for p in objects.root.rglob("*") if p.is_file()]


def test_an_object_is_found_by_its_hash_and_cannot_be_written(objects):
    put(objects)
    file, size = objects.open_object(SHA)
    with file:
        assert (file.read(), size) == (DATA, len(DATA))
    path = objects.path(SHA)
    assert path.relative_to(objects.root).parts == ("objects", SHA[:2], SHA)
    assert mode(path) == 0o400
    assert path.stat().st_nlink == 1


def test_putting_an_object_twice_keeps_one(objects):
    put(objects)
    os.utime(objects.path(SHA), (1, 1))
    put(objects)
    assert files(objects) == [SHA]
    assert objects.path(SHA).stat().st_mtime > 1  # in use again, so the collector waits


def test_an_object_that_rotted_is_replaced_by_a_good_copy(objects):
    put(objects)
    objects.path(SHA).chmod(0o600)
    objects.path(SHA).write_bytes(b"rotten" * 1000)
    put(objects)
    assert objects.path(SHA).read_bytes() == DATA


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": b"other s" * 1000}, "hashes to"),
        ({"data": DATA[:-1]}, "shorter"),
        ({"data": DATA + b"x"}, "longer"),
        ({"sha": "0" * 64}, "hashes to"),
        ({"sha": "../../../../etc/passwd"}, "no.*sha256|not a sha256"),
        ({"sha": SHA.upper()}, "not a sha256"),
    ],
)
def test_what_is_not_what_it_says_is_not_kept(objects, change, words):
    with pytest.raises(ArtifactInvalidError, match=words):
        put(objects, **change)
    assert files(objects) == []


def test_an_object_that_its_check_refuses_is_not_kept(objects):
    def refuse(copy):
        assert copy.read() == DATA
        raise ArtifactInvalidError("no.", "do better")

    with pytest.raises(ArtifactInvalidError, match="do better"):
        put(objects, check=refuse)
    assert files(objects) == []


def test_a_missing_object_says_so(objects):
    with pytest.raises(ArtifactInvalidError, match="missing"):
        objects.open_object(SHA)


def test_a_full_disk_leaves_no_part_of_an_object(objects, monkeypatch):
    monkeypatch.setenv("FAILPOINTS", "publish.before_link=enospc")
    with pytest.raises(StorageFullError):
        put(objects)
    assert files(objects) == []


def test_an_object_goes_to_the_trash_only_if_it_is_still_unused(objects):
    put(objects)
    assert not objects.trash(SHA, unused=lambda: False)
    assert objects.path(SHA).exists()
    assert objects.trash(SHA, unused=lambda: True)
    assert not objects.path(SHA).exists()
    assert (objects.root / "trash" / SHA).read_bytes() == DATA


def test_errno_of_a_quota_counts_as_a_full_disk(tmp_path):
    error = storage_error(tmp_path / "f", OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert isinstance(error, StorageFullError)
