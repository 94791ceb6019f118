"""The store as a registry of encoders and of API keys."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from jobs.records import ApiKeyRecord, EncoderRecord, Page
from jobs.store import keys, publish, queries
from jobs.store.core import StoreCore


class RegistryMethods(StoreCore):
    """What was published, and who may ask."""

    def encoders(
        self,
        *,
        project: str,
        limit: int = 50,
        cursor: str | None = None,
        job_id: str | None = None,
    ) -> Page[EncoderRecord]:
        """Encoders of a project, newest first."""
        return self._read(
            lambda c: queries.list_encoders(
                c, project=project, limit=limit, cursor=cursor, job_id=job_id
            )
        )

    def encoder(self, encoder_id: str, *, project: str | None = None) -> EncoderRecord:
        """One encoder, or NotFoundError."""
        return self._read(lambda c: queries.encoder(c, encoder_id, project))

    def create_key(
        self,
        *,
        project: str,
        scopes: Collection[str],
        name: str,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKeyRecord, str]:
        """Make an API key: its record and, this once, its token."""
        return self._write(
            lambda tx: keys.create_key(
                tx, project=project, scopes=scopes, name=name, expires_at=expires_at
            )
        )

    def authenticate(self, token: str) -> ApiKeyRecord | None:
        """Whom a token speaks for. A clock that is set back does not revive an expired key."""
        self._latest = max(self._latest, datetime.now(UTC))
        return self._read(lambda c: keys.authenticate(c, token, self._latest))

    def revoke_key(self, key_id: str) -> None:
        """Make a key worthless from now on."""
        self._write(lambda tx: keys.revoke_key(tx, key_id))

    def keys(self) -> list[ApiKeyRecord]:
        """The keys that are not revoked."""
        return self._read(keys.list_keys)

    def has_keys(self) -> bool:
        """Whether a key was ever made."""
        return self._read(keys.has_keys)

    def is_referenced(self, sha256: str) -> bool:
        """Whether a published encoder has a file with this content."""
        return self._read(lambda c: publish.is_referenced(c, sha256))

    def is_finalizing(self) -> bool:
        """Whether some attempt may be putting objects that no encoder refers to yet."""
        return self._read(publish.is_finalizing)
