"""Drives one attempt with Ray Train. Importing this module does not import Ray."""

from pathlib import Path

from jobs.errors import SettingsError
from jobs.ray_backend.cluster import connected
from jobs.run_directory import RunDirectory
from jobs.wire import Launch


def run_with_ray_train(launch: Launch) -> None:
    """Connect to the head, train the attempt on a group of workers, disconnect. Blocks.

    Raises:
        StoppedError: the attempt was told to stop and did.
        SpecInvalidError: the cluster could never hold the workers.
        SettingsError: there is no head to be had.
        WorkersLostError, ...: see `jobs.ray_backend.errors`.
    """
    with connected(ray_home(launch), namespace=launch.job_id):
        run_connected(launch)


def run_connected(launch: Launch) -> None:
    """The same, in a process that is a driver already."""
    from jobs.ray_backend.worker_group import GroupShape, check_capacity, start

    directory = RunDirectory(Path(launch.storage), launch.job_id, launch.fence)
    directory.ray.mkdir(mode=0o700, parents=True, exist_ok=True)
    shape = GroupShape.of(launch.spec.resources)
    check_capacity(shape)
    source = {"attempt_file": str(directory.attempt_file)}
    start(shape, source, storage=directory.ray).result()


def ray_home(launch: Launch) -> Path:
    """Where the head keeps its state.

    Raises:
        SettingsError: the launch names no home.
    """
    if launch.ray_home is None:
        raise SettingsError(
            "This attempt asks for Ray Train, but the service runs without Ray.",
            'Start the service with Ray, or submit with "resources": {"backend": "inline"}.',
        )
    return Path(launch.ray_home)
