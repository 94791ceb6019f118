"""The Python client of the service.

`Client` is the whole of it; its errors are in `errors.py`. Needs `httpx2`, and `numpy` to embed.
"""

from services.client.client import Client, Resource
from services.client.credentials import Credentials, find_credentials, home_directory
from services.client.errors import (
    ApiError,
    ClientError,
    ConnectionFailedError,
    CredentialsError,
    DigestMismatchError,
    DownloadError,
    StreamBrokenError,
    WaitTimeoutError,
)
from services.client.logs import TERMINAL
from services.client.transport import Patience

__all__ = [
    "TERMINAL",
    "ApiError",
    "Client",
    "ClientError",
    "ConnectionFailedError",
    "Credentials",
    "CredentialsError",
    "DigestMismatchError",
    "DownloadError",
    "Patience",
    "Resource",
    "StreamBrokenError",
    "WaitTimeoutError",
    "find_credentials",
    "home_directory",
]
