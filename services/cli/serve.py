"""`mige serve`: run the service."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.cli.output import note


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (MIGE_HOST; 127.0.0.1).")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port (MIGE_PORT; 8642).")
    ] = None,
    home: Annotated[
        Path | None, typer.Option(help="Where everything is kept (MIGE_HOME; ~/.local/share/mige).")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder with data sets in torchvision's layout (MIGE_DATA_ROOT)."),
    ] = None,
) -> None:
    """Run the service on this machine until Ctrl-C.

    Restarts the API process if it dies. Ctrl-C ends everything that was started; running jobs save
    their state and go on at the next start. A second Ctrl-C does not wait for that. On a terminal
    only warnings are shown; MIGE_LOG_LEVEL=info shows every request.

    Examples:
      mige serve

      mige serve --port 9000 --home /var/lib/mige --data-root /data
    """
    given = {"HOST": host, "PORT": port, "HOME": home, "DATA_ROOT": data_root}
    changes = {f"MIGE_{key}": str(value) for key, value in given.items() if value is not None}
    os.environ.update(changes)  # this process and its children read one and the same environment
    from jobs.errors import SettingsError
    from jobs.ray_backend.head import RayHead
    from services.settings import load_settings
    from services.supervisor import ServeOptions, Supervisor

    settings = load_settings()
    if settings.port == 0:
        raise SettingsError("MIGE_PORT is 0, and `mige serve` needs to know it.", "Name a port.")
    # A person at a terminal wants to see what is wrong, not every request.
    quiet = sys.stderr.isatty() and "MIGE_LOG_LEVEL" not in os.environ
    options = ServeOptions(
        home=settings.home,
        host=settings.host,
        port=settings.port,
        environment={"MIGE_LOG_LEVEL": "warning"} if quiet else {},
    )
    supervisor = Supervisor(options, say=note, stop_cluster=RayHead(settings.home).stop)
    raise typer.Exit(supervisor.run())
