"""The whole way of an encoder through a real service, and what survives when parts are killed."""

import hashlib
import io
import json
import os
import signal
import threading
import time
from dataclasses import asdict

import numpy as np
import psutil
import pytest
from rich.console import Console

import mige
from jobs.data import load_data
from jobs.spec import DigitsDataSpec
from services.client import ApiError
from services.demo import DemoError, run_demo
from tests.e2e.running_service import NO_STANDBY, long_job, running, tiny_job, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def encoder(shared_service):
    """The encoder of one tiny job that was submitted and awaited on the command line."""
    done = shared_service.cli("submit", "-", "--wait", "--json", stdin=json.dumps(tiny_job()))
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert job["status"] == "succeeded"
    return job["encoder_id"]


def test_a_job_from_the_command_line_becomes_an_encoder_with_an_evaluation(shared_service, encoder):
    found = shared_service.client.encoder(encoder)
    assert set(found["evaluation"]["linear_probe@1"]) >= {"trained", "random", "raw"}
    assert shared_service.cli("encoders").stdout.count(encoder) == 1


def test_its_events_tell_its_life_in_order_and_then_end(shared_service, encoder):
    job_id = shared_service.client.encoder(encoder)["job_id"]
    events = list(shared_service.client.events(job_id))
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    kinds = [e["kind"] for e in events]
    assert kinds[0] == "job.created"
    assert "metric" in kinds
    stored = list(shared_service.client.events(job_id, follow=False))
    assert stored == events


