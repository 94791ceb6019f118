"""A driver's connection to the head. Ray is imported here only when it is used.

Ray reads much of its environment while it is imported, so the settings go first.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from jobs.ray_backend.environment import driver_settings
from jobs.ray_backend.failures import HeadLostError
from jobs.ray_backend.head import RayAddress, RayHead

# The module that drives Ray Train: torch and `ray.train` with it, seconds of imports.
_DRIVER_MODULE = "jobs.ray_backend.worker_group"


@contextmanager
def connected(home: Path, *, namespace: str) -> Iterator[None]:
    """This process as a driver on the head of `home`, which is started if need be.

    The slow imports run while the head starts.

    Args:
        home: the service's home directory.
        namespace: keeps the names of this driver's actors apart from those of others.

    Raises:
        SettingsError: the head would be open to strangers.
        HeadLostError: the head does not start or does not answer.
    """
    head = RayHead(home)
    os.environ.update(driver_settings(head.token_file))
    with ThreadPoolExecutor(max_workers=1) as pool:
        imported = pool.submit(import_module, _DRIVER_MODULE)
        address = head.ensure()
        imported.result()
    _connect(address, namespace)
    try:
        yield
    finally:
        _disconnect()


def _connect(address: RayAddress, namespace: str) -> None:
    import ray

    # Ray sets its own SIGTERM handler; the runner's must stay.
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if is_main else None
    try:
        ray.init(
            address=address.address,  # never without: Ray would join whatever it finds
            namespace=namespace,
            log_to_driver=True,
            logging_level=logging.WARNING,
        )
    except ConnectionError as error:
        raise HeadLostError(
            f"The Ray head at {address.address} does not answer: {error}",
            "The next attempt starts a new head.",
        ) from error
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, handler)


def _disconnect() -> None:
    import ray

    ray.shutdown()
    sys.stdout.flush()
