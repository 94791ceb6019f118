"""`Store`: what the service, the reconciler and the command line use. Synchronous, thread-safe."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.exc import DBAPIError

from jobs.artifacts import make_private_directory
from jobs.database import database_path, migrate, reader_engine, writer_engine
from jobs.store.attempt_methods import AttemptMethods
from jobs.store.job_methods import JobMethods
from jobs.store.registry_methods import RegistryMethods
from jobs.tokens import AttemptTokens
from jobs.writer import Broken, translate


class Store(JobMethods, AttemptMethods, RegistryMethods):
    """See `open_store`; the methods are in the modules of its bases.

    Errors are those of `jobs.errors`. Every method may raise StorageUnavailableError; every writing
    one also StorageFullError.
    """


def open_store(
    database_url: str,
    *,
    home: Path,
    max_queued_per_project: int = 10_000,
    min_free_bytes: int = 64 << 20,
    on_broken: Broken = lambda _why: None,
) -> Store:
    """Open the database (made or migrated if need be) and the files below `home`.

    Args:
        database_url: `sqlite:////path/to/mige.db`.
        home: holds `secrets/` and `storage/`; made 0700.
        max_queued_per_project: more queued jobs than this are refused.
        min_free_bytes: with less room than this no job is accepted; those that run need it.
        on_broken: called, in a thread of the store's, when nothing can be written any more (a sync
            failed): the process should end, so that the next one recovers the database.

    Raises:
        SettingsError: the URL, the home, the SQLite or the revision cannot work.
        StorageFullError: there is no room for the database.
    """
    make_private_directory(home)
    make_private_directory(home / "storage")
    tokens = AttemptTokens(home / "secrets" / "attempt.key")
    path = database_path(database_url)
    engine = writer_engine(path)
    try:
        migrate(engine)
        return Store(
            engine,
            reader_engine(path),
            storage=home / "storage",
            tokens=tokens,
            max_queued_per_project=max_queued_per_project,
            min_free_bytes=min_free_bytes,
            on_broken=on_broken,
        )
    except DBAPIError as error:
        engine.dispose()
        raise translate(error) from error
