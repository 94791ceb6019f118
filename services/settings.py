"""The settings of the service, all from `MIGE_...` environment variables."""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jobs.errors import SettingsError
from services.home import DEFAULT_HOME

PREFIX = "MIGE_"
CLIENT_KEYS = frozenset({"MIGE_API_URL", "MIGE_API_KEY"})  # read by the client, not by the service


class Settings(BaseSettings):
    """How one service is set up. Every field can be set as `MIGE_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True
    )

    home: Path = Field(
        default_factory=DEFAULT_HOME.expanduser, description="Where everything is kept."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8642, ge=0, le=65_535, description="0: any free port.")
    behind_tls_proxy: bool = Field(
        default=False, description="A proxy in front ends TLS: needed for other than loopback."
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="More names that the Host header may have, with commas between."
    )
    data_root: Path | None = Field(
        default=None, description="Folder with data sets in torchvision's layout."
    )
    database_url: str | None = Field(default=None, description="Default: SQLite in the home.")
    reconciler: bool = Field(default=True, description="Also run jobs, not only answer requests.")
    standby: bool = Field(
        default=True, description="Keep one runner ready, so that Ray jobs start at once."
    )
    lease_ttl_s: float = Field(default=15.0, gt=0, le=3600)
    heartbeat_s: float = Field(default=3.0, gt=0, le=600)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    inference_bytes: int = Field(
        default=512 * 1024 * 1024, ge=0, description="Memory for encoders kept ready to embed."
    )
    inference_threads: int = Field(default=2, ge=1, le=64, description="Threads torch may use.")

    @field_validator("home", "data_root")
    @classmethod
    def _make_absolute(cls, path: Path | None) -> Path | None:
        """Runners start elsewhere: a relative path would mean another place to them."""
        return path and path.expanduser().absolute()

    @field_validator("heartbeat_s")
    @classmethod
    def _leave_room_for_a_lost_heartbeat(cls, heartbeat_s: float, info: ValidationInfo) -> float:
        """With a longer one, attempts that are well would be replaced over and over."""
        lease_ttl_s = info.data.get("lease_ttl_s", math.inf)  # missing: refused already
        if 2 * heartbeat_s > lease_ttl_s:
            raise ValueError(f"must be at most half of MIGE_LEASE_TTL_S, which is {lease_ttl_s:g}")
        return heartbeat_s

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_names(cls, names: object) -> object:
        if not isinstance(names, str):
            return names
        return tuple(name.strip() for name in names.split(",") if name.strip())

    @property
    def storage(self) -> Path:
        """Root of run directories and published files."""
        return self.home / "storage"

    @property
    def credentials_file(self) -> Path:
        """The bootstrap key for clients on this machine."""
        return self.home / "credentials.json"

    @property
    def database(self) -> str:
        """The database URL in effect."""
        return self.database_url or f"sqlite:///{self.home / 'mige.db'}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def host_names(self) -> tuple[str, ...]:
        """Every name that the Host header may have."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        return ("127.0.0.1", "localhost", "[::1]", own, *self.allowed_hosts)


def load_settings() -> Settings:
    """Read the settings from the environment of this process.

    Raises:
        SettingsError: a key is unknown or a value does not fit; the message names it.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_KEYS
    for key in sorted(os.environ):
        if key.upper().startswith(PREFIX) and key.upper() not in known:
            raise _unknown_key(key, known)
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = PREFIX + str(first["loc"][0]).upper()
        raise SettingsError(f"{name}: {first['msg']}.", f"Correct or unset {name}.") from None


def _unknown_key(key: str, known: set[str]) -> SettingsError:
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(sorted(known))}."
    return SettingsError(f"{key} is not a setting.", f"{hint} Unset it or correct it.")
