"""`Store`: what the service, the reconciler and the command line use. Synchronous, thread-safe.

It opens connections, files and keys once, and runs the functions beside it on them: writes in the
writer's transaction, reads on connections that cannot write.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from jobs.artifacts import ObjectStore, check_room, make_private_directory
from jobs.database import database_path, migrate, reader_engine, writer_engine
from jobs.errors import StaleFenceError, StorageUnavailableError
from jobs.failpoints import fp
from jobs.feed import Feed
from jobs.records import ApiKeyRecord, AttemptRecord, EncoderRecord, EventRecord, JobRecord, Page
from jobs.registry import stage_objects
from jobs.run_directory import RunDirectory
from jobs.spec import JobSpec
from jobs.states import DesiredState, JobState, Phase
from jobs.store import attempts, keys, leases, metrics, publish, queries, requests, submit
from jobs.store.leases import Lease
from jobs.store.submit import Submission
from jobs.tables import jobs
from jobs.tokens import AttemptTokens
from jobs.wire import Command, Exit, Manifest, ReportBatch
from jobs.writer import Transaction, Writer, translate

T = TypeVar("T")


def open_store(
    database_url: str,
    *,
    home: Path,
    max_queued_per_project: int = 10_000,
    min_free_bytes: int = 64 << 20,
) -> Store:
    """Open the database (made or migrated if need be) and the files below `home`.

    Args:
        database_url: `sqlite:////path/to/mige.db`.
        home: holds `secrets/` and `storage/`; made 0700.
        max_queued_per_project: more queued jobs than this are refused.
        min_free_bytes: with less room than this no job is accepted; those that run need it.

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
        )
    except DBAPIError as error:
        engine.dispose()
        raise translate(error) from error


