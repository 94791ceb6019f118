import os
import signal
import subprocess
import sys
import time

import pytest

from jobs.processes import available_cpus, end_group, is_running, members, start_mark
from jobs.reconciler import ReconcilerSettings

SLEEP = "import time; time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print(1, flush=True); time.sleep(60)"
)
PARENT = (
    "import subprocess, sys, time;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
    "print(child.pid, flush=True);"
)


@pytest.fixture
def start():
    started = []

    def run(code: str, *, own_session: bool = True) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", code], start_new_session=own_session, stdout=subprocess.PIPE
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_until(condition, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_mark_stays_and_ends_with_its_process(start):
    process = start(SLEEP)
    mark = start_mark(process.pid)
    assert mark == start_mark(process.pid)
    assert is_running(process.pid, mark)
    assert not is_running(process.pid, "another boot:1")
    process.kill()
    wait_until(lambda: start_mark(process.pid) is None)  # a zombie, for nobody waited for it
    assert not is_running(process.pid, mark)
    process.wait()
    assert start_mark(process.pid) is None


def test_two_processes_have_different_identities(start):
    one, two = start(SLEEP), start(SLEEP)
    assert (one.pid, start_mark(one.pid)) != (two.pid, start_mark(two.pid))


def test_a_group_ends_with_all_its_members(start):
    process = start(PARENT + SLEEP)
    child = int(process.stdout.readline())
    mark = start_mark(process.pid)
    assert set(members(process.pid)) == {process.pid, child}
    end_group(process.pid, mark, grace_s=5)
    assert members(process.pid) == []
    assert process.wait() == -signal.SIGTERM


def test_a_group_whose_leader_is_gone_still_ends(start):
    process = start(PARENT)
    child = int(process.stdout.readline())
    process.wait()
    assert members(process.pid) == [child]
    end_group(process.pid, "its mark, which nobody can check any more", grace_s=5)
    wait_until(lambda: start_mark(child) is None)


def test_who_ignores_a_request_is_killed_after_the_grace(start):
    process = start(STUBBORN)
    process.stdout.readline()
    before = time.monotonic()
    end_group(process.pid, start_mark(process.pid), grace_s=0.2)
    assert time.monotonic() - before >= 0.2
    assert process.wait() == -signal.SIGKILL


def test_without_a_grace_it_is_killed_at_once(start):
    process = start(SLEEP)
    end_group(process.pid, start_mark(process.pid), grace_s=0)
    assert process.wait() == -signal.SIGKILL


def test_a_process_that_only_has_the_same_number_is_left_alone(start):
    process = start(SLEEP)
    end_group(process.pid, "boot:1", grace_s=0)
    assert process.poll() is None


def test_a_process_that_leads_no_group_is_left_alone(start):
    process = start(SLEEP, own_session=False)
    end_group(process.pid, start_mark(process.pid), grace_s=0)
    assert process.poll() is None
    assert os.getpgid(process.pid) == os.getpgid(0)  # else this test itself would be gone


def test_ending_what_has_ended_does_nothing(start):
    process = start("")
    mark = start_mark(process.pid) or "gone"
    process.wait()
    end_group(process.pid, mark, grace_s=5)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_a_confined_process_counts_only_the_processors_it_may_use():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert available_cpus() == 1
        assert ReconcilerSettings(api_url="http://127.0.0.1:1").num_cpus == 1
    finally:
        os.sched_setaffinity(0, before)
