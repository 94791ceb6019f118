"""What the store hands out: immutable rows. Timestamps are UTC; no decision reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from jobs.states import DesiredState, JobState, Phase, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an attempt is. `eta_seconds` is None until it can be told."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    loss: float | None
    eta_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job. `spec` is the resolved spec as JSON; `version` grows with every change (ETag)."""

    id: str
    project: str
    name: str | None
    spec: Mapping[str, Any]
    state: JobState
    desired_state: DesiredState
    phase: Phase | None
    fence: int
    attempts: int
    reason: Reason | None
    message: str | None
    remedy: str | None
    progress: Progress | None
    encoder_id: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRecord:
    """One attempt of a job; its number is the fencing epoch."""

    job_id: str
    fence: int
    owner: str
    active: bool
    hb_seq: int
    reason: Reason | None
    message: str | None
    exit_code: int | None
    resumed_step: int | None
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """One thing that happened to a job. `seq` counts from 1 without gaps within the job."""

    id: str
    job_id: str
    seq: int
    fence: int
    kind: str
    at: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderRecord:
    """One published encoder. `manifest` lists files with size and sha256."""

    id: str
    job_id: str
    project: str
    name: str | None
    fence: int
    manifest: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyRecord:
    """Who a bearer key speaks for."""

    id: str
    name: str
    project: str
    scopes: frozenset[str]
    expires_at: datetime | None


T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a list. `next_cursor` is None on the last one."""

    items: tuple[T, ...]
    next_cursor: str | None
