"""The process as its supervisor starts it: quick, silent about secrets, clear about mistakes."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import httpx2
import pytest

from tests.integration.api_service import SPEC

DEADLINE_S = 30


def environment(home, **more):
    own = {k: v for k, v in os.environ.items() if not k.startswith("MIGE_")}
    return {**own, "MIGE_HOME": str(home), "MIGE_STANDBY": "false", **more}


def start(home, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "services.main"],
        env=environment(home, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_ready(url):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            if httpx2.get(f"{url}/readyz").status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise AssertionError("the service is not ready")


@pytest.mark.slow
def test_it_starts_answers_and_stops_in_order(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = start(tmp_path / "home", MIGE_PORT=str(port), MIGE_RECONCILER="false")
    try:
        wait_ready(url)
        credentials = json.loads((tmp_path / "home" / "credentials.json").read_text())
        headers = {"Authorization": f"Bearer {credentials['api_key']}"}
        assert credentials["url"] == url
        assert httpx2.get(f"{url}/v1/jobs", headers=headers).status_code == 200
        job = httpx2.post(f"{url}/v1/jobs", json=SPEC, headers=headers).json()
        events = url + job["links"]["events"]
        stream = {**headers, "Accept": "text/event-stream"}
        with httpx2.stream("GET", events, headers=stream) as held:  # would go on for ever
            next(held.iter_lines())
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            out, err = process.communicate(timeout=DEADLINE_S)
            assert time.monotonic() - began < 15
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert out.count(credentials["api_key"]) == 1
    assert credentials["api_key"] not in err
    events = [json.loads(line)["event"] for line in err.splitlines()]
    assert events[0] == "service.starting"
    assert events[-1] == "service.stopped"


def refused(home, **more):
    done = subprocess.run(
        [sys.executable, "-m", "services.main"],
        env=environment(home, **more),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (2, "", 1), done.stderr
    return lines[0]


@pytest.mark.slow
def test_a_busy_port_a_misspelt_setting_and_a_bad_home_are_told_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        line = refused(tmp_path / "home", MIGE_PORT=str(other.getsockname()[1]))
    assert "is in use by another program. Stop that program, or choose" in line
    assert "MIGE_PORT" in line
    line = refused(tmp_path / "home", MIGE_DATAROOT="x")
    assert "MIGE_DATAROOT is not a setting. Did you mean MIGE_DATA_ROOT?" in line
    (tmp_path / "file").write_text("")
    assert "set MIGE_HOME to another folder" in refused(tmp_path / "file" / "home", MIGE_PORT="0")
    assert "mige keys create" in refused(tmp_path / "home", MIGE_HOST="0.0.0.0", MIGE_PORT="0")


def test_the_api_process_imports_neither_ray_nor_torch(tmp_path):
    code = (
        "import sys, services.main, services.app\n"
        "heavy = {'torch', 'ray', 'sklearn', 'torchvision', 'pandas', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="sets the limits of another process")
def test_it_ends_when_its_database_cannot_be_written_any_more(tmp_path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    process = start(tmp_path / "home", MIGE_PORT=str(port), MIGE_RECONCILER="false")
    try:
        wait_ready(url)
        credentials = json.loads((tmp_path / "home" / "credentials.json").read_text())
        headers = {"Authorization": f"Bearer {credentials['api_key']}"}
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, 1))  # a write fails: not ENOSPC
        answer = httpx2.post(f"{url}/v1/jobs", json=SPEC, headers=headers, timeout=DEADLINE_S)
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 1  # its supervisor starts another one
    assert "database.broken" in out + err
