"""From staged files to objects: nothing is published that was not read, hashed and checked here.

Files are opened by name below one directory descriptor, never through a link, and copied before
they are checked, so that what was checked is what is kept. Weights are read as plain numbers; no
code that builds a model runs, and this module needs no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydantic import ValidationError

from jobs.artifacts import ObjectStore, open_regular, read_regular, storage_error
from jobs.errors import ArtifactInvalidError
from jobs.safetensors_check import check_safetensors, strict_json
from jobs.wire import Manifest, ManifestFile

MANIFEST: Final = "manifest.json"
WEIGHTS: Final = "encoder.safetensors"
REQUIRED: Final = frozenset({"config.json", WEIGHTS})
_JSON_LIMIT: Final = 1 << 20
_TOTAL_LIMIT: Final = 8 << 30
_REMEDY: Final = "Stage the result again and write the manifest last."


def stage_objects(staged: Path, manifest: Manifest, objects: ObjectStore) -> Mapping[str, Any]:
    """Verify the files of a staged result and keep them as objects.

    Args:
        staged: the attempt's `result/`, whose own `manifest.json` must say the same.
        manifest: what the runner asks to publish.
        objects: where the copies go. An object that no encoder refers to is collected later.

    Returns:
        The content of `evaluation.json`; empty without one.

    Raises:
        ArtifactInvalidError: a file is missing, is not a regular one, differs from the manifest,
            is not valid safetensors or JSON, or holds weights that are not finite.
        StorageFullError: there is no room for the copies.
    """
    _check_names(manifest)
    directory = _open_directory(staged)
    try:
        if _read_manifest(directory) != manifest:
            raise ArtifactInvalidError("The staged manifest is not the one sent.", _REMEDY)
        for entry in manifest.files:
            with open_regular(entry.path, dir_fd=directory) as source:
                objects.put(
                    source,
                    sha256=entry.sha256,
                    size_bytes=entry.size_bytes,
                    check=partial(_check_content, entry),
                )
    finally:
        os.close(directory)
    return _evaluation(manifest, objects)


def _check_names(manifest: Manifest) -> None:
    names = [file.path for file in manifest.files]
    if len(set(names)) != len(names):
        raise ArtifactInvalidError("The manifest names a file twice.", _REMEDY)
    if MANIFEST in names:
        raise ArtifactInvalidError("The manifest lists itself.", _REMEDY)
    if missing := sorted(REQUIRED - set(names)):
        raise ArtifactInvalidError(f"The manifest lacks {', '.join(missing)}.", _REMEDY)
    if sum(file.size_bytes for file in manifest.files) > _TOTAL_LIMIT:
        raise ArtifactInvalidError(
            f"The result is larger than {_TOTAL_LIMIT} bytes.", "Train a smaller encoder."
        )


def _open_directory(staged: Path) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(staged, flags)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactInvalidError("There is no staged result.", _REMEDY) from error
    except OSError as error:
        raise storage_error(staged, error) from error


def _read_manifest(directory: int) -> Manifest:
    data = read_regular(MANIFEST, limit_bytes=_JSON_LIMIT, dir_fd=directory)
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise ArtifactInvalidError("The staged manifest cannot be read.", _REMEDY) from error


def _check_content(entry: ManifestFile, copy: BinaryIO) -> None:
    if entry.path.endswith(".safetensors"):
        check_safetensors(copy, entry.size_bytes, name=entry.path)
    elif entry.path.endswith(".json"):
        if entry.size_bytes > _JSON_LIMIT:
            raise ArtifactInvalidError(
                f"{entry.path} is larger than {_JSON_LIMIT} bytes.", "Store less in it."
            )
        strict_json(copy.read(), name=entry.path)


def _evaluation(manifest: Manifest, objects: ObjectStore) -> Mapping[str, Any]:
    for entry in manifest.files:
        if entry.path == "evaluation.json":
            file, _ = objects.open_object(entry.sha256)
            with file:
                return strict_json(file.read(), name=entry.path)
    return {}
