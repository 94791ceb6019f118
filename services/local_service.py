"""A whole service for the length of a `with` block: `mige serve` on a free port of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from services.api_process import api_pid, end_orphan, is_ready
from services.client import Client, Credentials, find_credentials

_HOST = "127.0.0.1"


class ServiceStartError(Exception):
    """The service did not come up; the message holds the end of its output."""


class LocalService:
    """`mige serve` with a home of its own, untouched by the settings of the person who runs it."""

    def __init__(
        self,
        home: Path,
        log: Path,
        *,
        data_root: Path | None = None,
        settings: Mapping[str, str] | None = None,
        start_timeout_s: float = 60.0,
        stop_timeout_s: float = 90.0,
    ) -> None:
        """Start nothing yet.

        Args:
            home: where the service keeps everything.
            log: takes what it prints.
            data_root: folder of data sets.
            settings: more `MIGE_...` variables.
            start_timeout_s: longest wait until it is ready.
            stop_timeout_s: longest wait until everything it started has ended.
        """
        self.home, self.log = home, log
        self._extra = {
            **(settings or {}),
            **({"MIGE_DATA_ROOT": str(data_root)} if data_root else {}),
        }
        self._start_timeout_s, self._stop_timeout_s = start_timeout_s, stop_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.ready_s = 0.0

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        assert self._process is not None, "not started"  # noqa: S101
        return self._process.pid

    @property
    def api_pid(self) -> int | None:
        """The API process's id; None while there is none."""
        return api_pid(self.home)

    def credentials(self) -> Credentials:
        """URL and bootstrap key."""
        return find_credentials(environment={"MIGE_HOME": str(self.home)})

    def client(self) -> Client:
        """A client with the bootstrap key; the caller closes it."""
        found = self.credentials()
        return Client(found.url, found.api_key)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it can take work.

        Raises:
            ServiceStartError: it ended or was not ready in time.
        """
        self.port = _free_port()
        started = time.monotonic()
        self.log.touch(mode=0o600)  # the first start prints the key
        with self.log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "services.cli.main", "serve"],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,  # a Ctrl-C is for us: we end it in order
            )
        try:
            self._wait_until_ready(self._process, started + self._start_timeout_s)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.monotonic() - started

    def stop(self) -> None:
        """End it and everything it started; kill what does not end in time."""
        if self._process is None:
            return
        _end_in_order(self._process, self._stop_timeout_s)
        end_orphan(self.home, 5.0)  # there is one if the supervisor was killed

    def output(self, num_lines: int = 30) -> str:
        """The last lines it printed."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-num_lines:])

    def _wait_until_ready(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while not is_ready(_HOST, self.port):
            if process.poll() is not None:
                raise ServiceStartError(f"the service did not start:\n{self.output()}")
            if time.monotonic() > deadline:
                raise ServiceStartError(f"the service is not ready:\n{self.output()}")
            time.sleep(0.05)

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MIGE_")}
        own = {"MIGE_HOME": str(self.home), "MIGE_HOST": _HOST, "MIGE_PORT": str(self.port)}
        return {**kept, **own, **self._extra}


def _end_in_order(supervisor: subprocess.Popen[bytes], timeout_s: float) -> None:
    """SIGTERM, and another for each Ctrl-C: the supervisor hurries, and nothing is left behind."""
    deadline = time.monotonic() + timeout_s
    asked = False
    while supervisor.poll() is None:
        try:
            if not asked:
                asked = True
                supervisor.send_signal(signal.SIGTERM)
            supervisor.wait(max(0.0, deadline - time.monotonic()))
        except KeyboardInterrupt:
            asked = False
        except subprocess.TimeoutExpired:
            supervisor.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
    return port
