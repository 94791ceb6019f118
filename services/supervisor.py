"""`mige serve`: keeps one API process alive, and ends everything that was started at the end.

The API process holds the queue and its database; when it dies the supervisor starts another one at
once, and the runners of attempts, in sessions of their own, go on meanwhile. On SIGINT or SIGTERM
the API is drained first, so that it places no new attempt; then each runner gets SIGTERM, saves a
checkpoint and ends, so that its job goes on at the next start; then the Ray head is stopped.
"""

from __future__ import annotations

import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from jobs.run_directory import run_directories
from services.api_process import ApiProcess, api_command, end_orphan, is_ready
from services.home_lock import home_lock
from services.listener import bind

EXIT_MISCONFIGURED = 2
"""Exit status of an API process that cannot work as it is set up: another would do the same."""

_PROBE_EVERY_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How the service is to be run. `environment` is added to the API process's own."""

    home: Path
    host: str
    port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = field(default_factory=lambda: tuple(api_command()))
    api_grace_s: float = 20.0
    runner_grace_s: float = 15.0

    @property
    def url(self) -> str:
        """Where the service answers."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(slots=True)
class Backoff:
    """When to start the API process again, and when to give up. Pure: times are passed in.

    One that lived for `settled_s` counts as healthy: its death is followed by a start at once.
    """

    settled_s: float = 30.0
    longest_s: float = 10.0
    max_quick_deaths: int = 8
    deaths: int = 0
    quick_deaths: int = 0

    def after_death(self, lived_s: float) -> float | None:
        """Seconds until the next start; None: give up."""
        self.deaths += 1
        self.quick_deaths = 1 if lived_s >= self.settled_s else self.quick_deaths + 1
        if self.quick_deaths > self.max_quick_deaths:
            return None
        if self.quick_deaths == 1:
            return 0.0
        return min(self.longest_s, 0.25 * 2.0 ** (self.quick_deaths - 2))


class Supervisor:
    """Runs the service until it is told to stop. Its `run` belongs on the main thread."""

    def __init__(
        self,
        options: ServeOptions,
        *,
        say: Callable[[str], None],
        stop_cluster: Callable[[], None],
    ) -> None:
        """Start nothing yet.

        Args:
            options: how the service is to be run.
            say: takes each message for the person at the terminal.
            stop_cluster: ends the Ray head, if one was started for this home.
        """
        self._options, self._say, self._stop_cluster = options, say, stop_cluster
        self._stops_asked = 0
        self._backoff = Backoff()

    def run(self) -> int:
        """Serve until SIGINT, SIGTERM or SIGHUP.

        Returns:
            0 when told to stop, 2 if the API cannot work as it is set up, 1 if it keeps dying.

        Raises:
            SettingsError: another supervisor has this home, the home cannot be written, or the
                port is taken.
        """
        options = self._options
        with home_lock(options.home, options.url), _woken_by_signals(self._on_signal) as signals:
            orphan = end_orphan(options.home, options.api_grace_s)
            if orphan is not None:
                self._say(f"ended the API process {orphan} that an earlier `mige serve` left")
            bind(options.host, options.port).close()  # a taken one is told before anything starts
            try:
                return self._keep_alive(signals)
            finally:
                self._end_the_rest()

    def _keep_alive(self, signals: socket.socket) -> int:
        while True:
            api = ApiProcess(self._options.home, self._options.command, self._options.environment)
            try:
                code = self._watch(api, signals)
            finally:
                self._drain(api, signals)
            if code is None:
                return 0
            if code == EXIT_MISCONFIGURED:
                return EXIT_MISCONFIGURED
            pause_s = self._backoff.after_death(time.monotonic() - api.started)
            if pause_s is None:
                self._say("the API process keeps dying; giving up. Its last output tells why")
                return 1
            self._say(f"the API process ended ({_meaning(code)}); starting it again")
            if self._sleep(pause_s, signals):
                return 0

    def _watch(self, api: ApiProcess, signals: socket.socket) -> int | None:
        """Wait until it ends (its exit status) or everything shall end (None)."""
        ready = False
        while True:
            if self._stops_asked:
                return None
            code = api.exit_code()
            if code is not None:
                return code
            if not ready and is_ready(self._options.host, self._options.port):
                ready = True
                self._announce(time.monotonic() - api.started)
            _wait(signals, None if ready else _PROBE_EVERY_S)

    def _announce(self, seconds: float) -> None:
        if self._backoff.deaths:
            self._say(f"mige is ready again ({seconds:.1f} s)")
            return
        home = self._options.home
        self._say(
            f"mige is ready ({seconds:.1f} s)\n"
            f"  URL   {self._options.url}\n"
            f"  home  {home}\n"
            f"  key   in {home / 'credentials.json'} (`mige` and the Python client find it)\n"
            "  stop  Ctrl-C"
        )

    def _drain(self, api: ApiProcess, signals: socket.socket) -> None:
        """Let the API finish its requests; a second Ctrl-C or the end of the grace kills it."""
        if self._stops_asked:
            self._say("stopping (Ctrl-C again: at once)")
        api.ask_to_end()
        asked, deadline = self._stops_asked, time.monotonic() + self._options.api_grace_s
        while api.exit_code() is None:
            left = deadline - time.monotonic()
            if left <= 0 or self._stops_asked > asked:
                break
            _wait(signals, left)
        api.kill()

    def _end_the_rest(self) -> None:
        """End the runners, then the cluster; a next start reads how they ended."""
        # Slow to import, and needed only now: the API process starts the sooner.
        from jobs.executors.local_process import LocalProcess

        storage = self._options.home / "storage"
        executor = LocalProcess(storage)
        active = [
            run
            for run in run_directories(storage)
            if executor.observe(run.job_id, run.fence).status == "running"
        ]
        if active:
            self._say(f"saving the state of {len(active)} running job(s); a next start goes on")
            grace_s = 0.0 if self._stops_asked > 1 else self._options.runner_grace_s
            with ThreadPoolExecutor(len(active)) as pool:  # all at once: one grace for all
                for run in active:
                    pool.submit(executor.stop, run.job_id, run.fence, grace_s=grace_s)
        self._stop_cluster()

    def _sleep(self, seconds: float, signals: socket.socket) -> bool:
        """Pause; True if everything shall end."""
        deadline = time.monotonic() + seconds
        while not self._stops_asked and (left := deadline - time.monotonic()) > 0:
            _wait(signals, left)
        return self._stops_asked > 0

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGCHLD:
            self._stops_asked += 1


@contextmanager
def _woken_by_signals(
    handler: Callable[[int, FrameType | None], None],
) -> Iterator[socket.socket]:
    """Route signals to `handler`, and make the socket readable whenever one came.

    A handler may only set a flag: it can run while the main thread holds any lock.
    """
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)
    before = {number: signal.signal(number, handler) for number in numbers}
    wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    try:
        yield receiver
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, previous in before.items():
            signal.signal(number, previous)
        receiver.close()
        sender.close()


def _wait(signals: socket.socket, timeout_s: float | None) -> None:
    """Sleep until a signal came, or for `timeout_s`."""
    select.select([signals], [], [], timeout_s)
    with suppress(BlockingIOError):
        while signals.recv(64):
            pass


def _meaning(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
