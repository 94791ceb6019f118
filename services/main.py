"""The API process: `python -m services.main`. Settings come from the environment (`MIGE_...`).

Ends with 2 and one line that says what to do when it cannot work as it is set up.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from jobs.errors import JobError, StorageUnavailableError
from jobs.executors.local_process import LocalProcess, Spawn, StartRunner, runner_environment
from jobs.lease_watch import LeaseTimes
from jobs.processes import available_cpus
from jobs.reconciler import Reconciler, ReconcilerSettings
from jobs.standby import StandbyPool
from jobs.store import Store, open_store
from services.app import create_app
from services.bootstrap import (
    check_data_root,
    check_exposure,
    create_first_key,
    prepare_home,
    renew_address,
)
from services.context import ServiceContext
from services.listener import base_url, bind
from services.protocol import GuardedProtocol
from services.settings import Settings, load_settings
from services.telemetry import configure_logging

EXIT_TRY_AGAIN, EXIT_MISCONFIGURED = 1, 2
_DRAIN_S = 20
_WANTED_FILES = 65_536

log = structlog.get_logger("services.main")


def main() -> int:
    """Run the service until it is told to stop; returns the exit status."""
    began = time.perf_counter()
    os.umask(0o077)
    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        check_data_root(settings)
        prepare_home(settings.home)
        with (
            contextlib.closing(bind(settings.host, settings.port)) as listener,
            _opened(settings) as store,
        ):
            check_exposure(settings, has_keys=store.has_keys())
            _welcome(settings, store, base_url(listener))
            _serve(settings, store, listener, began)
            store.ping()  # raises where a database that broke is why we end
    except JobError as error:
        sys.stderr.write(f"mige: {error}\n")
        # Storage that does not answer may answer the next process; the rest needs a person.
        return EXIT_TRY_AGAIN if isinstance(error, StorageUnavailableError) else EXIT_MISCONFIGURED
    return 0


@contextlib.contextmanager
def _opened(settings: Settings) -> Iterator[Store]:
    store = open_store(settings.database, home=settings.home, on_broken=_end_process)
    try:
        yield store
    finally:
        store.close()


def _end_process(why: str) -> None:
    """Nothing can be stored until a new process opens the database: make room for it."""
    log.critical("database.broken", detail=why, remedy="The process ends, to be started again.")
    os.kill(os.getpid(), signal.SIGTERM)


def _welcome(settings: Settings, store: Store, url: str) -> None:
    """Show a first key once; it is also in the credentials file, for clients on this machine."""
    secret = create_first_key(settings, store, url)
    if secret is None:
        renew_address(settings, url)
        return
    sys.stdout.write(
        f"A first API key was made. It is shown only now:\n\n    {secret}\n\n"
        f"Clients on this machine find it in {settings.credentials_file}.\n"
    )
    sys.stdout.flush()


def _serve(settings: Settings, store: Store, listener: socket.socket, began: float) -> None:
    _raise_file_limit()
    with _runner_starter(settings) as spawn:
        reconciler = _reconciler(settings, store, spawn, base_url(listener))
        app = create_app(settings, store=store, reconciler=reconciler)
        config = uvicorn.Config(
            app,
            http=GuardedProtocol,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_DRAIN_S,
        )
        log.info(
            "service.starting",
            url=base_url(listener),
            seconds=round(time.perf_counter() - began, 2),
        )
        _Server(config, app).run(sockets=[listener])
    log.info("service.stopped")


class _Server(uvicorn.Server):
    """uvicorn's server, which tells endless answers to end before it waits for them."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        context: ServiceContext = app.state.context
        self._context = context

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop. uvicorn's own would raise the signal again, before we have closed."""
        del frame
        self._context.draining.set()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def _reconciler(settings: Settings, store: Store, spawn: Spawn, api_url: str) -> Reconciler | None:
    if not settings.reconciler:
        return None
    return Reconciler(
        store,
        LocalProcess(settings.storage, spawn=spawn),
        ReconcilerSettings(
            api_url=api_url,
            data_root=str(settings.data_root) if settings.data_root else None,
            ray_home=str(settings.home),
            heartbeat_s=settings.heartbeat_s,
            times=LeaseTimes(ttl_s=settings.lease_ttl_s),
        ),
    )


@contextlib.contextmanager
def _runner_starter(settings: Settings) -> Iterator[Spawn]:
    """What starts runners: a pool that keeps one ready, or plainly a process per attempt."""
    if not (settings.reconciler and settings.standby):
        yield StartRunner()
        return
    pool = StandbyPool(
        settings.home,
        environment=runner_environment(),
        cold=StartRunner(),
        num_cpus=available_cpus(),
    )
    pool.start()
    try:
        yield pool.spawn
    finally:
        pool.close()


def _raise_file_limit() -> None:
    """Every client that listens needs a file descriptor, and many systems start with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())
