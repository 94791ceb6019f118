"""The only thread that writes to SQLite: many requests, one transaction, one fsync.

Each request is a function of a `Transaction`. The thread takes what waits, runs each function in a
savepoint of its own, commits once, and answers after the commit. A function that raises undoes only
itself. Functions may run twice (when SQLite gave up a whole batch), so all they change is rows.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from jobs.errors import JobError, StorageFullError, StorageUnavailableError

T = TypeVar("T")

_BATCH: Final = 128
_WAITING: Final = 4096
_SQLITE_BUSY, _SQLITE_LOCKED, _SQLITE_IOERR, _SQLITE_FULL = 5, 6, 10, 13


@dataclass(slots=True)
class Transaction:
    """What a request writes with, and whom the commit concerns."""

    connection: Connection
    job_ids: set[str] = field(default_factory=set)
    queue: bool = False

    def touch(self, job_id: str, *, queue: bool = False) -> None:
        """Note that this job has news; `queue`: a state or a wish changed."""
        self.job_ids.add(job_id)
        self.queue = self.queue or queue


@dataclass(slots=True)
class _Request:
    work: Callable[[Transaction], Any]
    future: Future[Any]


Committed = Callable[[set[str], bool], None]
Broken = Callable[[str], None]


class Writer:
    """Runs functions on the one writing connection, in order, several to a commit."""

    def __init__(self, engine: Engine, *, on_commit: Committed, on_broken: Broken) -> None:
        """Start the thread.

        Args:
            engine: makes the one connection.
            on_commit: gets the jobs of each commit before anyone is answered.
            on_broken: called once, in the thread, with `broken` when nothing can be written.
        """
        self._on_commit, self._on_broken = on_commit, on_broken
        self._requests: queue.Queue[_Request | None] = queue.Queue(_WAITING)
        self._broken: str | None = None
        self._closed = False
        self._connection = engine.connect()
        self._thread = threading.Thread(target=self._loop, name="database-writer", daemon=True)
        self._thread.start()

    @property
    def broken(self) -> str | None:
        """Why nothing can be written until the process starts again, or None."""
        return self._broken

    def run(self, work: Callable[[Transaction], T], *, timeout_s: float = 10.0) -> T:
        """What `work` returns, after its changes are on disk.

        Raises:
            StorageFullError: no room; nothing was changed.
            StorageUnavailableError: the database did not answer in time, or is broken. If it was
                busy committing, the change may still happen: ask again with the same key.
        """
        if self._broken or self._closed:
            raise StorageUnavailableError(
                self._broken or "The database is closed.", "Start the service again."
            )
        request = _Request(work, Future())
        try:
            self._requests.put(request, timeout=timeout_s)
            result: T = request.future.result(timeout_s)
        except (queue.Full, TimeoutError) as error:
            if not request.future.done():
                request.future.cancel()  # not begun yet: then it never will
                raise StorageUnavailableError(
                    f"The database did not answer within {timeout_s:g} s.", "Try again shortly."
                ) from error
            result = request.future.result()  # `work` raised it, or the answer came just now
        return result

    def close(self) -> None:
        """Finish what waits, then stop. Later requests are refused."""
        if not self._closed:
            self._closed = True
            self._requests.put(None)
            self._thread.join()

    def _loop(self) -> None:
        more = True
        with self._connection as connection:
            while more:
                batch, more = self._next_batch()
                try:
                    if batch:
                        self._commit(connection, batch)
                except BaseException:
                    self._break("The database writer ended by an error; see the log.")
                    raise

    def _break(self, why: str) -> None:
        if self._broken is None:
            self._broken = why
            self._on_broken(why)

    def _next_batch(self) -> tuple[list[_Request], bool]:
        """Wait for one request, then take all that came meanwhile."""
        batch: list[_Request] = []
        request = self._requests.get()
        while request is not None:
            if request.future.set_running_or_notify_cancel():
                batch.append(request)
            if len(batch) >= _BATCH:
                return batch, True
            try:
                request = self._requests.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _commit(self, connection: Connection, batch: Sequence[_Request]) -> None:
        try:
            answers, transaction = _run_batch(connection, batch)
        except SQLAlchemyError as error:
            self._batch_failed(connection, batch, error)
            return
        if transaction.job_ids or transaction.queue:
            self._on_commit(transaction.job_ids, transaction.queue)
        for request, (value, failure) in zip(batch, answers, strict=True):
            if failure is None:
                request.future.set_result(value)
            else:
                request.future.set_exception(failure)

    def _batch_failed(
        self, connection: Connection, batch: Sequence[_Request], error: SQLAlchemyError
    ) -> None:
        """Nothing of the batch is stored: try each alone, or answer why not."""
        failure = translate(error)
        if _code(error) == _SQLITE_IOERR:
            # After a failed fsync nobody knows what is on disk: only a new start recovers the log.
            self._break("The database could not be written or synced.")
        elif len(batch) > 1 and _code(error) not in {_SQLITE_BUSY, _SQLITE_LOCKED}:
            # (Busy is busy for all of them, and each would wait for seconds.)
            for request in batch:
                self._commit(connection, [request])
            return
        for request in batch:
            request.future.set_exception(failure)


def _run_batch(
    connection: Connection, batch: Sequence[_Request]
) -> tuple[list[tuple[Any, BaseException | None]], Transaction]:
    answers: list[tuple[Any, BaseException | None]] = []
    all_of_them = Transaction(connection)
    with connection.begin():
        for request in batch:
            transaction = Transaction(connection)
            savepoint = connection.begin_nested()
            try:
                value = request.work(transaction)
            except DBAPIError:
                # SQLite may have rolled back everything (a full disk does that): give the batch up.
                raise
            except Exception as error:  # noqa: BLE001 - belongs to the thread that asked
                savepoint.rollback()
                answers.append((None, error))
            else:
                savepoint.commit()
                answers.append((value, None))
                all_of_them.job_ids |= transaction.job_ids
                all_of_them.queue = all_of_them.queue or transaction.queue
    return answers, all_of_them


def _code(error: BaseException) -> int | None:
    original = error.orig if isinstance(error, DBAPIError) else None
    code = getattr(original, "sqlite_errorcode", None)
    return None if code is None else int(code) & 0xFF


def translate(error: SQLAlchemyError) -> JobError | SQLAlchemyError:
    """The error that a caller should see for one of the database; itself where it is a bug."""
    code = _code(error)
    if code == _SQLITE_FULL:
        return StorageFullError("The disk of the database is full.", "Free some space.")
    if code in {_SQLITE_BUSY, _SQLITE_LOCKED}:
        return StorageUnavailableError(
            "The database is held by another process.", "Try again shortly."
        )
    if code == _SQLITE_IOERR:
        return StorageUnavailableError(
            "The database could not be read or written.", "Check the disk, then start again."
        )
    return error
