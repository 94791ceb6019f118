"""The service's own Ray head on this machine, seen from outside. Does not import Ray.

A keeper process (`jobs.ray_backend.keeper`) owns the head and outlives whoever started it: it ends
when it is told to (SIGTERM) or when no process that uses it is left. Below `<home>/ray`:

    token        the cluster's token (0600); every call without it is refused
    head.json    where the head is and which process keeps it (0600)
    head.lock    held while a head is started or stopped
    keeper.log   what the keeper and Ray said while starting
    users/       the processes that need the head
    standby/     what waiting drivers keep (see `jobs.standby`)
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from jobs.errors import SettingsError
from jobs.processes import available_cpus, end_group, is_running, members
from jobs.ray_backend.environment import head_environment
from jobs.ray_backend.failures import HeadLostError
from jobs.ray_backend.users import UserRegistry

RAY_DIRECTORY = "r"
"""Name of Ray's directory inside ours: Ray opens its own to everybody (0777), ours stays 0700."""

# A Unix socket's path has at most 103 bytes (macOS); Ray adds up to 66 to its temporary directory.
_LONGEST_TEMP_DIR = 103 - 66 - len("/" + RAY_DIRECTORY)
_LOG_TAIL_BYTES = 2000
_LOOK_EVERY_S = 0.05
_REMEDY = (
    "Free what its log (keeper.log below the home) asks for and submit again, or use "
    '"resources": {"backend": "inline"}, which needs no Ray.'
)
EXIT_UNSAFE = 3  # of the keeper: the head would be open to strangers


@dataclass(frozen=True, slots=True)
class RayAddress:
    """How a driver reaches the head."""

    address: str
    token_file: Path
    temp_dir: Path


@dataclass(frozen=True, slots=True)
class HeadState:
    """`head.json`: the head that runs and the process that keeps it. No address: it is ending."""

    address: str
    pid: int
    mark: str
    temp_dir: str

    def is_alive(self) -> bool:
        """Whether the keeper still runs; a process that only reuses its number does not count."""
        return is_running(self.pid, self.mark)


class RayHead:
    """Starts, finds and stops the head of one home directory. Safe to use from many processes."""

    def __init__(self, home: Path, *, num_cpus: int | None = None, linger_s: float = 60.0) -> None:
        """Say which head is meant.

        Args:
            home: the service's home directory.
            num_cpus: processors that Ray may give away; None: all that this process may use.
            linger_s: the keeper ends when for so long no process has needed the head.
        """
        self._root = home.absolute() / "ray"
        self._num_cpus = num_cpus or available_cpus()
        self._linger_s = linger_s

    @property
    def root(self) -> Path:
        """Where the head keeps its files."""
        return self._root

    @property
    def token_file(self) -> Path:
        """The cluster's token."""
        return self._root / "token"

    @property
    def temp_dir(self) -> Path:
        """Holds Ray's session files: short, because Unix sockets lie in it."""
        name = "mige-" + hashlib.sha256(str(self._root).encode()).hexdigest()[:10]
        base = tempfile.gettempdir()
        if len(base) + 1 + len(name) > _LONGEST_TEMP_DIR:
            base = "/tmp"  # noqa: S108 - what we make in it is 0700 and its owner is checked
        return Path(base) / name

    def ensure(self, *, timeout_s: float = 90.0) -> RayAddress:
        """Start the head unless it runs, wait until it answers, and count this process as a user.

        Raises:
            HeadLostError: the head does not start.
            SettingsError: it would be open to strangers.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._lock() as lock:
            self._ensure_token()
            UserRegistry(self._root).add_self()
            state = self._read_state()
            if state is None or not state.is_alive() or not _answers(state.address):
                self._clear(state, grace_s=5.0)
                state = self._start(timeout_s, lock)
        return RayAddress(state.address, self.token_file, Path(state.temp_dir))

    def status(self) -> HeadState | None:
        """The head that runs now, or None."""
        state = self._read_state()
        return state if state is not None and state.is_alive() else None

    def stop(self, *, grace_s: float = 15.0) -> None:
        """End the head with everything on it. Does nothing if none runs."""
        if not self._root.is_dir():
            return
        with self._lock():
            self._clear(self._read_state(), grace_s=grace_s)

    def _ensure_token(self) -> None:
        try:
            with _create_private(self.token_file) as file:
                file.write(secrets.token_hex(32))
        except FileExistsError:
            self.token_file.chmod(0o600)

    @contextmanager
    def _lock(self) -> Iterator[int]:
        descriptor = os.open(self._root / "head.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)  # lets the lock go

    def _read_state(self) -> HeadState | None:
        try:
            fields = json.loads((self._root / "head.json").read_text(encoding="utf-8"))
            return HeadState(**fields)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return None  # torn or of another version: whatever it meant, a new head is started

    def _clear(self, state: HeadState | None, *, grace_s: float) -> None:
        """End the keeper that `state` names and remove what it left."""
        if state is not None and state.is_alive():
            # The keeper alone, not its group: it shuts Ray down, in order, while Ray still answers.
            with suppress(ProcessLookupError):  # it ended in between
                os.kill(state.pid, signal.SIGTERM)
            _wait_for_group(state.pid, grace_s)
            end_group(state.pid, state.mark, grace_s=0)
        (self._root / "head.json").unlink(missing_ok=True)
        if self.temp_dir.is_dir() and not self.temp_dir.is_symlink():
            shutil.rmtree(self.temp_dir, ignore_errors=True)

    def _start(self, timeout_s: float, lock: int) -> HeadState:
        _make_own_directory(self.temp_dir)
        log = self._root / "keeper.log"
        log.unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "jobs.ray_backend.keeper", str(self._root)]
        command += [str(self.temp_dir), str(self._num_cpus), str(self._linger_s), str(timeout_s)]
        command += [str(lock)]
        with _create_private(log) as output:
            # Comes back when the head answers (0) or when the keeper has ended.
            done = subprocess.run(  # noqa: S603 - our own module with our own arguments
                command,
                cwd=self._root,
                env=head_environment(self.token_file, os.environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),  # held until the head answers, even if we are killed meanwhile
                check=False,
            )
        state = self._read_state()
        if done.returncode == EXIT_UNSAFE:
            raise SettingsError(f"The Ray head cannot be used: {_tail(log)}", _REMEDY)
        if done.returncode != 0 or state is None:
            raise HeadLostError(f"The Ray head did not start: {_tail(log)}", _REMEDY)
        return state


def write_state(root: Path, state: HeadState) -> None:
    """Publish `head.json`, whole or not at all, readable by this user only."""
    beside = root / f"head.json.{os.getpid()}"
    with _create_private(beside) as file:
        file.write(json.dumps(asdict(state)))
    beside.replace(root / "head.json")


def _create_private(path: Path) -> TextIO:
    """A new file that only this user can read; FileExistsError if there is one."""
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w")


def _make_own_directory(path: Path) -> None:
    """A directory that nobody else can have prepared for us."""
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise SettingsError(
                f"{path} exists and is not a directory of this user alone.",
                "Remove it, or set TMPDIR to a directory of your own.",
            ) from None


def _wait_for_group(leader: int, grace_s: float) -> None:
    deadline = time.monotonic() + grace_s
    while members(leader) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)


def _answers(address: str) -> bool:
    if not address:  # the head is ending
        return False
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2.0):
            return True
    except OSError:
        return False


def _tail(log: Path) -> str:
    return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
