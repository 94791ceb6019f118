"""The API process as its supervisor sees it: start, ask whether it is ready, end."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from services.process_tree import end_processes, record_process, recorded_process

_STATE_FILE = "api.json"
_PROBE_TIMEOUT_S = 1.0


class ApiProcess:
    """One process of `python -m services.main`, in a session of its own.

    The session keeps a Ctrl-C of the terminal from reaching it: its supervisor decides in which
    order things end. `<home>/api.json` names it, so that the next supervisor can end one whose
    own was killed.
    """

    def __init__(self, home: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.started = time.monotonic()
        self._process = subprocess.Popen(  # noqa: S603  (our own interpreter and module)
            list(command),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        record_process(home / _STATE_FILE, self._process.pid)

    def exit_code(self) -> int | None:
        """The exit status; None while it runs."""
        return self._process.poll()

    def ask_to_end(self) -> None:
        """Let it finish its requests and end."""
        if self.exit_code() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        if self.exit_code() is None:
            self._process.kill()
        self._process.wait()


def api_command() -> list[str]:
    """How the API process is started."""
    return [sys.executable, "-m", "services.main"]


def is_ready(host: str, port: int) -> bool:
    """Whether a service answers there that it can take work."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (compared only)
    connection = http.client.HTTPConnection(target, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def end_orphan(home: Path, grace_s: float) -> int | None:
    """End the API process of a supervisor that was killed.

    Returns:
        Its pid; None if there was none.
    """
    process = recorded_process(home / _STATE_FILE)
    if process is None:
        return None
    pid: int = process.pid
    end_processes([process], grace_s)
    return pid
