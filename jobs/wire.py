"""What passes between the control side, the runner and the workers: small frozen JSON messages."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from jobs.spec import JobSpec
from jobs.states import Phase, Reason

MAX_REPORTS: Final = 1000
"""How many reports travel at once."""


class Message(BaseModel):
    """Base of every message. Not strict on input types: both ends are this package."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Launch(Message):
    """All that a runner needs to drive one attempt. Written 0600: it holds the attempt token."""

    job_id: str
    fence: int = Field(ge=1)
    project: str
    spec: JobSpec
    storage: str = Field(description="Root of the storage directory.")
    data_root: str | None
    api_url: str = Field(
        description="Base URL of the control plane, such as http://127.0.0.1:8642."
    )
    token: str = Field(description="Bearer token bound to this job and fence.")
    ray_home: str | None = Field(description="Where the Ray head keeps its state; None for inline.")
    heartbeat_s: float = Field(gt=0)
    unacknowledged_limit_s: float = Field(
        gt=0, description="A runner that nobody acknowledged for so long ends itself."
    )


class ProgressReport(Message):
    """How far an attempt is."""

    step: int = Field(ge=0)
    total_steps: int = Field(ge=0)
    epoch: int = Field(ge=0)
    epochs: int = Field(ge=0)
    loss: float | None = None
    eta_seconds: float | None = None


# All that an attempt may say. What the control side alone knows (`job.status`, ...) is not in it.
ReportKind = Literal[
    "metric",
    "phase",
    "evaluation",
    "calibration",
    "attempt.resumed",
    "checkpoint.created",
    "checkpoint.corrupt",
    "diagnostic.collapse",
    "diagnostic.nan",
    "diagnostic.refused",
    "diagnostic.unreadable",
]


class Report(Message):
    """One line of `reports.jsonl`; becomes one event of the job.

    Data: of a `metric` step, epoch, loss, ... (it also carries `progress`); of a `phase` the phase;
    of an `evaluation` the results by protocol; of a `calibration` how far it is, or at the end the
    errors by problem; of the others step and what they are about.
    """

    kind: ReportKind
    at: datetime
    data: dict[str, Any] = Field(default_factory=dict)
    progress: ProgressReport | None = None


class ReportBatch(Message):
    """Lines `first`, `first + 1`, ... of the attempt's reports; lines seen before are skipped."""

    first: int = Field(ge=0)
    reports: tuple[Report, ...] = Field(max_length=MAX_REPORTS)


class Acknowledged(Message):
    """How many lines of the attempt's reports are stored."""

    lines: int


class Heartbeat(Message):
    """The runner lives and is in this phase."""

    phase: Phase


class Command(Message):
    """What the control plane wants of the attempt."""

    command: Literal["continue", "cancel", "pause"]


class ManifestFile(Message):
    """One file of a staged or published directory."""

    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
    size_bytes: int = Field(ge=0)
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Message):
    """`manifest.json`: written last, so a directory with a valid one is whole."""

    format_version: Literal[1] = 1
    files: tuple[ManifestFile, ...] = Field(max_length=100)
    metadata: dict[str, Any] = Field(default_factory=dict)


class Published(Message):
    """Answer to a publish request."""

    encoder_id: str


class Exit(Message):
    """How a runner ended; `exit.json`, and the body of the end request."""

    exit_code: int
    reason: Reason
    message: str = Field(max_length=4000)
    remedy: str | None = Field(default=None, max_length=2000)
