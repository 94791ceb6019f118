"""All that the control side does to four jobs, so written that it may be killed and run again.

Argument: the home directory.
"""

import hashlib
import io
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

from jobs.artifacts import make_private_directory, write_atomic
from jobs.executors.local_process import LocalProcess, StartRunner
from jobs.garbage import collect_objects
from jobs.reconciler import Reconciler, ReconcilerSettings
from jobs.reporters import new_report
from jobs.spec import DigitsDataSpec, JobSpec, MigeInfomaxSpec, MLPEncoderSpec
from jobs.states import DesiredState, JobState, Phase, Reason
from jobs.store import Store, open_store
from jobs.wire import Exit, Manifest, ManifestFile, ProgressReport, ReportBatch

SPEC = JobSpec(
    objective=MigeInfomaxSpec(kind="mige_infomax"),
    encoder=MLPEncoderSpec(kind="mlp", hidden_dims=(8,), out_dim=2),
    data=DigitsDataSpec(kind="digits"),
)
SILENT = Exit(exit_code=-1, reason=Reason.LEASE_EXPIRED, message="silent")


def weights() -> bytes:
    header = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    return struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1, 2)


def submit(store: Store, key: str) -> str:
    return store.submit(SPEC, project="p", actor="me", idempotency_key=key).job.id


def stage(store: Store, job_id: str, fence: int) -> Manifest:
    result = store.run_directory(job_id, fence).result
    make_private_directory(result)
    files = {"config.json": b"{}", "encoder.safetensors": weights()}
    for name, data in files.items():
        write_atomic(result / name, data)
    entries = tuple(
        ManifestFile(path=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in files.items()
    )
    manifest = Manifest(files=entries)
    write_atomic(result / "manifest.json", manifest.model_dump_json().encode())
    return manifest


def succeed(store: Store) -> None:
    """As a runner would: it asks again until it is told that it was done."""
    job_id = submit(store, "succeeds")
    if store.job(job_id).state is JobState.QUEUED:
        store.claim(job_id, owner="me")
    if store.job(job_id).state is not JobState.SUCCEEDED:
        store.heartbeat(job_id, 1, Phase.TRAINING)
        progress = ProgressReport(step=1, total_steps=1, epoch=0, epochs=1)
        report = new_report("metric", {"step": 1}, progress=progress)
        store.ingest(job_id, 1, ReportBatch(first=0, reports=(report,)))
        store.begin_finalize(job_id, 1)
        store.publish(job_id, 1, stage(store, job_id, 1))


def cancel(store: Store) -> None:
    job_id = submit(store, "is cancelled")
    store.request(job_id, DesiredState.CANCELLED, project="p", actor="me")


def fail(store: Store) -> None:
    job_id = submit(store, "fails")
    if store.job(job_id).state is JobState.QUEUED and store.job(job_id).fence == 0:
        store.claim(job_id, owner="me")
    leases = [lease for lease in store.active() if lease.job_id == job_id]
    if leases and store.job(job_id).fence == 1:
        store.expire(job_id, 1, leases[0].hb_seq, SILENT)
    if store.job(job_id).state is JobState.QUEUED:  # a pause taken back ends the back-off
        store.request(job_id, DesiredState.PAUSED, project="p", actor="me")
        store.request(job_id, DesiredState.RUNNING, project="p", actor="me")
    if store.job(job_id).state is JobState.QUEUED:
        store.claim(job_id, owner="me")
    if not store.job(job_id).state.is_terminal:
        diverged = Exit(exit_code=20, reason=Reason.NAN_LOSS, message="diverged")
        store.end(job_id, store.job(job_id).fence, diverged)


def run(store: Store) -> None:
    """By the reconciler and a real process, which ends without a word."""
    job_id = submit(store, "runs")
    started: list[subprocess.Popen[bytes]] = []

    def spawn(attempt_file: Path, log_file: Path) -> subprocess.Popen[bytes]:
        started.append(StartRunner(command=(sys.executable, "-c", ""))(attempt_file, log_file))
        return started[-1]

    settings = ReconcilerSettings(api_url="http://127.0.0.1:1", num_cpus=64)
    reconciler = Reconciler(store, LocalProcess(store.storage, spawn=spawn), settings)
    deadline = time.monotonic() + 30
    while store.job(job_id).attempts == 0 or store.job(job_id).state.is_active:
        reconciler.step()
        time.sleep(0.01)
        assert time.monotonic() < deadline
    for process in started:
        process.wait()


def tidy(store: Store) -> None:
    for data in (b"1", b"2"):
        sha = hashlib.sha256(data).hexdigest()
        store.objects.put(io.BytesIO(data), sha256=sha, size_bytes=1)
        os.utime(store.objects.path(sha), (1, 1))
    collect_objects(store)


def main(home: Path) -> None:
    store = open_store(f"sqlite:///{home}/mige.db", home=home)
    for act in (succeed, cancel, fail, run, tidy):
        act(store)
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
