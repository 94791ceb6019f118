"""Attempt tokens: what a runner shows to speak for one attempt of one job, and nothing else.

`migeatt_<job>_<fence>_<hex>` with hex = HMAC-SHA256(key, "<job>/<fence>"). The key never leaves the
control side; whether the attempt is still the active one is the store's question, not the token's.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Final

from jobs.artifacts import make_private_directory, read_regular, write_atomic
from jobs.errors import SettingsError

_TOKEN: Final = re.compile(r"migeatt_(job_[0-9a-f]{32})_([1-9][0-9]{0,8})_([0-9a-f]{64})")
_KEY_BYTES: Final = 32


class AttemptTokens:
    """Makes and checks attempt tokens with the key in `key_file`, which it makes if missing."""

    def __init__(self, key_file: Path) -> None:
        self._key = _load_key(key_file)

    def token(self, job_id: str, fence: int) -> str:
        """The token of this attempt; always the same one."""
        return f"migeatt_{job_id}_{fence}_{self._mac(job_id, fence)}"

    def verify(self, token: str) -> tuple[str, int] | None:
        """The job and fence the token speaks for; None if it is not one of ours."""
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        job_id, fence = match.group(1), int(match.group(2))
        if not hmac.compare_digest(self._mac(job_id, fence), match.group(3)):
            return None
        return job_id, fence

    def _mac(self, job_id: str, fence: int) -> str:
        return hmac.new(self._key, f"{job_id}/{fence}".encode(), hashlib.sha256).hexdigest()


def _load_key(key_file: Path) -> bytes:
    make_private_directory(key_file.parent)
    if not key_file.exists():
        write_atomic(key_file, secrets.token_bytes(_KEY_BYTES))
    key = read_regular(key_file, limit_bytes=_KEY_BYTES)
    if len(key) != _KEY_BYTES:
        raise SettingsError(
            f"The key file {key_file.name} has {len(key)} bytes instead of {_KEY_BYTES}.",
            "Delete it while no job runs; a new one is made at the next start.",
        )
    return key
