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
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path

from jobs.errors import JobError
from jobs.ray_backend.cluster import connected
from jobs.ray_backend.output import redirect_output
from jobs.ray_backend.trainer import run_connected, run_with_ray_train
from jobs.run_directory import RunDirectory
from jobs.standby import Assignment, standby_directory
from jobs.wire import Launch

log = logging.getLogger(__name__)

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


def serve(home: Path, drive: Drive, *, stdin: int = 0) -> int:
    """Get ready, wait for one assignment on `stdin`, drive that attempt. Returns the exit code.

    Args:
        home: the service's home directory.
        drive: drives the attempt of a file; given what to call for one that asks for Ray Train.
        stdin: descriptor that the assignment comes from. If it closes first, nobody needs us: 0.

    Raises:
        SettingsError, HeadLostError: it cannot get ready, and no attempt waits for it.
    """
    directory = standby_directory(home, os.getpid())
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        run_ray: RunRay
        try:
            stack.enter_context(connected(home, namespace=f"standby-{os.getpid()}"))
            run_ray = WarmGroup(directory).run
        except JobError:
            if not select.select([stdin], [], [], 0)[0]:
                raise
            log.exception("not ready; the attempt that waits tries for itself")
            run_ray = run_with_ray_train
        with os.fdopen(stdin, "rb", closefd=False) as stream:
            line = stream.readline()
        if not line:
            return 0
        assignment = Assignment.parse(line)
        redirect_output(assignment.log_file)
        return drive(assignment.attempt_file, run_ray)
