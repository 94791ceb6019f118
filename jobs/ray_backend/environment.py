"""Which environment variables Ray's processes get: the head by allow-list, drivers by addition.

Read in Ray 2.60's source or found by measuring it (see `tests/benchmarks/startup.py`).
"""

from collections.abc import Mapping
from pathlib import Path

import psutil

# What the head inherits. It hands its environment on to every worker, so no secret may be in it.
_INHERITED = frozenset(
    {
        "HOME",
        "LANG",
        "LD_LIBRARY_PATH",
        "LOGNAME",
        "PATH",
        "PYTHONPATH",
        "SYSTEMROOT",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
    }
)
_INHERITED_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "ROCR_", "HIP_")

# What a waiting Train group takes instead of processors (see `jobs.ray_backend.warm`).
STANDBY_RESOURCE = "mige_standby"

# Seconds a driver or worker waits for a lost head before it ends itself (Ray's own: 60).
HEAD_RECONNECT_S = 20


def shared_settings(token_file: Path) -> dict[str, str]:
    """What head, drivers and workers of the local head have in common.

    `RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0` makes Ray take 127.0.0.1 for the address of this machine
    on every system. Then all its servers listen on loopback only; without it they listen on every
    interface even if `_node_ip_address` names the loopback one.
    """
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(HEAD_RECONNECT_S),
    }


def head_environment(token_file: Path, base: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of the head, and so of its workers.

    Args:
        token_file: the cluster's token, readable by this user only.
        base: the environment to inherit from; only an allow-list is taken.
    """
    inherited = {
        key: value
        for key, value in base.items()
        if key in _INHERITED or key.startswith(_INHERITED_PREFIXES)
    }
    return (
        inherited
        | shared_settings(token_file)
        | {
            "GLOO_SOCKET_IFNAME": loopback_interface(),  # or gloo takes the first it finds
            # Workers that Ray starts ahead do not fit Train's run-time environment: only a cost.
            "RAY_prestart_worker_first_driver": "0",
            # Before a group is started again the survivors leave their process group; one that
            # waits for a dead peer never does, and Train would wait 30 s for it.
            "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "2",
            "RAY_ROTATION_MAX_BYTES": str(16 * 2**20),
            "RAY_ROTATION_BACKUP_COUNT": "1",
            "PYTHONUNBUFFERED": "1",
        }
    )


def driver_settings(token_file: Path) -> dict[str, str]:
    """What a driver adds to its own environment before it imports Ray.

    Train hands its own variables (`RAY_TRAIN_*`) on to controller and workers.
    """
    return shared_settings(token_file) | {
        # The controller sleeps so long between looks at the workers: the default of 2 s is paid
        # at the end of every job.
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody takes this machine's node away
        "RAY_TRAIN_METRICS_ENABLED": "0",  # Ray's own metrics; the job's go another way
        "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_DEDUP_LOGS": "0",
    }


def loopback_interface() -> str:
    """The name of the interface that has 127.0.0.1 (`lo`, `lo0`)."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == "127.0.0.1" for address in addresses):
            return str(name)
    return "lo"
