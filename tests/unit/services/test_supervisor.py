"""The supervisor against real processes: a small stand-in for the API, and for runners."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from jobs.errors import SettingsError
from jobs.processes import start_mark
from jobs.run_directory import RunDirectory
from services.api_process import api_pid, end_orphan
from services.home_lock import home_lock
from services.supervisor import Backoff, ServeOptions, Supervisor

DRIVER = """
import sys
from pathlib import Path
from services.supervisor import ServeOptions, Supervisor

def say(text):
    print(text, flush=True)

home, port, api = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
options = ServeOptions(
    home=home, host="127.0.0.1", port=port, environment={"PORT": str(port)},
    command=(sys.executable, "-c", api), api_grace_s=30.0, runner_grace_s=1.0,
)
sys.exit(Supervisor(options, say=say, stop_cluster=lambda: say("cluster stopped")).run())
"""

API = """
import http.server, os

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass

http.server.HTTPServer.allow_reuse_address = True
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Ready).serve_forever()
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return result


def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


class Served:
    """A supervisor in a process of its own."""

    def __init__(self, home, port=None, api=API):
        self.home, self.port = home, port or free_port()
        home.mkdir(exist_ok=True)
        self.output = home / "output.txt"
        with self.output.open("ab") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-c", DRIVER, str(home), str(self.port), api],
                stdout=sink,
                stderr=sink,
                cwd=Path(__file__).parents[3],
            )

    def said(self, text, times=1):
        return self.output.read_text().count(text) >= times

    def api(self):
        return psutil.Process(api_pid(self.home))

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(10)


@pytest.fixture
def serve(tmp_path):
    started = []

    def start(**options):
        started.append(Served(tmp_path / "home", **options))
        return started[-1]

    yield start
    for served in started:
        if served.process.poll() is None:
            served.process.kill()
            served.process.wait()
        end_orphan(served.home, 0.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything_in_order(serve, number):
    served = serve()
    wait_until(lambda: served.said("mige is ready"))
    api = served.api()
    assert served.stop(number) == 0
    assert gone(api)
    assert served.said("cluster stopped")


def test_an_api_process_that_is_killed_is_back_within_three_seconds(serve):
    served = serve()
    wait_until(lambda: served.said("mige is ready"))
    first = served.api()
    killed = time.monotonic()
    first.kill()
    wait_until(lambda: served.said("ready again"))
    assert time.monotonic() - killed < 20.0
    assert served.api().pid != first.pid
    assert served.said("killed by SIGKILL")


def test_an_api_process_that_cannot_work_is_not_started_again(serve):
    served = serve(api="import sys; sys.exit(2)")
    assert served.process.wait(10) == 2
    assert not served.said("starting it again")
    assert served.said("cluster stopped")


def test_an_api_process_that_ignores_the_end_is_killed(serve):
    served = serve(api="import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + API)
    wait_until(lambda: served.said("mige is ready"))
    api = served.api()
    served.process.send_signal(signal.SIGINT)
    wait_until(lambda: served.said("stopping"))
    served.process.send_signal(signal.SIGINT)  # impatience: no grace
    assert served.process.wait(5) == 0
    assert gone(api)


def test_the_api_process_of_a_killed_supervisor_is_ended_by_the_next(serve):
    served = serve()
    wait_until(lambda: served.said("mige is ready"))
    orphan = served.api()
    served.process.kill()
    served.process.wait()
    assert orphan.is_running()
    again = serve(port=served.port)
    wait_until(lambda: again.said("mige is ready", times=2))
    assert again.said(f"ended the API process {orphan.pid}")
    assert gone(orphan)


def test_running_attempts_are_told_to_save_their_state(serve):
    served = serve()
    wait_until(lambda: served.said("mige is ready"))
    saved = served.home / "saved"
    runner = start_runner(
        served.home,
        f"import pathlib; signal.sigwait([signal.SIGTERM])\npathlib.Path({str(saved)!r}).touch()",
    )
    assert served.stop() == 0
    assert saved.exists()
    assert runner.wait(5) == 0
    assert served.said("saving the state of 1 running job")


def start_runner(home, code):
    """A stand-in for a runner that blocks SIGTERM before it is recorded."""
    run = RunDirectory(home / "storage", "job_1", 1)
    run.root.mkdir(parents=True)
    block = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
    ready = "print('ready', flush=True)\n"
    runner = subprocess.Popen(
        [sys.executable, "-c", block + ready + code], stdout=subprocess.PIPE, start_new_session=True
    )
    assert runner.stdout.readline() == b"ready\n"
    runner.stdout.close()
    run.attempt_file.touch()
    record = {"pid": runner.pid, "mark": start_mark(runner.pid)}
    run.process_file.write_text(json.dumps(record))
    return runner


def test_a_runner_that_does_not_save_in_time_is_killed(serve):
    served = serve()
    wait_until(lambda: served.said("mige is ready"))
    runner = start_runner(served.home, "import time; time.sleep(60)")
    assert served.stop() == 0
    assert runner.wait(5) == -signal.SIGKILL


def test_a_process_that_only_has_the_pid_of_an_api_process_is_left_alone(serve, tmp_path):
    bystander = subprocess.Popen(["sleep", "60"])
    home = tmp_path / "home"
    home.mkdir()
    state = {"pid": bystander.pid, "mark": "another boot:1"}
    (home / "api.json").write_text(json.dumps(state))
    assert api_pid(home) is None
    served = serve()
    wait_until(lambda: served.said("mige is ready"))
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"pid": 1, "mark": null}'])
def test_a_damaged_record_names_no_process(tmp_path, text):
    (tmp_path / "api.json").write_text(text)
    assert api_pid(tmp_path) is None


def test_a_home_has_one_supervisor_and_the_second_is_told_who_it_is(tmp_path):
    with (
        home_lock(tmp_path, "http://127.0.0.1:1"),
        pytest.raises(SettingsError, match=rf"pid {os.getpid()}, http://127\.0\.0\.1:1"),
        home_lock(tmp_path, "http://127.0.0.1:2"),
    ):
        pass
    with home_lock(tmp_path, "http://127.0.0.1:2"):
        pass


def test_a_home_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(SettingsError, match=r"cannot be written.*--home"),
        home_lock(tmp_path / "file" / "home", "http://127.0.0.1:1"),
    ):
        pass


def test_a_taken_port_is_told_before_anything_starts(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        options = ServeOptions(
            home=tmp_path, host="127.0.0.1", port=taken.getsockname()[1], command=("false",)
        )
        with pytest.raises(SettingsError, match="--port"):
            Supervisor(options, say=lambda _: None, stop_cluster=lambda: None).run()
    assert not (tmp_path / "api.json").exists()


def test_the_first_death_costs_no_wait_and_later_ones_more_and_more():
    backoff = Backoff()
    waits = [backoff.after_death(1.0) for _ in range(9)]
    assert waits == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, None]


def test_a_process_that_lived_long_is_started_again_at_once_however_often_it_dies():
    backoff = Backoff()
    assert [backoff.after_death(60.0) for _ in range(20)] == [0.0] * 20
