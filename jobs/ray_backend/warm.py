"""A driver that waits, everything ready, for the attempt it will drive.

What a job waits for at its start is not training but processes: imports, the connection, Ray
Train's controller, its workers, their imports and their process group, one after the other. A warm
driver has all of that behind it: its worker group of one runs already and waits for a file that
names the attempt. It takes a slot of its own of the head instead of a processor.

`python -m jobs.runner --standby <home>` calls `serve`; `jobs.standby.StandbyPool` is the other end.
Importing this module does not import Ray.
"""

import logging
import os
import select
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, closing
from pathlib import Path

from jobs.errors import JobError
from jobs.ray_backend.cluster import connected
from jobs.ray_backend.output import redirect_output
from jobs.ray_backend.trainer import run_connected, run_with_ray_train
from jobs.run_directory import RunDirectory
from jobs.standby import Assignment, standby_directory
from jobs.wire import Launch

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0  # whether getting ready failed, while no attempt comes

RunRay = Callable[[Launch], None]
Drive = Callable[[Path, RunRay], int]


class WarmGroup:
    """A running worker group of one that waits for an attempt. One attempt, once."""

    def __init__(self, directory: Path) -> None:
        """Start it; this process must be connected.

        Args:
            directory: an existing directory of its own.
        """
        from jobs.ray_backend.worker_group import GroupShape, start

        self._assignment_file = directory / "assignment"
        source = {
            "assignment_file": str(self._assignment_file),
            "ready_file": str(directory / "ready"),
        }
        shape = GroupShape(num_workers=1, cpus=0, gpus=0)
        self._outcome: Future[None] = start(shape, source, storage=directory)

    def run(self, launch: Launch) -> None:
        """Train the attempt: on the waiting worker if it asks for one like it, else on new ones.

        Raises:
            StoppedError, JobError, ...: as `jobs.ray_backend.trainer.run_with_ray_train`.
        """
        from jobs.ray_backend.worker_group import GroupShape, check_capacity

        resources = launch.spec.resources
        fits = resources.num_workers == 1 and resources.gpus_per_worker == 0
        if fits and not self._outcome.done():
            check_capacity(GroupShape.of(resources))  # the waiting worker reserves no processor
            directory = RunDirectory(Path(launch.storage), launch.job_id, launch.fence)
            self._assign(str(directory.attempt_file))
            self._outcome.result()
        else:
            self._assign("")  # the waiting worker returns; nobody waits for that
            run_connected(launch)

    def _assign(self, text: str) -> None:
        beside = self._assignment_file.with_suffix(".new")
        beside.write_text(text, encoding="utf-8")
        beside.replace(self._assignment_file)


class Warming:
    """Gets ready in a thread: an attempt that comes early has its heartbeats all the while."""

    def __init__(self, home: Path, directory: Path) -> None:
        """Begin.

        Args:
            home: the service's home directory.
            directory: an existing directory for the waiting group.
        """
        self._home, self._directory = home, directory
        self._connection = ExitStack()
        self._group: Future[WarmGroup] = Future()
        threading.Thread(target=self._warm, name="warming", daemon=True).start()

    def check(self) -> None:
        """Raise what kept it from getting ready, if anything did."""
        if self._group.done():
            self._group.result()

    def run(self, launch: Launch) -> None:
        """Train the attempt as soon as everything is ready; if that failed, the plain way."""
        try:
            group = self._group.result()
        except JobError:
            log.exception("not ready; the attempt tries for itself")
            run_with_ray_train(launch)
        else:
            group.run(launch)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

    def _warm(self) -> None:
        try:
            self._connection.enter_context(
                connected(self._home, namespace=f"standby-{os.getpid()}")
            )
            self._group.set_result(WarmGroup(self._directory))
        except BaseException as error:  # noqa: BLE001 - raised again by `check` and `run`
            self._group.set_exception(error)


def serve(home: Path, drive: Drive, *, stdin: int = 0) -> int:
    """Get ready, and drive the attempt that one assignment on `stdin` names.

    Args:
        home: the service's home directory.
        drive: drives the attempt of a file; given what to call for one that asks for Ray Train.
        stdin: descriptor that the assignment comes from. If it closes first, nobody needs us: 0.

    Returns:
        The exit code.

    Raises:
        SettingsError, HeadLostError: it cannot get ready, and no attempt waits for it.
    """
    directory = standby_directory(home, os.getpid())
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        warming = stack.enter_context(closing(Warming(home, directory)))
        while not select.select([stdin], [], [], LOOK_EVERY_S)[0]:
            warming.check()
        with os.fdopen(stdin, "rb", closefd=False) as stream:
            line = stream.readline()
        if not line:
            return 0
        assignment = Assignment.parse(line)
        redirect_output(assignment.log_file)
        return drive(assignment.attempt_file, warming.run)
