import errno
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.failpoints import FAILPOINTS, FailpointError, fp

ROOT = Path(__file__).parents[3]
SELF = Path(__file__)


def test_an_unarmed_point_does_nothing(monkeypatch):
    monkeypatch.delenv("FAILPOINTS", raising=False)
    fp("claim.before_commit")
    monkeypatch.setenv("FAILPOINTS", "submit.before_commit=raise")
    fp("claim.before_commit")


@pytest.mark.parametrize(
    ("action", "error"), [("raise", FailpointError), ("enospc", OSError), ("eio", OSError)]
)
def test_an_armed_point_raises_what_it_is_told(monkeypatch, action, error):
    monkeypatch.setenv("FAILPOINTS", f"gc.mid=delay:0, claim.before_commit={action}")
    with pytest.raises(error) as raised:
        fp("claim.before_commit")
    if error is OSError:
        assert raised.value.errno == {"enospc": errno.ENOSPC, "eio": errno.EIO}[action]


def test_a_delay_takes_that_long(monkeypatch):
    monkeypatch.setenv("FAILPOINTS", "gc.mid=delay:30")
    before = time.monotonic()
    fp("gc.mid")
    assert time.monotonic() - before >= 0.03


@pytest.mark.parametrize(("action", "status"), [("kill", -9), ("exit", 70)])
def test_an_armed_point_ends_the_process(action, status):
    code = "from jobs.failpoints import fp; fp('gc.mid')"
    environment = {"FAILPOINTS": f"gc.mid={action}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, check=False)
    assert done.returncode == status


@pytest.mark.parametrize("armed", ["no.such_point=kill", "gc.mid=explode"])
def test_a_misspelt_point_or_action_is_refused(monkeypatch, armed):
    monkeypatch.setenv("FAILPOINTS", armed)
    with pytest.raises(ValueError, match="FAILPOINTS"):
        fp("gc.mid")


def test_every_declared_point_is_placed_once_and_every_placed_point_is_declared():
    sources = [p.read_text() for p in (ROOT / "jobs").rglob("*.py")]
    placed = [name for text in sources for name in re.findall(r'\bfp\(\s*"([a-z_.]+)"', text)]
    assert sorted(placed) == sorted(FAILPOINTS)


def test_every_declared_point_is_used_by_a_test():
    texts = [p.read_text() for p in (ROOT / "tests").rglob("*.py") if p != SELF]
    unused = [name for name in FAILPOINTS if not any(name in text for text in texts)]
    assert unused == []
