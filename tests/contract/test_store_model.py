"""Every state that one job can reach, by the very SQL of the store.

One job; two dispatchers; attempts that never forget that they were attempts (zombies), and keep
asking; a crash before or after every commit; a user who may cancel, pause and resume; up to three
attempts. From every state every action is tried, and after each one the promises are checked. Then
the same search runs over stores with one guard taken out: each of them must be caught.

A crash before a commit leaves the old state, which the search visits anyway. A crash after a commit
loses only the answer: so an action may always be repeated by someone who does not know, which is
what "never forget" means here. What the crash of a *publish* between its steps leaves is an object
without a reference: see the tests of the collector.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError

from jobs.database import migrate, writer_engine
from jobs.errors import JobError, StaleFenceError
from jobs.spec import DigitsDataSpec, JobSpec, MigeInfomaxSpec, MLPEncoderSpec
from jobs.states import DesiredState, JobState, Phase, Reason
from jobs.store import attempts, leases, publish, requests, submit
from jobs.wire import Exit, Manifest, ManifestFile
from jobs.writer import Transaction

ATTEMPTS = 3
MANIFEST = Manifest(files=(ManifestFile(path="config.json", size_bytes=1, sha256="0" * 64),))
LOST = Exit(exit_code=-9, reason=Reason.DRIVER_LOST, message="killed")
BROKEN = Exit(exit_code=20, reason=Reason.NAN_LOSS, message="diverged")
SILENT = Exit(exit_code=-1, reason=Reason.LEASE_EXPIRED, message="silent")

# What is told apart. Heartbeats are counted only as far as an expiry can see them: moved or not.
STATE = (
    "SELECT state, desired_state, fence, failures, encoder_id IS NOT NULL, owner, phase FROM jobs"
)
ACTIVE = "SELECT fence FROM attempts WHERE state = 'active' ORDER BY fence"
ENCODERS = "SELECT fence FROM encoders ORDER BY id"


@dataclass
class Search:
    """What the search found: states, transitions, and broken promises by name."""

    until: str | None = None
    states: set = field(default_factory=set)
    transitions: int = 0
    broken: dict[str, int] = field(default_factory=dict)

    def blame(self, promise: str) -> None:
        self.broken[promise] = self.broken.get(promise, 0) + 1

    @property
    def is_over(self) -> bool:
        return self.until in self.broken


@dataclass(frozen=True)
class Action:
    """Something that somebody may do at any time. `fence`: the attempt that speaks, if one does."""

    name: str
    run: Callable
    fence: int | None = None


def actions(job_id: str) -> list[Action]:
    found = [
        Action("claim by A", lambda tx: leases.claim(tx, job_id, owner="A")),
        Action("claim by B", lambda tx: leases.claim(tx, job_id, owner="B")),
    ]
    for desired in DesiredState:

        def ask(tx, desired=desired):
            return requests.request(tx, job_id, desired, project="p", actor="me")

        found.append(Action(f"ask {desired}", ask))
    for fence in range(1, ATTEMPTS + 1):
        found += [Action(*spoken) for spoken in _of_attempt(job_id, fence)]
    return found


def _of_attempt(job_id: str, fence: int) -> Iterator[tuple[str, Callable, int]]:
    yield "heartbeat", lambda tx: attempts.heartbeat(tx, job_id, fence, Phase.TRAINING), fence
    yield "finalize", lambda tx: attempts.begin_finalize(tx, job_id, fence), fence
    yield "publish", lambda tx: publish.publish(tx, job_id, fence, MANIFEST, {}), fence
    yield "end lost", lambda tx: leases.end(tx, job_id, fence, LOST), fence
    yield "end broken", lambda tx: leases.end(tx, job_id, fence, BROKEN), fence
    yield "expire", lambda tx: leases.expire(tx, job_id, fence, _hb_seq(tx, job_id), SILENT), fence
    yield "expire late", lambda tx: leases.expire(tx, job_id, fence, 0, SILENT), fence


def _hb_seq(tx: Transaction, job_id: str) -> int:
    rows = tx.connection.exec_driver_sql("SELECT hb_seq FROM jobs WHERE id = ?", (job_id,))
    return int(rows.scalar())


@dataclass
class Mutant:
    """During the actions that begin with `action`, each `pattern` in a statement is replaced."""

    action: str
    pattern: str
    replacement: str
    hits: int = 0

    def rewrite(self, acting: list[str], statement: str) -> str:
        if not acting[-1].startswith(self.action):
            return statement
        changed, hits = re.subn(self.pattern, self.replacement, statement)
        self.hits += hits
        return changed


def explore(tmp_path, *, mutant: Mutant | None = None, until: str | None = None) -> Search:
    """Visit every state; with `until`, only until that promise is broken."""
    engine = writer_engine(tmp_path / "model.db")
    migrate(engine)
    search = Search(until)
    with engine.connect() as connection:
        connection.begin()
        job = submit.submit(
            Transaction(connection),
            JobSpec(
                objective=MigeInfomaxSpec(kind="mige_infomax"),
                encoder=MLPEncoderSpec(kind="mlp"),
                data=DigitsDataSpec(kind="digits"),
            ),
            project="p",
            actor="me",
            idempotency_key=None,
            fingerprint=None,
            max_queued=1,
        ).job
        walk = Walk(connection, search, actions(job.id))
        if mutant is not None:

            def rewrite(_connection, _cursor, statement, parameters, _context, _many):
                return mutant.rewrite(walk.acting, statement), parameters

            event.listen(engine, "before_cursor_execute", rewrite, retval=True)
        walk.from_here(cancelled=False)
        connection.rollback()
    engine.dispose()
    return search


class Walk:
    """Depth first, a savepoint a step: going back is a rollback."""

    def __init__(self, connection, search: Search, every: list[Action]) -> None:
        self.connection, self.search, self.actions = connection, search, every
        self.acting = [""]  # the action that is being tried

    def from_here(self, *, cancelled: bool) -> None:
        here = (self.view(), cancelled)
        if here in self.search.states:
            return
        self.search.states.add(here)
        for action in self.actions:
            if self.search.is_over:
                return
            savepoint = self.connection.begin_nested()
            accepted = self.act(action, here[0])
            if accepted is not None:
                cancelled_now = cancelled or (accepted and action.name == "ask cancelled")
                self.check(cancelled_now)
                self.from_here(cancelled=cancelled_now)
            savepoint.rollback()

    def view(self) -> tuple:
        def rows(query):
            return tuple(map(tuple, self.connection.exec_driver_sql(query)))

        return rows(STATE), rows(ACTIVE), rows(ENCODERS)

    def act(self, action: Action, before: tuple) -> bool | None:
        """Try it; whether it was accepted. None: refused, and the savepoint undoes all of it."""
        ((_, _, fence, *_),), active, _ = before
        if action.name.startswith("claim") and fence >= ATTEMPTS:
            return None
        # A back-off ends some time; the search does not wait.
        self.connection.exec_driver_sql("UPDATE jobs SET not_before = NULL WHERE owner IS NULL")
        self.search.transitions += 1
        is_zombie = action.fence is not None and (action.fence,) not in active
        self.acting[-1] = action.name
        try:
            answer = action.run(Transaction(self.connection))
        except JobError as error:
            if is_zombie and not isinstance(error, StaleFenceError):
                self.search.blame("a zombie is told that it is one")
            return None
        except IntegrityError:
            self.search.blame("the code never runs into a constraint")
            return None
        finally:
            self.acting[-1] = ""
        if is_zombie:
            self.search.blame("a zombie is never told OK")
        if action.name == "expire late":
            self.search.blame("an attempt that spoke is never expired")
        return answer is not None or action.fence is not None

    def check(self, cancelled: bool) -> None:
        """The promises, looked up in the rows."""
        ((state, _, fence, _, has_encoder, owner, _),), active, encoders = self.view()
        is_active = JobState(state).is_active
        promises = {
            "at most one attempt is active": len(active) <= 1,
            "the active attempt is the newest one": active in ((), ((fence,),)),
            "an active job has an active attempt, no other job has": is_active == bool(active),
            "an active job has an owner, no other job has": is_active == (owner is not None),
            "exactly one encoder, exactly if succeeded": (state == JobState.SUCCEEDED)
            == (len(encoders) == 1)
            and len(encoders) <= 1,
            "a succeeded job names its encoder": has_encoder == (len(encoders) == 1),
            "an accepted cancel never ends in success": not (
                cancelled and state == JobState.SUCCEEDED
            ),
        }
        for promise, holds in promises.items():
            if not holds:
                self.search.blame(promise)


# --- stores with one guard taken out ------------------------------------------------------------


ANY_FENCE = (r"(?<=AND )(jobs|attempts)\.fence = \?", r"(\1.fence = ? OR 1)")
ZOMBIE, LATE = "a zombie is never told OK", "an attempt that spoke is never expired"
CANCEL, ENDED = (
    "an accepted cancel never ends in success",
    "an active job has an active attempt, no other job has",
)


@pytest.mark.parametrize(
    ("mutant", "promise"),
    [
        (Mutant("publish", *ANY_FENCE), ZOMBIE),
        (Mutant("end", *ANY_FENCE), ZOMBIE),
        (Mutant("expire", *ANY_FENCE), ZOMBIE),
        (Mutant("heartbeat", *ANY_FENCE), ZOMBIE),
        (Mutant("expire late", r"jobs\.hb_seq = \?", "(jobs.hb_seq = ? OR 1)"), LATE),
        (Mutant("end", r"(?s)(UPDATE attempts .*)WHERE", r"\1WHERE 0 AND"), ENDED),
        (Mutant("finalize", r"jobs\.desired_state = \?", "(jobs.desired_state = ? OR 1)"), CANCEL),
    ],
    ids=[
        "publish without fence",
        "end without fence",
        "expire without fence",
        "heartbeat without fence",
        "expire ignoring heartbeats",
        "attempt not closed",
        "finalize ignoring cancel",
    ],
)
def test_a_store_without_one_guard_is_caught(tmp_path, mutant, promise):
    search = explore(tmp_path, mutant=mutant, until=promise)
    assert mutant.hits > 0
    assert promise in search.broken


def test_a_store_that_accepts_a_cancel_while_finalizing_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "_STOPPABLE", requests._STOPPABLE | {JobState.FINALIZING})
    assert CANCEL in explore(tmp_path, until=CANCEL).broken


@pytest.mark.slow
def test_every_reachable_state_keeps_every_promise(tmp_path):
    search = explore(tmp_path)
    assert search.broken == {}
    seen = {JobState(rows[0][0]) for (rows, _, _), _ in search.states}
    assert seen == set(JobState)
    assert len(search.states) >= 60
    assert search.transitions >= 1500
