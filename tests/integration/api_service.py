"""A real application on a real store in a temporary home, spoken to without a socket."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from starlette.testclient import TestClient

from jobs.records import EncoderRecord
from jobs.spec import JobSpec
from jobs.states import Phase
from jobs.store import Store, open_store
from jobs.wire import Manifest, ManifestFile, Report, ReportBatch
from services.app import create_app
from services.auth import SCOPES
from services.settings import Settings

BASE_URL = "http://127.0.0.1:8642"
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

    def submit(self, project: str = "default") -> str:
        """The id of a new job, put into the queue behind the API's back."""
        spec = JobSpec.model_validate(SPEC)
        return self.store.submit(spec, project=project, actor="test").job.id

    def start(self, job_id: str) -> int:
        """Give the job to an attempt that trains; its fence."""
        lease = self.store.claim(job_id, owner="test")
        assert lease is not None
        self.store.heartbeat(job_id, lease.fence, Phase.TRAINING)
        return lease.fence

    def report(self, job_id: str, fence: int, first: int, count: int) -> None:
        """Have the attempt report `count` points of its curve."""
        reports = tuple(
            Report(kind="metric", at=datetime.now(UTC), data={"step": s, "loss": 1 / (s + 1)})
            for s in range(first, first + count)
        )
        self.store.ingest(job_id, fence, ReportBatch(first=first, reports=reports))

    def publish(self, files: Mapping[str, bytes], project: str = "default") -> EncoderRecord:
        """Run a job to its end and publish these files as its encoder."""
        job_id = self.submit(project)
        fence = self.start(job_id)
        staged = self.store.run_directory(job_id, fence).result
        staged.mkdir(parents=True)
        entries = []
        for name, content in files.items():
            (staged / name).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            entries.append(ManifestFile(path=name, size_bytes=len(content), sha256=digest))
        manifest = Manifest(files=tuple(entries), metadata={"out_dim": 2})
        (staged / "manifest.json").write_text(manifest.model_dump_json())
        self.store.begin_finalize(job_id, fence)
        return self.store.publish(job_id, fence, manifest)


def small_files() -> dict[str, bytes]:
    """What the registry accepts as an encoder, without being one that embeds."""
    weights = {"encoder.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    return {
        "config.json": json.dumps({"format_version": 1}).encode(),
        "encoder.safetensors": save(weights),
        "README.md": b"# A small encoder\n" + b"0123456789" * 100,
    }


@contextlib.contextmanager
def running_service(folder: Path) -> Iterator[Service]:
    """A service whose home and data root lie in `folder`."""
    settings = Settings(home=folder / "home", data_root=folder / "data")
    store = open_store(settings.database, home=settings.home)
    try:
        app = create_app(settings, store=store)
        with TestClient(app, base_url=BASE_URL, raise_server_exceptions=False) as client:
            yield Service(client, store, settings)
    finally:
        store.close()
