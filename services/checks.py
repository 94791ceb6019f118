"""What `mige doctor` looks at: one small function a question, none of which changes anything."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from jobs.errors import SettingsError
from services.settings import Settings, load_settings

Level = Literal["ok", "warn", "fail"]

_RAY_VERSION = "2.60.0"
_ROOM_WARN_BYTES = 5 * 1024**3
_ROOM_FAIL_BYTES = 512 * 1024**2


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer to one question. `remedy` says what to do where the level is not ok."""

    name: str
    level: Level
    detail: str
    remedy: str | None = None

    def as_dict(self) -> Mapping[str, str | None]:
        """For JSON."""
        return asdict(self)


def run_checks() -> list[Finding]:
    """Ask every question; the answers in the order of what depends on what."""
    findings = [check_python(), check_torch(), check_ray(), check_sqlite()]
    try:
        settings = load_settings()
    except SettingsError as exc:
        return [*findings, Finding("settings", "fail", exc.detail, exc.remedy)]
    questions: tuple[Callable[[Settings], Finding], ...] = (
        check_home,
        check_room,
        check_data_root,
        check_service,
    )
    return [*findings, *(ask(settings) for ask in questions)]


def check_python() -> Finding:
    """Whether the interpreter is one of those that are supported."""
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 14):
        return Finding("python", "ok", version)
    return Finding("python", "fail", version, "Use Python 3.11 to 3.14.")


def check_torch() -> Finding:
    """Whether torch is there (it is not imported: that takes seconds)."""
    version = _installed("torch")
    if version is None:
        return Finding("torch", "fail", "is not installed", "Run `make setup`.")
    return Finding("torch", "ok", version)


def check_ray() -> Finding:
    """Whether Ray is there in the version that Ray Train was tested with."""
    version = _installed("ray")
    if version == _RAY_VERSION:
        return Finding("ray", "ok", version)
    detail = "is not installed" if version is None else version
    return Finding(
        "ray",
        "fail",
        detail,
        f'Install ray {_RAY_VERSION} with `make setup`; until then use "backend": "inline".',
    )


def check_sqlite() -> Finding:
    """Whether SQLite is free of the bug that can corrupt a database in WAL mode."""
    from jobs.database import sqlite_driver  # slow to import

    try:
        return Finding("sqlite", "ok", sqlite_driver().sqlite_version)
    except SettingsError as exc:
        return Finding("sqlite", "fail", exc.detail, exc.remedy)


def check_home(settings: Settings) -> Finding:
    """Whether the home (or what it will be made in) can be written."""
    home = settings.home
    if os.access(_existing(home), os.W_OK | os.X_OK):
        state = "" if home.is_dir() else " (will be made)"
        return Finding("home", "ok", f"{home}{state}")
    return Finding("home", "fail", f"{home} cannot be written", "Choose another with MIGE_HOME.")


def check_room(settings: Settings) -> Finding:
    """Whether the disk of the home has room."""
    free = shutil.disk_usage(_existing(settings.home)).free
    detail = f"{free / 1024**3:.1f} GiB free"
    if free >= _ROOM_WARN_BYTES:
        return Finding("disk", "ok", detail)
    level: Level = "warn" if free >= _ROOM_FAIL_BYTES else "fail"
    return Finding("disk", level, detail, f"Free space on the disk of {settings.home}.")


def check_data_root(settings: Settings) -> Finding:
    """Whether the data root exists; only `digits` does without."""
    root = settings.data_root
    if root is None:
        return Finding(
            "data root",
            "warn",
            "is not set: only the data set `digits` can be used",
            "Set MIGE_DATA_ROOT to a folder in torchvision's layout.",
        )
    if os.access(root, os.R_OK | os.X_OK) and root.is_dir():
        return Finding("data root", "ok", str(root))
    return Finding("data root", "fail", f"{root} cannot be read", "Correct MIGE_DATA_ROOT.")


def check_service(settings: Settings) -> Finding:
    """Whether a service answers and takes our key; if none, whether its port is free."""
    from services.client import ApiError, Client, ClientError, ConnectionFailedError, Patience

    try:
        with Client(timeout_s=3.0, patience=Patience(first_s=0.0, again_s=0.0)) as client:
            next(iter(client.jobs(limit=1)), None)
            return Finding("service", "ok", f"answers at {client.url}")
    except ApiError as exc:
        remedy = "Set MIGE_API_KEY to a key of that service (`mige keys create NAME` makes one)."
        return Finding("service", "fail", str(exc), remedy if exc.status == 401 else exc.remedy)
    except ConnectionFailedError as exc:
        return _no_service(settings, f"does not answer at {exc.url}")
    except ClientError as exc:
        return _no_service(settings, str(exc))


def _no_service(settings: Settings, detail: str) -> Finding:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        taken = probe.connect_ex(("127.0.0.1", settings.port)) == 0
    if taken:
        return Finding(
            "service",
            "fail",
            f"{detail}; port {settings.port} belongs to something else",
            "Serve on another port with MIGE_PORT.",
        )
    return Finding("service", "warn", detail, "Start it with `mige serve`.")


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _existing(path: Path) -> Path:
    """The path, or its nearest ancestor that exists."""
    return next(p for p in (path, *path.parents) if p.exists())