class Store:
    """See `open_store`. Errors are those of `jobs.errors`.

    Every method may raise StorageUnavailableError; every writing one also StorageFullError.
    """

    def __init__(
        self,
        writer: Engine,
        readers: Engine,
        *,
        storage: Path,
        tokens: AttemptTokens,
        max_queued_per_project: int,
        min_free_bytes: int,
    ) -> None:
        self.storage = storage
        self.objects = ObjectStore(storage)
        self.feed = Feed()
        self._tokens = tokens
        self._max_queued, self._min_free_bytes = max_queued_per_project, min_free_bytes
        self._readers = readers
        self._writer_engine = writer
        self._writer = Writer(writer, on_commit=lambda ids, q: self.feed.publish(ids, queue=q))
        self._latest = datetime.now(UTC)

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

    # --- jobs -----------------------------------------------------------------------------------

    def submit(
        self,
        spec: JobSpec,
        *,
        project: str,
        actor: str,
        idempotency_key: str | None = None,
        fingerprint: str | None = None,
    ) -> Submission:
        """Accept a job; once this returns it is never lost. See `jobs.store.submit`."""
        check_room(self.storage, self._min_free_bytes)
        result = self._write(
            lambda tx: submit.submit(
                tx,
                spec,
                project=project,
                actor=actor,
                idempotency_key=idempotency_key,
                fingerprint=fingerprint,
                max_queued=self._max_queued,
            )
        )
        fp("submit.after_commit_before_reply")
        return result

    def job(self, job_id: str, *, project: str | None = None) -> JobRecord:
        """One job, or NotFoundError."""
        return self._read(lambda c: queries.job(c, job_id, project))

    def jobs(
        self,
        *,
        project: str,
        status: str | None = None,
        objective: str | None = None,
        name: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page[JobRecord]:
        """Jobs of a project, newest first. SpecInvalidError for a bad status, limit or cursor."""
        return self._read(
            lambda c: queries.list_jobs(
                c,
                project=project,
                status=status,
                objective=objective,
                name=name,
                limit=limit,
                cursor=cursor,
            )
        )

    def request(self, job_id: str, desired: DesiredState, *, project: str, actor: str) -> JobRecord:
        """Cancel (CANCELLED), pause (PAUSED) or resume (RUNNING). See `jobs.store.requests`."""
        result = self._write(
            lambda tx: requests.request(tx, job_id, desired, project=project, actor=actor)
        )
        if desired is DesiredState.CANCELLED:
            fp("cancel.after_commit")
        return result

    def attempts(self, job_id: str) -> list[AttemptRecord]:
        """Every attempt of a job, the first one first."""
        return self._read(lambda c: queries.list_attempts(c, job_id))

    def queue_position(self, job_id: str) -> int | None:
        """Its place in the queue, from 1; None if it is not queued."""
        return self._read(lambda c: queries.queue_position(c, job_id))

    def events(
        self,
        job_id: str,
        *,
        after: int = 0,
        limit: int = 500,
        kinds: Collection[str] | None = None,
    ) -> list[EventRecord]:
        """Events with a number above `after`, in order."""
        return self._read(
            lambda c: queries.list_events(c, job_id, after=after, limit=limit, kinds=kinds)
        )

    def metrics(
        self, job_id: str, *, keys: Collection[str] | None = None, max_points: int = 1000
    ) -> list[EventRecord]:
        """Metric events by step. See `jobs.store.metrics`."""
        return self._read(lambda c: metrics.metrics(c, job_id, keys=keys, max_points=max_points))

    def counts(self) -> Mapping[str, int]:
        """How many jobs there are of each public status."""
        return self._read(queries.counts)

    def oldest_queued_age_s(self) -> float | None:
        """Seconds since the oldest queued job was made; None if none is queued."""
        query = select(func.min(jobs.c.created_at)).where(jobs.c.state == JobState.QUEUED)
        oldest = self._read(lambda c: c.execute(query).scalar())
        return None if oldest is None else max(0.0, (datetime.now(UTC) - oldest).total_seconds())

    # --- attempts -------------------------------------------------------------------------------

    def attempt_token(self, job_id: str, fence: int) -> str:
        """The bearer token of this attempt."""
        return self._tokens.token(job_id, fence)

    def verify_attempt_token(self, token: str) -> tuple[str, int] | None:
        """The job and fence that a token speaks for; None if it is not one of ours."""
        return self._tokens.verify(token)

    def run_directory(self, job_id: str, fence: int) -> RunDirectory:
        """Where this attempt keeps its files."""
        return RunDirectory(self.storage, job_id, fence)

    def heartbeat(self, job_id: str, fence: int, phase: Phase) -> Command:
        """Note that the attempt lives; what it should do. StaleFenceError if it was replaced."""
        command = self._write(lambda tx: attempts.heartbeat(tx, job_id, fence, phase))
        fp("heartbeat.after_commit")
        return command

    def ingest(self, job_id: str, fence: int, batch: ReportBatch) -> int:
        """Store new report lines; how many are stored. StaleFenceError if it was replaced."""
        return self._write(lambda tx: attempts.ingest(tx, job_id, fence, batch))

    def report_lines(self, job_id: str, fence: int) -> int:
        """How many report lines of the attempt are stored."""
        return self._read(lambda c: leases.report_lines(c, job_id, fence))

    def begin_finalize(self, job_id: str, fence: int) -> None:
        """Close the door to cancels. StateConflictError if one came first."""
        self._write(lambda tx: attempts.begin_finalize(tx, job_id, fence))
        fp("finalize.after_commit")

    def publish(self, job_id: str, fence: int, manifest: Manifest) -> EncoderRecord:
        """Verify the staged files, keep them as objects, and publish them. Idempotent.

        Raises:
            ArtifactInvalidError: a file is not what the manifest says, or weights are not finite.
            StaleFenceError: it is not the active attempt.
            StateConflictError: it did not finalise.
        """
        earlier = self._read(lambda c: publish.published(c, job_id, fence))
        if earlier is not None:
            return earlier
        self._read(lambda c: publish.check_may_publish(c, job_id, fence))
        staged = self.run_directory(job_id, fence).result
        evaluation = stage_objects(staged, manifest, self.objects)
        fp("publish.after_link_before_commit")
        try:
            encoder = self._write(
                lambda tx: publish.publish(tx, job_id, fence, manifest, evaluation)
            )
        except StaleFenceError:
            # Two publish requests of one attempt at once: the other one did it.
            twin = self._read(lambda c: publish.published(c, job_id, fence))
            if twin is None:
                raise
            encoder = twin
        fp("publish.after_commit_before_ack")
        return encoder

    def end(self, job_id: str, fence: int, result: Exit) -> JobState:
        """End the attempt; where its job went. StaleFenceError if it was replaced."""
        return self._write(lambda tx: leases.end(tx, job_id, fence, result))

    # --- the reconciler -------------------------------------------------------------------------

    def active(self) -> list[Lease]:
        """Every job that an attempt holds."""
        return self._read(leases.active)

    def claimable(self, limit: int = 100) -> list[Lease]:
        """The head of the queue."""
        return self._read(lambda c: leases.claimable(c, limit))

    def claim(self, job_id: str, *, owner: str) -> Lease | None:
        """Start the next attempt of a queued job; None if it is not to be had any more."""
        return self._write(lambda tx: leases.claim(tx, job_id, owner=owner))

    def expire(self, job_id: str, fence: int, hb_seq: int, result: Exit) -> JobState:
        """End a silent attempt. StaleFenceError if it spoke or was replaced meanwhile."""
        state = self._write(lambda tx: leases.expire(tx, job_id, fence, hb_seq, result))
        fp("reap.after_commit")
        return state

    def forget_old_idempotency_keys(self) -> int:
        """Drop keys that are past their time; how many."""
        return self._write(submit.forget_old_keys)

    def is_referenced(self, sha256: str) -> bool:
        """Whether a published encoder has a file with this content."""
        return self._read(lambda c: publish.is_referenced(c, sha256))

    def is_finalizing(self) -> bool:
        """Whether some attempt may be putting objects that no encoder refers to yet."""
        return self._read(publish.is_finalizing)

    # --- encoders and keys ----------------------------------------------------------------------

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

    # --- inside ---------------------------------------------------------------------------------

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
