"""The log of a job as it grows: read by byte ranges, attempt after attempt."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

from services.client.transport import Transport

_EVERY_S = 1.0
TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
"""The statuses of a job that has ended."""


def follow_logs(transport: Transport, job_id: str, attempt: int | None) -> Iterator[str]:
    """Yield what an attempt writes, until it has ended.

    With no `attempt` named it goes from the current one to each that follows, until the job ends.

    Raises:
        ApiError: the service refused.
        ConnectionFailedError: the service was away for too long.
    """
    path, number = f"/v1/jobs/{job_id}", attempt or 0
    while True:
        # State before log: what was written before the end is then never missed.
        latest, ended = _where_it_stands(transport, path)
        number = number or latest
        if number:
            log = _AttemptLog(transport, path, number)
            yield from log.rest()
            while number == latest and not ended:
                transport.pause(_EVERY_S)
                latest, ended = _where_it_stands(transport, path)
                yield from log.rest()
        if number < latest and attempt is None:
            number += 1
        elif number < latest or ended:
            return
        else:
            transport.pause(_EVERY_S)


class _AttemptLog:
    """One attempt's log, read piece by piece."""

    def __init__(self, transport: Transport, path: str, number: int) -> None:
        self._transport, self._url = transport, f"{path}/logs?attempt={number}"
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def rest(self) -> Iterator[str]:
        """What was written since the last call."""
        while True:
            headers = {"Range": f"bytes={self._offset}-"}
            response = self._transport.request(
                "GET", self._url, headers=headers, accept=lambda status: status in (206, 416)
            )
            if response.status_code == 416:
                return
            self._offset += len(response.content)
            yield self._decoder.decode(response.content)


def _where_it_stands(transport: Transport, path: str) -> tuple[int, bool]:
    """The number of the latest attempt (0: none yet), and whether the job has ended."""
    ended = transport.request("GET", path).json()["status"] in TERMINAL
    attempts = transport.request("GET", f"{path}/attempts").json()["data"]
    return max((a["number"] for a in attempts), default=0), ended
