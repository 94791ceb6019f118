"""Runs Alembic on a connection that is already in a transaction."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from jobs.errors import SettingsError


def alembic_config() -> Config:
    """Alembic's settings; there is no ini file, so the wheel needs none."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def upgrade(connection: Connection, current: str | None) -> None:
    """Apply every revision after `current`. The caller commits.

    Raises:
        SettingsError: `current` is a revision that this version does not know.
    """
    config = alembic_config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is not None and current not in known:
        raise SettingsError(
            f"The database has the revision {current!r}, which this version does not know.",
            "Start the version that wrote it, or restore a backup made by this one.",
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
