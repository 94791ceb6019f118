"""Everything that one application is made of, built once."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import Protocol

from jobs.store import Store
from services.artifact_files import ArtifactFiles
from services.inference import EncoderPool
from services.metrics import RequestMetrics
from services.settings import Settings


class Background(Protocol):
    """What the service needs of the reconciler: `jobs.reconciler.Reconciler` is one."""

    @property
    def last_step_age_s(self) -> float:
        """Seconds since it last looked at the jobs."""

    def run_forever(self, stop: threading.Event) -> None:
        """Look after the jobs until `stop` is set."""


class Draining:
    """Set when the process is asked to end: streams that would go on for ever end then."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        """Whether the process is about to end."""
        return self._event.is_set()

    def set(self) -> None:
        """Tell every stream to end. Call it on the event loop's thread."""
        self._event.set()

    async def wait(self) -> None:
        """Wait until the process is asked to end."""
        await self._event.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext:
    """What the routes work with."""

    settings: Settings
    store: Store
    files: ArtifactFiles
    encoders: EncoderPool
    metrics: RequestMetrics
    reconciler: Background | None
    draining: Draining = field(default_factory=Draining)
