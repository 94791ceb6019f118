"""Checkpoints as directories that are whole or not there: safetensors, JSON, and a manifest.

    checkpoints/step-00000120/
        tensors.safetensors   weights, buffers, optimiser moments, generator states
        state.json            numbers: step, optimiser groups, elapsed time
        manifest.json         size and sha256 of both; written last

A checkpoint is written beside its final place, synced, and renamed. Reading hashes the very bytes
that are then parsed. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from jobs.artifacts import make_private_directory, storage_errors, sync_directory, write_atomic
from jobs.failpoints import fp
from jobs.run_directory import RunDirectory
from jobs.wire import Manifest, ManifestFile

FORMAT_VERSION = 1
TENSORS_FILE, STATE_FILE, MANIFEST_FILE = "tensors.safetensors", "state.json", "manifest.json"
PREFIX, PARTIAL_SUFFIX = "step-", ".partial"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What was read back. `fence` is the attempt that wrote it."""

    step: int
    fence: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptCheckpoint:
    """A checkpoint that cannot be trusted, and why."""

    step: int
    fence: int
    problem: str


def save_checkpoint(
    run: RunDirectory,
    step: int,
    *,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write one checkpoint of an attempt, then delete all but its newest `keep`.

    Args:
        run: the attempt's own directory.
        step: how many steps are done.
        tensors: on the CPU, contiguous.
        state: JSON values.
        keep: how many checkpoints to keep, this one included.

    Raises:
        StorageFullError: there is no room.
        StorageUnavailableError: the directory cannot be written.
    """
    make_private_directory(run.checkpoints)
    final = run.checkpoints / f"{PREFIX}{step:08d}"
    partial = final.with_name(final.name + PARTIAL_SUFFIX)
    for leftover in (partial, final):  # of a worker of this attempt that died, or a corrupt one
        shutil.rmtree(leftover, ignore_errors=True)
    make_private_directory(partial)
    files = {
        TENSORS_FILE: save(dict(tensors)),
        STATE_FILE: json.dumps({"format_version": FORMAT_VERSION, "step": step, **state}).encode(),
    }
    for name, content in files.items():
        write_atomic(partial / name, content)
        fp("ckpt.mid_write")
    manifest = Manifest(files=tuple(_entry(name, content) for name, content in files.items()))
    fp("ckpt.after_file_before_manifest")
    write_atomic(partial / MANIFEST_FILE, manifest.model_dump_json().encode())
    with storage_errors(final):
        partial.rename(final)
        sync_directory(run.checkpoints)
    fp("ckpt.after_manifest")
    _delete_old(run, keep)
    return final


def newest_verified(
    run: RunDirectory, *, on_corrupt: Callable[[CorruptCheckpoint], None]
) -> Checkpoint | None:
    """The checkpoint to go on from: of this attempt or a lower one, the highest step first.

    Args:
        run: the attempt's own directory.
        on_corrupt: called for each checkpoint that was skipped.

    Returns:
        None if no whole checkpoint is left.
    """
    for step, fence, path in _found(run):
        checkpoint = _read(path, step, fence)
        if isinstance(checkpoint, Checkpoint):
            return checkpoint
        on_corrupt(checkpoint)
    return None


def _found(run: RunDirectory) -> list[tuple[int, int, Path]]:
    """(step, fence, path) of every finished directory, best first."""
    found = [
        (int(path.name.removeprefix(PREFIX)), attempt.fence, path)
        for attempt in (run, *run.lower_fences())
        if attempt.checkpoints.is_dir()
        for path in attempt.checkpoints.iterdir()
        if path.name.removeprefix(PREFIX).isdigit()
    ]
    return sorted(found, reverse=True)


def _read(path: Path, step: int, fence: int) -> Checkpoint | CorruptCheckpoint:
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST_FILE).read_bytes())
        content = {entry.path: _verified(path, entry) for entry in manifest.files}
        state = _parsed_state(content[STATE_FILE], step)
        tensors = load(content[TENSORS_FILE])
    except (OSError, ValueError, KeyError, TypeError, ValidationError, SafetensorError) as error:
        problem = f"{type(error).__name__}: {error}"[:500]
        return CorruptCheckpoint(step=step, fence=fence, problem=problem)
    return Checkpoint(step=step, fence=fence, tensors=tensors, state=state)


def _parsed_state(content: bytes, step: int) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(content)
    if state["format_version"] != FORMAT_VERSION or state["step"] != step:
        raise ValueError(f"it says version {state['format_version']}, step {state['step']}")
    return state


def _verified(path: Path, entry: ManifestFile) -> bytes:
    content = (path / entry.path).read_bytes()
    if _entry(entry.path, content) != entry:
        raise ValueError(f"{entry.path} is not what the manifest says")
    return content


def _entry(name: str, content: bytes) -> ManifestFile:
    return ManifestFile(
        path=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )


def _delete_old(run: RunDirectory, keep: int) -> None:
    own = [path for _, fence, path in _found(run) if fence == run.fence]
    for path in own[keep:]:
        # Renamed first: a crash in between must not leave half a checkpoint under a good name.
        doomed = path.with_name(path.name + PARTIAL_SUFFIX)
        path.replace(doomed)
        shutil.rmtree(doomed)
