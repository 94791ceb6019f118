"""Ids: a prefix that says what it is, and a UUIDv7. Later ids sort after earlier ones."""

from __future__ import annotations

import re
from typing import Final, Literal

import uuid_utils

Prefix = Literal["job", "enc", "evt", "key"]
_ID: Final = re.compile(r"(job|enc|evt|key)_[0-9a-f]{32}")


def new_id(prefix: Prefix) -> str:
    """A fresh id such as `job_01a209193e4773429ddd4f81e0ebea18`, never given out before."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def is_id(text: str, prefix: Prefix) -> bool:
    """Whether `text` has the form of an id of this kind; nothing else may become part of a path."""
    return _ID.fullmatch(text) is not None and text.startswith(f"{prefix}_")
