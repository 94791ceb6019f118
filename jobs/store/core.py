"""What every part of the store stands on: the connections, the files, the keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from jobs.artifacts import ObjectStore, check_room
from jobs.errors import StorageUnavailableError
from jobs.feed import Feed
from jobs.run_directory import RunDirectory
from jobs.tokens import AttemptTokens
from jobs.writer import Broken, Transaction, Writer, translate

T = TypeVar("T")


class StoreCore:
    """Runs writes in the writer's transaction, and reads on connections that cannot write."""

    def __init__(
        self,
        writer: Engine,
        readers: Engine,
        *,
        storage: Path,
        tokens: AttemptTokens,
        max_queued_per_project: int,
        min_free_bytes: int,
        on_broken: Broken,
    ) -> None:
        self.storage = storage
        self.objects = ObjectStore(storage)
        self.feed = Feed()
        self._tokens = tokens
        self._max_queued, self._min_free_bytes = max_queued_per_project, min_free_bytes
        self._readers = readers
        self._writer_engine = writer
        self._writer = Writer(
            writer,
            on_commit=lambda ids, q: self.feed.publish(ids, queue=q),
            on_broken=on_broken,
        )
        self._latest = datetime.now(UTC)  # the clock, as far as it ever got

    def close(self) -> None:
        """Finish what is being written and close the database. Idempotent."""
        self._writer.close()
        self._readers.dispose()  # before the writer: the last connection folds the log in
        self._writer_engine.dispose()

    def ping(self) -> None:
        """Answer, or raise StorageUnavailableError: can rows be read, and could they be written?"""
        if self._writer.broken:
            raise StorageUnavailableError(self._writer.broken, "Start the service again.")
        self._read(lambda c: c.execute(select(1)).scalar())

    def check_room(self) -> None:
        """Raise StorageFullError where a job would not be accepted: jobs that run need the room."""
        check_room(self.storage, self._min_free_bytes)

    def run_directory(self, job_id: str, fence: int) -> RunDirectory:
        """Where this attempt keeps its files."""
        return RunDirectory(self.storage, job_id, fence)

    def _write(self, work: Callable[[Transaction], T]) -> T:
        return self._writer.run(work)

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._readers.begin() as connection:
                return work(connection)
        except PoolTimeoutError as error:
            raise StorageUnavailableError(
                "Too many requests read the database at once.", "Try again shortly."
            ) from error
        except DBAPIError as error:
            raise translate(error) from error
