"""The store as attempts and the reconciler see it."""

from __future__ import annotations

from jobs.errors import StaleFenceError
from jobs.failpoints import fp
from jobs.records import EncoderRecord
from jobs.registry import stage_objects
from jobs.states import JobState, Phase
from jobs.store import attempts, leases, publish, submit
from jobs.store.core import StoreCore
from jobs.store.leases import Lease
from jobs.wire import Command, Exit, Manifest, ReportBatch


class AttemptMethods(StoreCore):
    """Starting, hearing and ending attempts."""

    def attempt_token(self, job_id: str, fence: int) -> str:
        """The bearer token of this attempt."""
        return self._tokens.token(job_id, fence)

    def verify_attempt_token(self, token: str) -> tuple[str, int] | None:
        """The job and fence that a token speaks for; None if it is not one of ours."""
        return self._tokens.verify(token)

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
