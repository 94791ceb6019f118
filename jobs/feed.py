"""Tells who waits that something was committed, without asking the database again and again.

One feed per process. Numbers only grow: read `version`, read the rows, then wait for a change since
that version; a change in between is not missed, because the version has moved already. A wake-up
may be spurious (a job not seen for long shares one version with others), never missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

_REMEMBERED: Final = 10_000  # jobs with a version of their own


class Feed:
    """Counts commits, per job and for the queue as a whole. Every method is thread-safe."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._latest = 0
        self._forgotten = 0  # the newest version of a job that has none of its own any more
        self._versions: OrderedDict[str, int] = OrderedDict()
        self._queue = 0
        self._waiters: dict[str, set[Callable[[], None]]] = {}

    def publish(self, job_ids: Collection[str], *, queue: bool = False) -> None:
        """Say that these jobs have news; `queue`: some state or wish changed, not just progress."""
        with self._condition:
            self._latest += 1
            for job_id in job_ids:
                self._versions[job_id] = self._latest
                self._versions.move_to_end(job_id)
            while len(self._versions) > _REMEMBERED:
                self._forgotten = max(self._forgotten, self._versions.popitem(last=False)[1])
            if queue:
                self._queue = self._latest
            wakes = [wake for job_id in job_ids for wake in self._waiters.pop(job_id, ())]
            self._condition.notify_all()
        for wake in wakes:
            wake()

    def version(self, job_id: str) -> int:
        """The number of the last commit that gave this job news."""
        with self._condition:
            return self._version(job_id)

    def queue_version(self) -> int:
        """The number of the last commit that changed a state or a wish."""
        with self._condition:
            return self._queue

    def wait_queue(self, since: int, timeout_s: float) -> int:
        """Block until the queue's version is above `since`, or the time is up; its version."""
        deadline = time.monotonic() + timeout_s
        with self._condition:
            while self._queue <= since:
                left = deadline - time.monotonic()
                if left <= 0 or not self._condition.wait(left):
                    break
            return self._queue

    async def changed(self, job_id: str, since: int, timeout_s: float) -> int:
        """The job's version, once it is above `since` or the time is up. Holds no thread."""
        loop = asyncio.get_running_loop()
        news = asyncio.Event()

        def wake() -> None:
            # A loop that has closed since raises: then nobody waits any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(news.set)

        with self._condition:
            if self._version(job_id) > since:
                return self._version(job_id)
            self._waiters.setdefault(job_id, set()).add(wake)
        try:
            async with asyncio.timeout(timeout_s):
                await news.wait()
        except TimeoutError:
            pass  # the answer is the version, changed or not
        finally:
            self._forget(job_id, wake)
        return self.version(job_id)

    def _version(self, job_id: str) -> int:
        return self._versions.get(job_id, self._forgotten)

    def _forget(self, job_id: str, wake: Callable[[], None]) -> None:
        with self._condition:
            waiters = self._waiters.get(job_id)
            if waiters is not None:
                waiters.discard(wake)
                if not waiters:
                    del self._waiters[job_id]
