"""The head seen from outside, without Ray: state, locking, stale processes, the environment."""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest

from jobs.errors import SettingsError
from jobs.processes import start_mark
from jobs.ray_backend import head as head_module
from jobs.ray_backend import keeper as keeper_module
from jobs.ray_backend.environment import driver_settings, head_environment
from jobs.ray_backend.failures import HeadLostError
from jobs.ray_backend.head import HeadState, RayHead, write_state
from jobs.ray_backend.keeper import KeeperOptions, prune_logs
from jobs.ray_backend.users import UserRegistry


@pytest.fixture
def sleeper():
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = subprocess.Popen(command, start_new_session=True)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def fake_keeper(monkeypatch):
    """Stands in for the keeper: publishes a state that names `process`, or fails."""

    class Fake:
        def __init__(self):
            self.starts = 0
            self.state = None
            self.returncode = 0
            self.temp_dirs = set()

        def run(self, command, *, env, stdout, **_):
            self.starts += 1
            self.command, self.env = command, env
            options = KeeperOptions.parse(command[4:])
            self.temp_dirs.add(options.temp_dir)
            if self.state is not None:
                write_state(options.root, self.state)
            stdout.write("ray said this")
            stdout.flush()
            return subprocess.CompletedProcess(command, self.returncode)

    fake = Fake()
    monkeypatch.setattr(head_module.subprocess, "run", fake.run)
    yield fake
    for temp_dir in fake.temp_dirs:
        shutil.rmtree(temp_dir, ignore_errors=True)  # it lies outside tmp_path


def state_of(process, address, temp_dir="unused"):
    return HeadState(address, process.pid, start_mark(process.pid), str(temp_dir))


def test_a_head_that_answers_is_started_once(tmp_path, fake_keeper, sleeper, listener):
    fake_keeper.state = state_of(sleeper, listener)
    first = RayHead(tmp_path).ensure()
    assert first.address == listener
    assert RayHead(tmp_path).ensure() == first
    assert fake_keeper.starts == 1


def test_a_head_whose_keeper_died_is_replaced(tmp_path, fake_keeper, sleeper, listener):
    fake_keeper.state = HeadState(listener, 2**22 - 1, "mark", "unused")  # no such process
    RayHead(tmp_path).ensure()
    assert RayHead(tmp_path).status() is None
    fake_keeper.state = state_of(sleeper, listener)
    RayHead(tmp_path).ensure()
    assert fake_keeper.starts == 2
    assert RayHead(tmp_path).status() == fake_keeper.state


def test_a_head_that_does_not_answer_is_ended_and_replaced(tmp_path, fake_keeper, sleeper):
    fake_keeper.state = state_of(sleeper, "127.0.0.1:1")
    RayHead(tmp_path).ensure()
    RayHead(tmp_path).ensure()
    assert fake_keeper.starts == 2
    assert sleeper.wait(timeout=5) == -15


def test_a_head_that_is_ending_is_waited_for_and_replaced(tmp_path, fake_keeper, sleeper):
    fake_keeper.state = state_of(sleeper, "")
    RayHead(tmp_path).ensure()
    RayHead(tmp_path).ensure()
    assert fake_keeper.starts == 2
    assert sleeper.wait(timeout=5) == -15


def test_a_keeper_says_that_it_is_ending_until_its_files_are_gone(tmp_path, monkeypatch):
    temp_dir = tmp_path / "temp"
    temp_dir.mkdir()
    seen = {}

    def shut_down():
        seen["address"] = json.loads((tmp_path / "head.json").read_text())["address"]
        seen["files"] = temp_dir.is_dir()

    context = SimpleNamespace(gcs_address="127.0.0.1:1")
    monkeypatch.setattr("ray.init", lambda **_: None)
    monkeypatch.setattr("ray.get_runtime_context", lambda: context)
    monkeypatch.setattr("ray.shutdown", shut_down)
    monkeypatch.setattr("jobs.ray_backend.exposure.check_listeners", lambda: None)
    monkeypatch.setattr("jobs.ray_backend.exposure.check_token_is_asked", lambda _: None)
    monkeypatch.setattr(keeper_module.signal, "signal", lambda *_: None)
    monkeypatch.setattr(keeper_module, "_watch", lambda *_: None)
    receiver, sender = os.pipe()
    lock = os.open(tmp_path, os.O_RDONLY)
    keeper_module._keep(KeeperOptions(tmp_path, temp_dir, 1, 1.0, 1.0, lock), sender)
    assert os.read(receiver, 9) == b"0"
    os.close(receiver)
    assert seen == {"address": "", "files": True}
    assert not temp_dir.exists()
    assert not (tmp_path / "head.json").exists()


