"""The API process as its supervisor sees it: start, ask whether it is ready, end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from jobs.processes import end_group, is_running, start_mark

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
        state = {"pid": self._process.pid, "mark": start_mark(self._process.pid)}
        (home / _STATE_FILE).write_text(json.dumps(state), encoding="utf-8")

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
    return [sys.executable, "-P", "-m", "services.main"]  # -P: never from the current folder


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


def api_pid(home: Path) -> int | None:
    """The pid of the API process of this home, whoever started it; None if there is none."""
    found = _recorded(home)
    return None if found is None else found[0]


def end_orphan(home: Path, grace_s: float) -> int | None:
    """End the API process of a supervisor that was killed.

    Returns:
        Its pid; None if there was none.
    """
    found = _recorded(home)
    if found is None:
        return None
    pid, mark = found
    end_group(pid, mark, grace_s=grace_s)
    return pid


def _recorded(home: Path) -> tuple[int, str] | None:
    try:
        state = json.loads((home / _STATE_FILE).read_bytes())
        pid, mark = state["pid"], state["mark"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None  # no service yet, or one that ended while it wrote this
    return (pid, mark) if isinstance(mark, str) and is_running(pid, mark) else None
