"""Named places where a test can make the process fail; in production they do nothing.

`FAILPOINTS="publish.before_link=kill,claim.before_commit=delay:50"` arms two of them.
Actions: `kill` (SIGKILL to oneself), `exit` (status 70, no clean-up), `raise`, `enospc`, `eio`,
`delay:<ms>`.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NoReturn

ENVIRONMENT_VARIABLE: Final = "FAILPOINTS"

FAILPOINTS: Mapping[str, str] = MappingProxyType(
    {
        "submit.before_commit": "the job is inserted, not committed",
        "submit.after_commit_before_reply": "the job is stored, nobody was told",
        "claim.before_commit": "the attempt is inserted, not committed",
        "claim.after_commit_before_spawn": "the attempt is stored, no runner was started",
        "spawn.after_before_recorded": "the runner runs, its pid is not written",
        "running.before_commit": "the job is about to count as running",
        "heartbeat.before_commit": "a heartbeat is not stored yet",
        "heartbeat.after_commit": "a heartbeat is stored, the runner was not told",
        "ingest.before_commit": "reports are inserted, not committed",
        "finalize.before_commit": "the job is about to be finalised",
        "finalize.after_commit": "the job is finalising, the runner was not told",
        "stage.mid_write": "half of a file is in its temporary name",
        "stage.before_fsync": "a file is written, not synced",
        "stage.after_rename": "a file has its name, its directory is not synced",
        "publish.before_link": "the object is copied, it has no name",
        "publish.after_link_before_commit": "the objects exist, no encoder refers to them",
        "publish.after_commit_before_ack": "the encoder is published, the runner was not told",
        "end.before_commit": "the end of an attempt is not stored yet",
        "cancel.before_commit": "a cancel is not stored yet",
        "cancel.after_commit": "a cancel is stored, nobody was told",
        "reap.before_commit": "an expired attempt is not ended yet",
        "reap.after_commit": "an expired attempt is ended, its runner was not stopped",
        "ckpt.mid_write": "one file of a checkpoint is written",
        "ckpt.after_file_before_manifest": "its files are written, its manifest is not",
        "ckpt.after_manifest": "a checkpoint is whole, older ones are not deleted",
        "gc.mid": "one object is in the trash, others are not",
        "migrate.mid": "the tables are made, the revision is not written",
    }
)


class FailpointError(RuntimeError):
    """Raised on purpose by an armed failpoint."""


def fp(name: str) -> None:
    """Do what the environment arms for this point: usually nothing.

    Raises:
        FailpointError: the action is `raise`.
        OSError: the action is `enospc` or `eio`.
        ValueError: the environment names an unknown point or action.
    """
    armed = os.environ.get(ENVIRONMENT_VARIABLE)
    if armed:
        action = _parse(armed).get(name)
        if action is not None:
            _act(name, action)


def _parse(armed: str) -> dict[str, str]:
    actions = dict(item.strip().partition("=")[::2] for item in armed.split(",") if item.strip())
    if unknown := sorted(set(actions) - set(FAILPOINTS)):
        raise ValueError(f"{ENVIRONMENT_VARIABLE} names unknown points: {', '.join(unknown)}")
    return actions


def _act(name: str, action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "exit":
        os._exit(70)
    elif action.startswith("delay:"):
        time.sleep(int(action.removeprefix("delay:")) / 1000)
    else:
        _raise(name, action)


def _raise(name: str, action: str) -> NoReturn:
    if action == "raise":
        raise FailpointError(name)
    if action in {"enospc", "eio"}:
        code = errno.ENOSPC if action == "enospc" else errno.EIO
        raise OSError(code, os.strerror(code), name)
    raise ValueError(f"{ENVIRONMENT_VARIABLE}: {name} has the unknown action {action!r}")