def test_another_process_with_the_keepers_number_is_left_alone(tmp_path, sleeper, listener):
    state = HeadState(listener, sleeper.pid, "an older mark", "unused")
    (tmp_path / "ray").mkdir()
    write_state(tmp_path / "ray", state)
    assert RayHead(tmp_path).status() is None
    RayHead(tmp_path).stop()
    assert sleeper.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_a_torn_state_file_means_no_head(tmp_path, text):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "head.json").write_text(text)
    assert RayHead(tmp_path).status() is None


def test_stopping_ends_the_keeper_and_removes_what_it_left(
    tmp_path, fake_keeper, sleeper, listener
):
    head = RayHead(tmp_path)
    fake_keeper.state = state_of(sleeper, listener)
    head.ensure()
    assert head.temp_dir.is_dir()
    head.stop()
    assert sleeper.wait(timeout=5) == -15
    assert head.status() is None
    assert not head.temp_dir.exists()
    assert not (tmp_path / "ray" / "head.json").exists()
    head.stop()  # again: nothing to do


@pytest.mark.parametrize(("status", "kind"), [(1, HeadLostError), (3, SettingsError)])
def test_a_head_that_cannot_be_had_says_what_its_log_says(tmp_path, fake_keeper, status, kind):
    fake_keeper.returncode = status
    with pytest.raises(kind, match="ray said this") as caught:
        RayHead(tmp_path).ensure()
    assert "inline" in caught.value.remedy
    assert caught.value.retryable == (kind is HeadLostError)


def test_token_and_state_can_be_read_by_their_owner_only(tmp_path, fake_keeper, sleeper, listener):
    fake_keeper.state = state_of(sleeper, listener)
    address = RayHead(tmp_path).ensure()
    token = address.token_file.read_text()
    assert len(token) == 64
    for path in (address.token_file, tmp_path / "ray" / "head.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ray").stat().st_mode) == 0o700
    RayHead(tmp_path).stop()
    RayHead(tmp_path).ensure()
    assert address.token_file.read_text() == token


def test_a_temporary_directory_that_others_prepared_is_refused(tmp_path, fake_keeper, monkeypatch):
    monkeypatch.setattr(head_module.tempfile, "gettempdir", lambda: "/tmp")
    head = RayHead(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    head.temp_dir.symlink_to(elsewhere)
    try:
        with pytest.raises(SettingsError, match="not a directory of this user alone"):
            head.ensure()
    finally:
        head.temp_dir.unlink()
    assert fake_keeper.starts == 0


def test_a_long_temporary_directory_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(head_module.tempfile, "gettempdir", lambda: "/var/" + "x" * 60)
    assert len(str(RayHead(tmp_path).temp_dir / "r")) + 66 <= 103


def test_two_homes_have_two_temporary_directories(tmp_path):
    assert RayHead(tmp_path / "a").temp_dir != RayHead(tmp_path / "b").temp_dir


def test_the_head_inherits_no_secret(tmp_path):
    base = {"PATH": "/bin", "LC_ALL": "C", "MIGE_API_KEY": "secret", "AWS_SECRET_KEY": "secret"}
    environment = head_environment(tmp_path / "token", base)
    assert "secret" not in environment.values()
    assert environment["PATH"] == "/bin"
    assert environment["LC_ALL"] == "C"


@pytest.mark.parametrize("settings", [head_environment, lambda token, _: driver_settings(token)])
def test_head_and_driver_ask_for_the_token(tmp_path, settings):
    environment = settings(tmp_path / "token", {})
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN_PATH"] == str(tmp_path / "token")
    assert environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"


def test_only_living_users_are_counted(tmp_path, sleeper):
    registry = UserRegistry(tmp_path)
    registry.add_self()
    registry.add_self()
    (tmp_path / "users" / str(sleeper.pid)).write_text("an older mark")
    assert registry.living() == 1
    assert [entry.name for entry in (tmp_path / "users").iterdir()] == [str(os.getpid())]


def test_the_oldest_silent_logs_are_removed_first(tmp_path):
    logs = tmp_path / "session_2026" / "logs"
    logs.mkdir(parents=True)
    for name, age in (("old", 3000), ("older", 4000), ("new", 0)):
        (logs / name).write_bytes(b"x" * 100)
        modified = (logs / name).stat().st_mtime - age
        os.utime(logs / name, (modified, modified))
    prune_logs(tmp_path, limit_bytes=200, idle_s=600)
    assert sorted(p.name for p in logs.iterdir()) == ["new", "old"]
    prune_logs(tmp_path, limit_bytes=0, idle_s=600)
    assert [p.name for p in logs.iterdir()] == ["new"]  # somebody still writes to it


def test_the_state_survives_the_trip_through_its_file(tmp_path):
    state = HeadState("127.0.0.1:1", 7, "mark", "/tmp/x")
    write_state(tmp_path, state)
    assert HeadState(**json.loads((tmp_path / "head.json").read_text())) == state
