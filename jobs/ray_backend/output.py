"""Where a process's output goes."""

import os
import sys
from pathlib import Path


def redirect_output(log_file: Path) -> None:
    """From now on what this process says, libraries in C included, is appended to `log_file`."""
    sys.stdout.flush()
    sys.stderr.flush()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(log_file, flags, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
