"""Checkpoints are whole or skipped; the newest whole one of any attempt is taken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from jobs.checkpoints import CorruptCheckpoint, newest_verified, save_checkpoint
from jobs.errors import StorageUnavailableError
from jobs.run_directory import RunDirectory


def attempt(storage: Path, fence: int) -> RunDirectory:
    run = RunDirectory(storage, "job_1", fence)
    run.root.mkdir(parents=True, exist_ok=True)
    return run


def save(run: RunDirectory, step: int, *, keep: int = 2) -> Path:
    tensors = {"module.w": torch.full((3,), float(step)), "rng": torch.zeros(2, 5).byte()}
    return save_checkpoint(run, step, tensors=tensors, state={"note": "x"}, keep=keep)


def newest(run: RunDirectory) -> tuple[tuple[int, int] | None, list[CorruptCheckpoint]]:
    corrupt: list[CorruptCheckpoint] = []
    found = newest_verified(run, on_corrupt=corrupt.append)
    return None if found is None else (found.step, found.fence), corrupt


def test_what_is_read_is_what_was_written(tmp_path):
    run = attempt(tmp_path, 1)
    save(run, 7)
    found = newest_verified(run, on_corrupt=pytest.fail)
    assert found is not None
    assert (found.step, found.fence, found.state["note"]) == (7, 1, "x")
    torch.testing.assert_close(found.tensors["module.w"], torch.full((3,), 7.0))
    assert found.tensors["rng"].dtype is torch.uint8


def test_without_checkpoints_there_is_none(tmp_path):
    assert newest(attempt(tmp_path, 1)) == (None, [])


def test_only_the_newest_are_kept(tmp_path):
    run = attempt(tmp_path, 1)
    for step in (1, 2, 3, 4):
        save(run, step, keep=2)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step-00000003", "step-00000004"]


def test_files_are_for_their_owner_only(tmp_path):
    path = save(attempt(tmp_path, 1), 1)
    assert path.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in path.iterdir()} == {0o600}


def test_the_highest_step_of_this_or_an_earlier_attempt_is_taken(tmp_path):
    save(attempt(tmp_path, 1), 30)
    save(attempt(tmp_path, 2), 20)
    assert newest(attempt(tmp_path, 3))[0] == (30, 1)
    save(attempt(tmp_path, 3), 40)
    assert newest(attempt(tmp_path, 3))[0] == (40, 3)


def test_a_later_attempts_checkpoints_are_not_looked_at(tmp_path):
    save(attempt(tmp_path, 2), 50)
    assert newest(attempt(tmp_path, 1)) == (None, [])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip, empty, Path.unlink])
@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
):
    run = attempt(tmp_path, 1)
    save(run, 10)
    damage(save(run, 20) / name)
    found, corrupt = newest(run)
    assert found == (10, 1)
    assert [(c.step, c.fence) for c in corrupt] == [(20, 1)]
    assert corrupt[0].problem


def test_a_checkpoint_under_another_step_is_skipped(tmp_path):
    run = attempt(tmp_path, 1)
    save(run, 10).rename(run.checkpoints / "step-00000099")
    assert newest(run)[0] is None


def test_nothing_is_unpickled_even_if_the_manifest_fits(tmp_path):
    import hashlib

    path = save(attempt(tmp_path, 1), 10)
    content = b"\x80\x04cos\nsystem\n(S'false'\ntR."
    (path / "tensors.safetensors").write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["path"] == "tensors.safetensors":
            entry["sha256"] = hashlib.sha256(content).hexdigest()
            entry["size_bytes"] = len(content)
    (path / "manifest.json").write_text(json.dumps(manifest))
    assert newest(attempt(tmp_path, 1))[0] is None


def test_a_manifest_cannot_point_outside(tmp_path):
    path = save(attempt(tmp_path, 1), 10)
    text = (path / "manifest.json").read_text().replace("state.json", "../state.json")
    (path / "manifest.json").write_text(text)
    assert newest(attempt(tmp_path, 1))[0] is None


def test_a_corrupt_checkpoint_of_ones_own_is_written_again(tmp_path):
    run = attempt(tmp_path, 1)
    truncate(save(run, 10) / "state.json")
    save(run, 10)
    assert newest(run) == ((10, 1), [])


def test_a_directory_that_cannot_be_written_is_a_storage_error(tmp_path):
    run = attempt(tmp_path, 1)
    run.checkpoints.write_text("not a directory")
    with pytest.raises(StorageUnavailableError):
        save(run, 1)


CHILD = """
import sys, torch
from pathlib import Path
from jobs.checkpoints import save_checkpoint
from jobs.run_directory import RunDirectory
run = RunDirectory(Path(sys.argv[1]), "job_1", 1)
save_checkpoint(run, 20, tensors={"w": torch.zeros(3)}, state={}, keep=1)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("ckpt.mid_write", 10),
        ("ckpt.after_file_before_manifest", 10),
        ("ckpt.after_manifest", 20),
    ],
)
def test_a_crash_at_any_point_leaves_a_whole_checkpoint(tmp_path, point, left):
    run = attempt(tmp_path, 1)
    save(run, 10)
    environment = {**os.environ, "FAILPOINTS": f"{point}=kill", "PYTHONPATH": str(Path.cwd())}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], env=environment, check=False
    )
    assert child.returncode == -signal.SIGKILL
    assert newest(run) == ((left, 1), [])
