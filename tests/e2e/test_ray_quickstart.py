"""One job through Ray Train with two workers, as a person would run it."""

import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

import mige
from jobs.data import load_data
from jobs.spec import DigitsDataSpec
from tests.e2e.running_service import running, tiny_job

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(300)]


def test_two_workers_of_ray_train_make_one_encoder_that_can_be_used(tmp_path):
    import torch

    with running(tmp_path / "home") as service:
        client = service.client
        job = client.submit(tiny_job(backend="ray_train", num_workers=2))
        job = client.wait(job["id"], timeout_s=240)
        assert job["status"] == "succeeded", client.logs(job["id"])
        encoder = client.encoder(job["encoder_id"])
        assert encoder["evaluation"]["linear_probe@1"]["trained"] > 0.5
        directory = client.download(job["encoder_id"], tmp_path / "encoder")
        images = load_data(DigitsDataSpec(kind="digits"), None).x_test[:10]
        here = mige.load_encoder(directory).embed(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(client.embed(job["encoder_id"], images), here, atol=1e-5)


def test_an_interrupted_demo_leaves_nothing_running(tmp_path):
    demo = subprocess.Popen(
        [sys.executable, "-P", "-m", "services.demo"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with demo.stdout as output:
        shown = iter(output.readline, "")
        next(line for line in shown if line.startswith("submitted"))
        demo.send_signal(signal.SIGINT)
        rest = list(shown)
    assert demo.wait(100) == 130
    assert rest[-1].startswith("stopped")
    assert [line for line in commands() if str(tmp_path) in line] == []


def commands():
    """The command lines of all processes."""
    for process in psutil.process_iter(["cmdline"]):
        yield " ".join(process.info["cmdline"] or ())
