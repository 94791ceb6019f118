"""The first start: a home, a first key, and no service that is open to strangers by mistake."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.artifacts import make_private_directory, write_atomic
from jobs.errors import JobError, SettingsError
from jobs.store import Store
from services.auth import SCOPES
from services.settings import Settings

PROJECT = "default"


def prepare_home(home: Path) -> None:
    """Make the home and see that it can be written.

    Raises:
        SettingsError: it cannot; the message says what to do.
    """
    probe = home / ".writable"
    try:
        make_private_directory(home)
        write_atomic(probe, b"1")
        probe.unlink()
    except (JobError, OSError) as error:
        detail = getattr(error, "detail", None) or f"{home} cannot be written."
        raise SettingsError(
            f"The home {home} cannot be used: {detail}",
            "Free some space, correct its permissions, or set MIGE_HOME to another folder.",
        ) from error


def check_data_root(settings: Settings) -> None:
    """See that the data root is there, before a job is the first to miss it.

    Raises:
        SettingsError: it is no folder.
    """
    root = settings.data_root
    if root is not None and not root.is_dir():
        raise SettingsError(
            f"The data root {root} is not a folder.",
            "Set MIGE_DATA_ROOT (or --data-root) to the folder that holds the data sets, or leave "
            "it out.",
        )


def check_exposure(settings: Settings, *, has_keys: bool) -> None:
    """Refuse to listen for other machines without a key and TLS in front.

    Raises:
        SettingsError: the address is not loopback and one of both is missing.
    """
    if settings.is_loopback:
        return
    if not has_keys:
        raise SettingsError(
            f"{settings.host} can be reached from other machines, and there is no key yet.",
            "Make one first: `mige keys create NAME`.",
        )
    if not settings.behind_tls_proxy:
        raise SettingsError(
            f"{settings.host} can be reached from other machines, and nothing encrypts the keys.",
            "Put a proxy with TLS in front and set MIGE_BEHIND_TLS_PROXY=true, or use 127.0.0.1.",
        )


def create_first_key(settings: Settings, store: Store, url: str) -> str | None:
    """Make the first key of a service on loopback and leave it for clients on this machine.

    Returns:
        The key, to be shown once; None if there are keys already.
    """
    if store.has_keys():
        return None
    _record, secret = store.create_key(project=PROJECT, scopes=frozenset(SCOPES), name="bootstrap")
    content = json.dumps({"url": url, "api_key": secret}, indent=2)
    write_atomic(settings.credentials_file, content.encode())  # 0600
    return secret


def renew_address(settings: Settings, url: str) -> None:
    """Keep the address in the credentials file true when the port has changed."""
    try:
        stored = json.loads(settings.credentials_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return  # deleted or edited by its owner: not ours to repair
    if isinstance(stored, dict) and "api_key" in stored and stored.get("url") != url:
        write_atomic(
            settings.credentials_file, json.dumps({**stored, "url": url}, indent=2).encode()
        )
