"""Services for the tests: one to share, one to break."""

import pytest

from tests.e2e.running_service import NO_STANDBY, running


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory):
    """One service for the tests of a module that only add to it."""
    with running(tmp_path_factory.mktemp("shared") / "home", settings=NO_STANDBY) as service:
        yield service


@pytest.fixture
def own_service(tmp_path):
    """A service that the test may break."""
    with running(tmp_path / "home", settings=NO_STANDBY) as service:
        yield service
