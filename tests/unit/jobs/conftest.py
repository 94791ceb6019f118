"""A real store in a temporary home, and jobs in it in the state that a test needs."""

import hashlib
import json
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.spec import DigitsDataSpec, JobSpec, MigeInfomaxSpec, MLPEncoderSpec
from jobs.states import Phase, Reason
from jobs.store import Store, open_store
from jobs.wire import Exit, Manifest, ManifestFile


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """A database with all tables, made once: Alembic takes a moment."""
    home = tmp_path_factory.mktemp("empty")
    open_store(f"sqlite:///{home}/mige.db", home=home).close()
    return home / "mige.db"


@pytest.fixture
def home(tmp_path, empty_database) -> Path:
    directory = tmp_path / "home"
    directory.mkdir(mode=0o700)
    shutil.copy(empty_database, directory / "mige.db")
    return directory


@pytest.fixture
def store(home) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{home}/mige.db", home=home, max_queued_per_project=100)
    yield opened
    opened.close()


@pytest.fixture
def spec() -> JobSpec:
    return JobSpec(
        name="tiny",
        objective=MigeInfomaxSpec(kind="mige_infomax"),
        encoder=MLPEncoderSpec(kind="mlp", hidden_dims=(8,), out_dim=2),
        data=DigitsDataSpec(kind="digits"),
    )


@dataclass(frozen=True)
class Bench:
    """Brings jobs of the project `p` where a test wants them."""

    store: Store
    spec: JobSpec

    def queued(self, **changes) -> str:
        spec = self.spec.model_copy(update=changes)
        return self.store.submit(spec, project="p", actor="test").job.id

    def leased(self, **changes) -> str:
        job_id = self.queued(**changes)
        assert self.store.claim(job_id, owner="test") is not None
        return job_id

    def running(self, **changes) -> str:
        job_id = self.leased(**changes)
        self.store.heartbeat(job_id, 1, Phase.TRAINING)
        return job_id

    def finalizing(self, **changes) -> str:
        job_id = self.running(**changes)
        self.store.begin_finalize(job_id, 1)
        return job_id

    def succeeded(self, **changes) -> str:
        job_id = self.finalizing(**changes)
        self.store.publish(job_id, 1, self.stage(job_id))
        return job_id

    def failed(self) -> str:
        job_id = self.running()
        self.end(job_id, Reason.NAN_LOSS)
        return job_id

    def end(self, job_id: str, reason: Reason, *, fence: int = 1, exit_code: int = -9):
        result = Exit(exit_code=exit_code, reason=reason, message="because")
        return self.store.end(job_id, fence, result)

    def stage(self, job_id: str, *, fence: int = 1, files: dict[str, bytes] | None = None):
        """Write a result that can be published; its manifest."""
        return stage_result(self.store.run_directory(job_id, fence).result, files or RESULT_FILES)


def safetensors(tensors: dict[str, tuple[str, list[int], bytes]], **header) -> bytes:
    """A safetensors file, written by hand so that it can also be a wrong one."""
    at, entries = 0, {}
    for name, (dtype, shape, data) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(entries | header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(d for _, _, d in tensors.values())


RESULT_FILES = {
    "config.json": b'{"kind": "mlp"}',
    "encoder.safetensors": safetensors({"net.0.weight": ("F32", [2], struct.pack("<2f", 1, 2))}),
    "evaluation.json": b'{"knn@1": {"trained": 0.9}}',
}


def stage_result(directory: Path, files: dict[str, bytes]) -> Manifest:
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    manifest = Manifest(
        files=tuple(
            ManifestFile(path=n, size_bytes=len(d), sha256=hashlib.sha256(d).hexdigest())
            for n, d in files.items()
        ),
        metadata={"out_dim": 2},
    )
    (directory / "manifest.json").write_text(manifest.model_dump_json())
    return manifest


@pytest.fixture
def make_safetensors():
    return safetensors


@pytest.fixture
def result_files() -> dict[str, bytes]:
    return dict(RESULT_FILES)


@pytest.fixture
def bench(store, spec) -> Bench:
    return Bench(store, spec)
