"""The head's self-test: it is used only if it refuses strangers and listens on loopback alone.

Ray starts without authentication when it finds no token, and only logs a warning; and it listens on
every interface unless it takes this machine's address for 127.0.0.1. So both are tried out.
"""

import ipaddress

import grpc
import psutil

from jobs.errors import SettingsError

# A call that tells what the cluster is made of; its request has no required field.
_CALL = "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo"
_REMEDY = (
    "Do not use this head: check that nothing overrides RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH or "
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER, and that Ray is the pinned version."
)


def check_token_is_asked(address: str, *, timeout_s: float = 10.0) -> None:
    """Call the head without the token.

    Raises:
        SettingsError: the call was answered, or failed for a reason other than the missing token.
    """
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(_CALL)
        try:
            call(b"", timeout=timeout_s)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return
            raise SettingsError(
                f"The Ray head at {address} answered a call without a token with {error.code()}, "
                "not with UNAUTHENTICATED.",
                _REMEDY,
            ) from error
    raise SettingsError(f"The Ray head at {address} takes calls without a token.", _REMEDY)


def check_listeners() -> None:
    """Look at every listening socket of this process and its children.

    Raises:
        SettingsError: one of them can be reached from other machines.
    """
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        try:
            connections = process.net_connections(kind="tcp")
            name = process.name()
        except psutil.NoSuchProcess:
            continue
        for connection in connections:
            if connection.status == psutil.CONN_LISTEN and not _is_loopback(connection.laddr.ip):
                raise SettingsError(
                    f"{name} of the Ray head listens on {connection.laddr.ip}, "
                    "so other machines can reach it.",
                    _REMEDY,
                )


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
