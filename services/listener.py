"""The address that the service listens on. Imports nothing slow: the supervisor looks first."""

from __future__ import annotations

import errno
import socket

from jobs.errors import SettingsError


def bind(host: str, port: int) -> socket.socket:
    """Take the address before anything else is opened.

    Raises:
        SettingsError: the port is taken or the address is not ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Only where the protocol is named does asyncio turn Nagle's algorithm off for the connections;
    # with it, every second answer waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)  # clients of a restart wait in the queue instead of being refused
    except OSError as error:
        listener.close()
        raise _address_error(host, port, error) from error
    listener.set_inheritable(False)
    return listener


def base_url(listener: socket.socket) -> str:
    """The address that clients and runners on this machine use."""
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - not binding: translating to what can be called
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _address_error(host: str, port: int, error: OSError) -> SettingsError:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return SettingsError(
            f"{where} is in use by another program.",
            "Stop that program, or choose a free port with --port or MIGE_PORT.",
        )
    if error.errno == errno.EACCES:
        return SettingsError(
            f"{where} needs more rights.", "Set --port or MIGE_PORT to 1024 or above."
        )
    return SettingsError(
        f"{where} cannot be used: {error.strerror or error}.", "Correct --host or MIGE_HOST."
    )