def test_a_download_is_verified_and_embeds_as_the_service_does(shared_service, encoder, tmp_path):
    done = shared_service.cli("download", encoder, "--out", str(tmp_path / "got"))
    assert done.returncode == 0, done.stderr
    for file in shared_service.client.manifest(encoder)["files"]:
        content = (tmp_path / "got" / file["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    images = load_data(DigitsDataSpec(kind="digits"), None).x_test[:10]
    here = mige.load_encoder(tmp_path / "got").embed(images_tensor(images)).numpy()
    there = shared_service.client.embed(encoder, images)
    assert there.shape == (10, 8)
    np.testing.assert_allclose(there, here, atol=1e-5)
    np.save(tmp_path / "images.npy", images)
    done = shared_service.cli("embed", encoder, str(tmp_path / "images.npy"))
    printed = np.loadtxt(done.stdout.splitlines())
    np.testing.assert_allclose(printed, here, rtol=1e-4, atol=1e-4)


def images_tensor(images):
    import torch

    return torch.from_numpy(images)


def test_a_job_that_is_cancelled_ends_soon_and_publishes_nothing(shared_service):
    job_id = shared_service.client.submit(long_job())["id"]
    shared_service.at_step(job_id, 1)
    assert shared_service.cli("cancel", job_id).returncode == 0
    watched = shared_service.cli("watch", job_id, "--json")
    assert watched.returncode == 130
    assert json.loads(watched.stdout)["status"] == "cancelled"
    assert job_id not in {e["job_id"] for e in shared_service.client.encoders()}


def test_a_job_that_cannot_run_is_rejected_with_the_field_and_the_remedy(shared_service):
    spec = tiny_job(batch_size=5000)
    done = shared_service.cli("submit", "-", stdin=json.dumps(spec))
    assert done.returncode == 2
    assert "/training/batch_size" in done.stderr
    with pytest.raises(ApiError) as caught:
        shared_service.client.submit({**tiny_job(), "sed": 1})
    assert caught.value.errors[0].pointer == "/sed"


def test_the_doctor_finds_a_service_that_answers(shared_service):
    done = shared_service.cli("doctor", "--json")
    findings = {f["name"]: f for f in json.loads(done.stdout)}
    assert findings["service"]["level"] == "ok"


def test_the_log_of_a_job_can_be_followed_to_its_end(shared_service, encoder):
    job_id = shared_service.client.encoder(encoder)["job_id"]
    followed = "".join(shared_service.client.follow_logs(job_id))
    assert followed.splitlines()[-5:] == shared_service.client.logs(job_id, tail=5).splitlines()


def test_killing_the_api_loses_nothing_and_leaves_the_runner_at_work(own_service):
    client = own_service.client
    job_id = client.submit(long_job())["id"]
    seen = []
    follower = threading.Thread(
        target=lambda: seen.extend(client_events(own_service, job_id)), daemon=True
    )
    follower.start()
    own_service.at_step(job_id, 50)
    runner, api = own_service.runner(job_id), own_service.service.api_pid
    os.kill(api, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(lambda: own_service.service.api_pid not in (None, api))
    assert client.job(job_id)["id"] == job_id
    assert time.monotonic() - killed < 15.0  # about 1 s on a quiet machine
    assert runner.is_running()
    job = client.wait(job_id, timeout_s=90)
    follower.join(timeout=30)
    assert job["status"] == "succeeded"
    assert [a["number"] for a in client.attempts(job_id)] == [1]
    assert [e["seq"] for e in seen] == list(range(1, len(seen) + 1))
    assert seen == list(client.events(job_id, follow=False))


def client_events(own_service, job_id):
    """The events as a client of its own follows them."""
    with own_service.service.client() as client:
        yield from client.events(job_id)


def test_killing_the_runner_goes_on_from_the_last_checkpoint_to_one_encoder(own_service):
    client = own_service.client
    job_id = client.submit(long_job())["id"]
    own_service.at_step(job_id, 100)
    own_service.runner(job_id).kill()
    job = client.wait(job_id, timeout_s=90)
    assert job["status"] == "succeeded"
    first, second = client.attempts(job_id)
    assert first["reason"] in ("driver_lost", "lease_expired")
    assert second["resumed_step"] >= 20
    assert [e["id"] for e in client.encoders()] == [job["encoder_id"]]


def test_stopping_the_service_saves_running_jobs_for_the_next_start(tmp_path):
    home = tmp_path / "home"
    with running(home, settings=NO_STANDBY) as service:
        job_id = service.client.submit(long_job())["id"]
        service.at_step(job_id, 50)
        runner = service.runner(job_id)
    assert not runner.is_running() or runner.status() == psutil.STATUS_ZOMBIE
    with running(home, settings=NO_STANDBY) as service:
        job = service.client.wait(job_id, timeout_s=90)
        assert job["status"] == "succeeded"
        assert service.client.attempts(job_id)[-1]["resumed_step"] >= 50


def test_a_paused_job_goes_on_where_it_was(shared_service):
    client = shared_service.client
    job_id = client.submit(long_job())["id"]
    shared_service.at_step(job_id, 50)
    client.pause(job_id)
    wait_until(lambda: client.job(job_id)["status"] == "paused")
    client.resume(job_id)
    assert client.wait(job_id, timeout_s=90)["status"] == "succeeded"
    assert client.attempts(job_id)[-1]["resumed_step"] >= 50


def demo(spec, root, shown, **options):
    console = Console(file=shown, width=120)
    return run_demo(spec, root, console, keep=False, settings=NO_STANDBY, **options)


def test_the_demo_reports_what_it_measured(tmp_path):
    shown = io.StringIO()
    report = demo(tiny_job(epochs=20), tmp_path / "demo", shown, data_root=None)
    assert json.loads((tmp_path / "demo" / "report.json").read_text()) == asdict(report)
    assert report.probe_trained > 0.5
    content = (tmp_path / "demo" / "encoder" / "encoder.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == report.sha256
    for part in ("trained encoder", "raw pixels", report.encoder_id, "succeeded"):
        assert part in shown.getvalue()
    assert not (tmp_path / "demo" / "home").exists()


def test_a_demo_that_fails_says_why_with_the_end_of_the_log(tmp_path):
    images, labels = np.full((300, 8, 8), np.nan, np.float32), np.arange(300) % 10
    np.savez(tmp_path / "bad.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    spec = {**tiny_job(), "data": {"kind": "arrays", "file": "bad.npz"}}
    with pytest.raises(DemoError, match=r"(?s)failed: .*data_invalid.*The end of its log"):
        demo(spec, tmp_path / "demo", io.StringIO(), data_root=tmp_path)
