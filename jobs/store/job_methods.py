"""The store as users of jobs see it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from sqlalchemy import func, select

from jobs.failpoints import fp
from jobs.records import AttemptRecord, EventRecord, JobRecord, Page
from jobs.spec import JobSpec
from jobs.states import DesiredState, JobState
from jobs.store import metrics, queries, requests, submit
from jobs.store.core import StoreCore
from jobs.store.submit import Submission
from jobs.tables import jobs


class JobMethods(StoreCore):
    """Submitting, asking, reading."""

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
        self.check_room()
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

    def submitted(
        self, *, project: str, idempotency_key: str, fingerprint: str
    ) -> JobRecord | None:
        """The job that this key stored before. IdempotencyConflictError if by another body."""
        return self._read(lambda c: submit.earlier(c, project, idempotency_key, fingerprint))

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
