"""The process that keeps a Ray head: `python -m jobs.ray_backend.keeper`, started by `RayHead`.

The command comes back when the head answers (status 0) or cannot be had; the keeper itself goes on
in the background, in a session of its own. Ray's processes end with it, however it ends.
"""

import logging
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.errors import SettingsError
from jobs.processes import is_running, start_mark
from jobs.ray_backend.environment import STANDBY_RESOURCE
from jobs.ray_backend.head import EXIT_UNSAFE, RAY_DIRECTORY, HeadState, write_state
from jobs.ray_backend.users import UserRegistry

log = logging.getLogger(__name__)

_STANDBY_SLOTS = 1000
_OBJECT_STORE_BYTES = 256 * 2**20  # nothing large goes through it
_LOOK_EVERY_S = 2.0
_LOG_LIMIT_BYTES = 256 * 2**20
_LOG_IDLE_S = 600.0
_VITAL = frozenset({"gcs_server", "raylet"})


@dataclass(frozen=True, slots=True)
class KeeperOptions:
    """The command line, in its order."""

    root: Path
    temp_dir: Path
    num_cpus: int
    linger_s: float
    start_timeout_s: float
    lock: int

    @classmethod
    def parse(cls, arguments: list[str]) -> "KeeperOptions":
        """Read the arguments that `RayHead` gives."""
        root, temp_dir, num_cpus, linger_s, start_timeout_s, lock = arguments
        return cls(
            Path(root),
            Path(temp_dir),
            int(num_cpus),
            float(linger_s),
            float(start_timeout_s),
            int(lock),
        )


def main(arguments: list[str]) -> int:
    """Go to the background, start a head and keep it; the first process waits until it answers."""
    options = KeeperOptions.parse(arguments)
    os.set_inheritable(options.lock, False)
    receiver, sender = os.pipe()
    if os.fork():
        os.close(sender)
        return int(os.read(receiver, 1) or b"1")
    os.close(receiver)
    os.setsid()
    signal.alarm(int(options.start_timeout_s) + 1)  # ends this process, and Ray's with it
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        _keep(options, sender)
    except SettingsError:
        log.exception("the head cannot be used")
        os.write(sender, str(EXIT_UNSAFE).encode())
        return EXIT_UNSAFE
    return 0


def _keep(options: KeeperOptions, ready: int) -> None:
    import ray  # here: it starts threads, and the fork must come before them

    from jobs.ray_backend.exposure import check_listeners, check_token_is_asked

    ray.init(
        address="local",
        num_cpus=options.num_cpus,
        resources={STANDBY_RESOURCE: _STANDBY_SLOTS},
        include_dashboard=False,  # Train needs it for a cleaner that the trainer leaves out
        object_store_memory=_OBJECT_STORE_BYTES,
        namespace="keeper",
        log_to_driver=False,
        _temp_dir=str(options.temp_dir / RAY_DIRECTORY),
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())  # after ray.init, which sets its own
    try:
        address = ray.get_runtime_context().gcs_address
        check_token_is_asked(address)
        check_listeners()
        _publish(options, address)
        signal.alarm(0)
        with suppress(BrokenPipeError):  # who started us was ended; the next to ask finds us
            os.write(ready, b"0")
        os.close(ready)
        os.close(options.lock)
        _watch(options, stop)
    finally:
        try:
            # Whoever wants a head now waits for our end: a next one uses the same directory.
            _publish(options, "")
        finally:
            ray.shutdown()
            shutil.rmtree(options.temp_dir, ignore_errors=True)
            (options.root / "head.json").unlink(missing_ok=True)


def _publish(options: KeeperOptions, address: str) -> None:
    pid = os.getpid()
    state = HeadState(address, pid, start_mark(pid) or "", str(options.temp_dir))
    write_state(options.root, state)


def _watch(options: KeeperOptions, stop: threading.Event) -> None:
    """Come back when the head is to end: told to, broken, or needed by nobody."""
    users = UserRegistry(options.root)
    vital = _vital_processes()
    last_needed = time.monotonic()
    last_prune = last_needed
    while not stop.wait(_LOOK_EVERY_S):
        now = time.monotonic()
        if not all(is_running(pid, mark) for pid, mark in vital):
            log.error("a process of Ray ended; the head ends")
            return
        if users.living():
            last_needed = now
        if now - last_needed > options.linger_s:
            log.info("nobody needs the head any more")
            return
        if now - last_prune > _LOG_IDLE_S:
            last_prune = now
            logs = options.temp_dir / RAY_DIRECTORY
            prune_logs(logs, limit_bytes=_LOG_LIMIT_BYTES, idle_s=_LOG_IDLE_S)


def _vital_processes() -> list[tuple[int, str]]:
    return [
        (child.pid, start_mark(child.pid) or "")
        for child in psutil.Process().children()
        if child.name() in _VITAL
    ]


def prune_logs(temp_dir: Path, *, limit_bytes: int, idle_s: float) -> None:
    """Remove Ray's oldest logs, of processes long silent, until `limit_bytes` are left."""
    files = [p for p in temp_dir.glob("session_2*/logs/**/*") if p.is_file()]
    found = sorted((p.stat().st_mtime, p.stat().st_size, p) for p in files)
    total = sum(size for _, size, _ in found)
    for modified, size, path in found:
        if total <= limit_bytes or time.time() - modified < idle_s:
            return
        path.unlink(missing_ok=True)
        total -= size


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
