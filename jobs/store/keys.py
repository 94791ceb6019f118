"""API keys: `mige_<id>_<secret>`. Only the SHA-256 of the secret is stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, exists, insert, select, update

from jobs.errors import NotFoundError
from jobs.ids import new_id
from jobs.records import ApiKeyRecord
from jobs.store.moves import now
from jobs.store.rows import key_record
from jobs.tables import api_keys
from jobs.writer import Transaction

_TOKEN: Final = re.compile(r"mige_([0-9a-f]{32})_([0-9a-f]{64})")
_FIND: Final = select(api_keys).where(api_keys.c.id == bindparam("key_id"))
_NOBODY: Final = hashlib.sha256(b"").hexdigest()


def create_key(
    tx: Transaction,
    *,
    project: str,
    scopes: Collection[str],
    name: str,
    expires_at: datetime | None,
) -> tuple[ApiKeyRecord, str]:
    """Make a key. The second value is the token to hand over; it cannot be read again."""
    key_id, secret = new_id("key"), secrets.token_hex(32)
    tx.connection.execute(
        insert(api_keys).values(
            id=key_id,
            project=project,
            name=name,
            scopes=sorted(scopes),
            secret_sha256=_digest(secret),
            created_at=now(),
            expires_at=expires_at,
            revoked=False,
        )
    )
    record = ApiKeyRecord(
        id=key_id, name=name, project=project, scopes=frozenset(scopes), expires_at=expires_at
    )
    return record, f"mige_{key_id.removeprefix('key_')}_{secret}"


def authenticate(connection: Connection, token: str, at: datetime) -> ApiKeyRecord | None:
    """Whom the token speaks for at this time; None for a wrong, revoked or expired one.

    An unknown id costs the same comparison as a wrong secret.
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    row = connection.execute(_FIND, {"key_id": f"key_{match.group(1)}"}).one_or_none()
    stored = _NOBODY if row is None else row.secret_sha256
    matches = hmac.compare_digest(stored, _digest(match.group(2)))
    if row is None or not matches or row.revoked:
        return None
    if row.expires_at is not None and row.expires_at <= at:
        return None
    return key_record(row)


def revoke_key(tx: Transaction, key_id: str) -> None:
    """Make a key worthless from now on. Idempotent.

    Raises:
        NotFoundError: no such key.
    """
    result = tx.connection.execute(
        update(api_keys).where(api_keys.c.id == key_id).values(revoked=True)
    )
    if result.rowcount == 0:
        raise NotFoundError("API key", key_id)


def list_keys(connection: Connection) -> list[ApiKeyRecord]:
    """The keys that are not revoked, the oldest first."""
    query = select(api_keys).where(api_keys.c.revoked.is_(False)).order_by(api_keys.c.id)
    return [key_record(row) for row in connection.execute(query)]


def has_keys(connection: Connection) -> bool:
    """Whether a key was ever made, revoked or not."""
    return bool(connection.execute(select(exists(select(api_keys.c.id)))).scalar())


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
