from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from tests.integration.api_service import SPEC, Service, running_service


@pytest.fixture
def service(tmp_path) -> Iterator[Service]:
    with running_service(tmp_path) as running:
        yield running


@pytest.fixture
def api(service) -> TestClient:
    """A client with a key that may do everything in the project `default`."""
    service.client.headers.update(service.key())
    return service.client


@pytest.fixture
def spec() -> dict[str, object]:
    return {**SPEC}
