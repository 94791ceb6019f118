"""The waiting driver, with what it waits for replaced by gates that the test opens."""

import os
import threading
from contextlib import contextmanager

import pytest

from jobs.ray_backend import warm
from jobs.ray_backend.failures import HeadLostError
from jobs.standby import Assignment

LOST = HeadLostError("The head is gone.", "Try again.")


class Group:
    """Stands for the worker group: remembers what it was given."""

    ran: list[object]

    def __init__(self, directory):
        assert directory.is_dir()
        self.ran = Group.ran = []

    def run(self, launch):
        self.ran.append(launch)


@pytest.fixture
def gate(monkeypatch):
    """Open it to let the connection be made; `gate.error` makes it fail instead."""
    gate = threading.Event()
    gate.error = None
    gate.closed = threading.Event()

    @contextmanager
    def connected(home, *, namespace):
        assert gate.wait(20)
        if gate.error is not None:
            raise gate.error
        yield
        gate.closed.set()

    monkeypatch.setattr(warm, "connected", connected)
    monkeypatch.setattr(warm, "WarmGroup", Group)
    monkeypatch.setattr(warm, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(warm, "redirect_output", lambda log_file: None)
    return gate


@pytest.fixture
def pipe():
    receiver, sender = os.pipe()
    yield receiver, sender
    os.close(receiver)


def assign(sender, tmp_path):
    os.write(sender, Assignment(tmp_path / "attempt.json", tmp_path / "log.txt").line())
    os.close(sender)


def test_an_attempt_that_comes_early_is_driven_before_everything_is_ready(gate, pipe, tmp_path):
    receiver, sender = pipe
    assign(sender, tmp_path)

    def drive(attempt_file, run_ray):
        assert attempt_file == tmp_path / "attempt.json"
        gate.set()  # only now: its heartbeats go out while Ray starts
        run_ray("launch")
        return 7

    assert warm.serve(tmp_path, drive, stdin=receiver) == 7
    assert Group.ran == ["launch"]
    assert gate.closed.is_set()


def test_what_kept_it_from_getting_ready_is_raised_while_nobody_waits(gate, pipe, tmp_path):
    receiver, sender = pipe
    gate.error = LOST
    gate.set()
    with pytest.raises(HeadLostError):
        warm.serve(tmp_path, lambda *_: pytest.fail("nobody came"), stdin=receiver)
    os.close(sender)


def test_an_attempt_that_waits_tries_for_itself_if_getting_ready_failed(
    gate, pipe, tmp_path, monkeypatch
):
    receiver, sender = pipe
    tried = []
    monkeypatch.setattr(warm, "run_with_ray_train", tried.append)
    assign(sender, tmp_path)

    def drive(attempt_file, run_ray):
        gate.error = LOST
        gate.set()
        run_ray("launch")
        return 0

    assert warm.serve(tmp_path, drive, stdin=receiver) == 0
    assert tried == ["launch"]


def test_one_that_nobody_needs_any_more_ends(gate, pipe, tmp_path):
    receiver, sender = pipe
    os.close(sender)
    gate.set()
    assert warm.serve(tmp_path, lambda *_: pytest.fail("nobody came"), stdin=receiver) == 0
    assert list((tmp_path / "ray" / "standby").iterdir()) == []
