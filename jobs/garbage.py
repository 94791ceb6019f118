"""Removes what nobody needs: objects no encoder refers to, and what finished attempts left.

Logs and exit files stay. So does everything a later attempt may resume from: the directories of a
job are cleared only when the job has finished.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from jobs.artifacts import is_sha256, is_temporary
from jobs.errors import NotFoundError
from jobs.failpoints import fp
from jobs.ids import is_id
from jobs.store import Store

log = structlog.get_logger(__name__)

OBJECT_AGE: Final = timedelta(hours=24)
STAGING_AGE: Final = timedelta(hours=1)


def collect(store: Store) -> None:
    """Remove what is past its time. Whatever it removes can be made again or was never visible."""
    objects = collect_objects(store)
    attempts = collect_staging(store)
    keys = store.forget_old_idempotency_keys()
    log.info("garbage.collected", objects=objects, attempts=attempts, idempotency_keys=keys)


def collect_objects(store: Store) -> int:
    """Move objects to the trash that are old and that no encoder refers to; how many.

    While an attempt finalises, nothing is moved: it may be putting objects that its encoder, not
    yet committed, will refer to.
    """
    _empty_trash(store.storage / "trash")
    moved, strays = 0, []
    for path in _old_files(store.storage / "objects", OBJECT_AGE, pattern="*/*"):
        if is_temporary(path.name):
            _remove(path)
        elif not is_sha256(path.name):
            strays.append(path)
        elif store.objects.trash(path.name, unused=partial(_is_unused, store, path)):
            moved += 1
            fp("gc.mid")
    _tell_strays(strays)
    return moved


def collect_staging(store: Store) -> int:
    """Clear the attempts of jobs that finished a while ago; how many directories.

    Of an attempt stay `log.txt` and `exit.json`.
    """
    cleared, strays = 0, []
    for directory in (store.storage / "staging").glob("*/*"):
        if not directory.is_dir():
            strays.append(directory)
            continue
        leftovers = [p for p in directory.iterdir() if p.name not in {"log.txt", "exit.json"}]
        if leftovers and _has_finished(store, directory.parent.name):
            for path in leftovers:
                _remove(path)
            cleared += 1
    _tell_strays(strays)
    return cleared


def _tell_strays(strays: Sequence[Path]) -> None:
    """Files that are not ours stay: whoever put them there may miss them."""
    if strays:
        log.warning("garbage.strays", count=len(strays), first=str(strays[0]))


def _is_unused(store: Store, path: Path) -> bool:
    return (
        _age(path) >= OBJECT_AGE
        and not store.is_finalizing()
        and not store.is_referenced(path.name)
    )


def _has_finished(store: Store, job_id: str) -> bool:
    if not is_id(job_id, "job"):
        return False
    try:
        job = store.job(job_id)
    except NotFoundError:
        return False  # not ours to judge: another database may share the directory
    return job.finished_at is not None and datetime.now(UTC) - job.finished_at >= STAGING_AGE


def _empty_trash(trash: Path) -> None:
    for path in _old_files(trash, OBJECT_AGE, pattern="*"):
        _remove(path)


def _old_files(root: Path, age: timedelta, *, pattern: str) -> Iterator[Path]:
    for path in root.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # removed since it was listed
            if _age(path) >= age:
                yield path


def _age(path: Path) -> timedelta:
    return timedelta(seconds=time.time() - path.stat().st_mtime)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)  # what stays is tried again next time
    else:
        path.unlink(missing_ok=True)
