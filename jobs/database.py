"""Opens the database: the right SQLite, the right settings, the right revision.

SQLite runs in WAL with `synchronous=FULL`: with NORMAL a power cut loses acknowledged jobs. SQLite
before 3.51.3 can corrupt a WAL database when two connections write, so it is refused; `pysqlite3`
brings its own and is preferred when it can be imported.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol, TypedDict, Unpack

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool, Pool, QueuePool

from jobs.errors import SettingsError
from jobs.serialization import dumps

HEAD_REVISION: Final = "0001"
OLDEST_SAFE_SQLITE: Final = (3, 51, 3)
BUSY_TIMEOUT_MS: Final = 5000
_READERS: Final = 8


def database_path(database_url: str) -> Path:
    """The file of a SQLite URL such as `sqlite:////home/me/mige.db`.

    Raises:
        SettingsError: the URL is not one of SQLite, or names no file.
    """
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise SettingsError(
            "database_url cannot be read.", "Write it as sqlite:////path/to/mige.db."
        ) from error
    if url.get_backend_name() != "sqlite":
        raise SettingsError(
            f"database_url starts with {url.drivername}://, which this version cannot open.",
            "Use sqlite:////path/to/mige.db.",
        )
    if not url.database or url.database == ":memory:":
        raise SettingsError(
            "database_url names no file.", "Give an absolute path: sqlite:////path/to/mige.db."
        )
    return Path(url.database)


def sqlite_driver() -> ModuleType:
    """The SQLite module to use: the bundled one where there is one.

    Raises:
        SettingsError: its SQLite still has the WAL-reset bug.
    """
    try:
        from pysqlite3 import dbapi2 as driver
    except ImportError:
        from sqlite3 import dbapi2 as driver
    check_sqlite_version(driver.sqlite_version_info)
    module: ModuleType = driver
    return module


def check_sqlite_version(version: tuple[int, int, int]) -> None:
    """Refuse a SQLite whose WAL can corrupt a database.

    Raises:
        SettingsError: older than 3.51.3.
    """
    if version < OLDEST_SAFE_SQLITE:
        raise SettingsError(
            f"SQLite {'.'.join(map(str, version))} can corrupt a database in WAL mode "
            "(fixed in 3.51.3).",
            "Install pysqlite3 0.6.1 or newer, or a Python built with SQLite 3.51.3 or newer.",
        )


def writer_engine(path: Path) -> Engine:
    """The engine of the one writing connection; transactions take the write lock at once."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise SettingsError(
            f"The database {path} cannot be opened for writing: {error.strerror}.",
            "Choose a home directory that this user may write.",
        ) from error
    engine = _engine(path, poolclass=NullPool)
    event.listen(engine, "connect", _set_up_writer)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def reader_engine(path: Path) -> Engine:
    """An engine of connections that cannot write. `path` must exist and be in WAL mode."""
    engine = _engine(
        path, poolclass=QueuePool, pool_size=_READERS, max_overflow=_READERS, pool_timeout=5
    )
    event.listen(engine, "connect", _set_up_reader)
    event.listen(engine, "begin", _begin_deferred)
    return engine


def migrate(engine: Engine) -> None:
    """Bring the database to `HEAD_REVISION` in one transaction; a killed migration left nothing.

    Raises:
        SettingsError: the database was written by a newer version.
    """
    with engine.begin() as connection:
        current = _current_revision(connection)
        if current != HEAD_REVISION:
            # Alembic takes a third of a second to import, and is needed on the first start only.
            from jobs.migrations.upgrade import upgrade

            upgrade(connection, current)


def _current_revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if revision is None else str(revision)


class _PoolOptions(TypedDict, total=False):
    poolclass: type[Pool]
    pool_size: int
    max_overflow: int
    pool_timeout: float


class _SqliteConnection(Protocol):
    isolation_level: str | None

    def execute(self, sql: str, /) -> _SqliteCursor: ...


class _SqliteCursor(Protocol):
    def fetchone(self) -> tuple[Any, ...]: ...


def _engine(path: Path, **pool: Unpack[_PoolOptions]) -> Engine:
    return create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        module=sqlite_driver(),
        json_serializer=dumps,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
        **pool,
    )


def _set_up_connection(connection: _SqliteConnection) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves; the module would defer it
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA mmap_size=0")


def _set_up_writer(connection: _SqliteConnection, _record: object) -> None:
    _set_up_connection(connection)
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise SettingsError(
            f"SQLite answered {mode!r} instead of switching to a write-ahead log.",
            "Put the database on a local disk; network file systems cannot hold it.",
        )


def _set_up_reader(connection: _SqliteConnection, _record: object) -> None:
    _set_up_connection(connection)
    connection.execute("PRAGMA query_only=ON")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
