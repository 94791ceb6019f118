"""Jobs and their attempts as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from jobs.data_sources import DataDescription
from jobs.records import AttemptRecord, JobRecord, Progress
from jobs.spec import JobSpec
from jobs.states import DesiredState, Phase, Reason, public_status
from services.schemas.base import View

JobStatus = Literal[
    "queued", "running", "pausing", "paused", "cancelling", "cancelled", "succeeded", "failed"
]


class ProgressView(View):
    """How far the active attempt is."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    loss: float | None
    eta_seconds: float | None

    @classmethod
    def of(cls, progress: Progress) -> ProgressView:
        """The view of a record."""
        return cls(
            step=progress.step,
            total_steps=progress.total_steps,
            epoch=progress.epoch,
            epochs=progress.epochs,
            loss=progress.loss,
            eta_seconds=progress.eta_seconds,
        )


class JobLinks(View):
    """Where more about the job is."""

    self: str
    events: str
    logs: str
    metrics: str
    attempts: str
    encoder: str | None


class JobView(View):
    """One job. `status` is from a closed set, `phase` from one that may grow."""

    object: Literal["job"] = "job"
    id: str
    name: str | None
    status: JobStatus
    phase: Phase | None
    desired_state: DesiredState
    reason: Reason | None
    message: str | None
    remedy: str | None
    progress: ProgressView | None
    attempts: int
    encoder_id: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    spec: dict[str, Any]
    links: JobLinks

    @classmethod
    def of(cls, job: JobRecord) -> JobView:
        """The view of a record."""
        return cls.model_validate(
            {
                "id": job.id,
                "name": job.name,
                "status": public_status(job.state, job.desired_state),
                "phase": job.phase,
                "desired_state": job.desired_state,
                "reason": job.reason,
                "message": job.message,
                "remedy": job.remedy,
                "progress": job.progress and ProgressView.of(job.progress),
                "attempts": job.attempts,
                "encoder_id": job.encoder_id,
                "created_at": job.created_at,
                "updated_at": job.updated_at,
                "started_at": job.started_at,
                "finished_at": job.finished_at,
                "spec": job.spec,
                "links": _links_of(job),
            }
        )


def _links_of(job: JobRecord) -> JobLinks:
    base = f"/v1/jobs/{job.id}"
    return JobLinks(
        self=base,
        events=f"{base}/events",
        logs=f"{base}/logs",
        metrics=f"{base}/metrics",
        attempts=f"{base}/attempts",
        encoder=job.encoder_id and f"/v1/encoders/{job.encoder_id}",
    )


class DataView(View):
    """What the data set of a spec looks like."""

    image_shape: tuple[int, int, int]
    num_train: int
    num_test: int
    num_classes: int | None
    files: tuple[str, ...]

    @classmethod
    def of(cls, data: DataDescription) -> DataView:
        """The view of a description."""
        return cls(
            image_shape=data.image_shape,
            num_train=data.num_train,
            num_test=data.num_test,
            num_classes=data.num_classes,
            files=data.files,
        )


class PlanView(View):
    """What a submission would run: nothing was stored."""

    object: Literal["job.plan"] = "job.plan"
    spec: JobSpec
    data: DataView


class AttemptView(View):
    """One attempt: where it ran, how it ended."""

    object: Literal["attempt"] = "attempt"
    job_id: str
    number: int
    active: bool
    reason: Reason | None
    message: str | None
    exit_code: int | None
    resumed_step: int | None
    started_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, attempt: AttemptRecord) -> AttemptView:
        """The view of a record."""
        return cls(
            job_id=attempt.job_id,
            number=attempt.fence,
            active=attempt.active,
            reason=attempt.reason,
            message=attempt.message,
            exit_code=attempt.exit_code,
            resumed_step=attempt.resumed_step,
            started_at=attempt.started_at,
            ended_at=attempt.ended_at,
        )
