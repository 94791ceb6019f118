"""A real application on a real store in a temporary home, spoken to without a socket."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from starlette.testclient import TestClient

from jobs.store import Store, open_store
from services.app import create_app
from services.auth import SCOPES
from services.settings import Settings

SPEC = {
    "name": "tiny",
    "objective": {"kind": "mige_infomax"},
    "encoder": {"kind": "mlp", "hidden_dims": [8], "out_dim": 2},
    "data": {"kind": "digits"},
    "resources": {"backend": "inline"},
}


@dataclass(frozen=True)
class Service:
    """The application, its store, and a client for whoever holds a key."""

    client: TestClient
    store: Store
    settings: Settings

    def key(self, *scopes: str, project: str = "default") -> dict[str, str]:
        """Headers with a fresh key."""
        _record, secret = self.store.create_key(
            project=project, scopes=frozenset(scopes or SCOPES), name="test"
        )
        return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def service(tmp_path) -> Iterator[Service]:
    settings = Settings(home=tmp_path / "home", data_root=tmp_path / "data")
    store = open_store(settings.database, home=settings.home)
    try:
        app = create_app(settings, store=store)
        with TestClient(
            app, base_url="http://127.0.0.1:8642", raise_server_exceptions=False
        ) as client:
            yield Service(client, store, settings)
    finally:
        store.close()


@pytest.fixture
def api(service) -> TestClient:
    """A client with a key that may do everything in the project `default`."""
    service.client.headers.update(service.key())
    return service.client


@pytest.fixture
def spec() -> dict[str, object]:
    return {**SPEC}
