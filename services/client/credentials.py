"""Where a client finds the service: arguments, then the environment, then the file `serve` left."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from services.client.errors import CredentialsError
from services.home import DEFAULT_HOME


@dataclass(frozen=True, slots=True)
class Credentials:
    """The service's base URL and the bearer key. The key never shows in a repr."""

    url: str
    api_key: str

    def __repr__(self) -> str:
        return f"Credentials(url={self.url!r}, api_key='...')"


def home_directory(environment: Mapping[str, str] | None = None) -> Path:
    """The service's home: `MIGE_HOME`, or `~/.local/share/mige`."""
    environment = os.environ if environment is None else environment
    return Path(environment.get("MIGE_HOME") or DEFAULT_HOME).expanduser()


def find_credentials(
    url: str | None = None,
    api_key: str | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> Credentials:
    """Complete `url` and `api_key`.

    An argument wins over `MIGE_API_URL` and `MIGE_API_KEY`, and those over
    `<home>/credentials.json`. The file's key is used only with the file's own URL: a key must not
    travel to another service because the address alone was set.

    Raises:
        CredentialsError: something is missing, or the file cannot be read.
    """
    environment = os.environ if environment is None else environment
    url = url or environment.get("MIGE_API_URL") or None
    api_key = api_key or environment.get("MIGE_API_KEY") or None
    path = home_directory(environment) / "credentials.json"
    stored = None if url and api_key else _read(path)
    if stored is not None and (url is None or _same_service(url, stored.url)):
        url, api_key = url or stored.url, api_key or stored.api_key
    if url is None:
        raise CredentialsError(
            f"no service is known: MIGE_API_URL is not set and {path} does not exist. "
            "Start one with `mige serve`, or set MIGE_API_URL and MIGE_API_KEY."
        )
    if api_key is None:
        raise CredentialsError(
            f"there is no key for {url}: set MIGE_API_KEY (`mige keys create NAME` makes one)."
        )
    return Credentials(url.rstrip("/"), api_key)


def is_loopback(url: str) -> bool:
    """Whether the service behind this URL runs on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _same_service(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _read(path: Path) -> Credentials | None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CredentialsError(f"{path} cannot be read: {exc.strerror}.") from exc
    try:
        stored = json.loads(content)
        return Credentials(stored["url"], stored["api_key"])
    except (ValueError, KeyError, TypeError) as exc:
        raise CredentialsError(
            f"{path} is damaged: it should hold url and api_key. Start `mige serve` again, or set "
            "MIGE_API_URL and MIGE_API_KEY."
        ) from exc
