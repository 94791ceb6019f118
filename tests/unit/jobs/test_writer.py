import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from jobs import writer as writer_module
from jobs.database import migrate, reader_engine, writer_engine
from jobs.errors import JobError, StorageFullError, StorageUnavailableError
from jobs.store import open_store
from jobs.writer import Writer

ROOT = Path(__file__).parents[3]


@pytest.fixture
def commits():
    return []


@pytest.fixture
def writer(tmp_path, commits):
    engine = writer_engine(tmp_path / "a.db")
    event.listen(engine, "commit", lambda _connection: commits.append("commit"))
    writer = Writer(
        engine,
        on_commit=lambda ids, q: commits.append((sorted(ids), q)),
        on_broken=commits.append,
    )
    writer.run(lambda tx: tx.connection.exec_driver_sql("CREATE TABLE t (a UNIQUE)").close())
    commits.clear()
    yield writer
    writer.close()
    engine.dispose()


def insert(value):
    def work(tx):
        tx.connection.exec_driver_sql("INSERT INTO t VALUES (?)", (value,))
        tx.touch(str(value), queue=value == 1)
        return value

    return work


def rows(writer) -> list:
    return writer.run(
        lambda tx: [a for (a,) in tx.connection.exec_driver_sql("SELECT a FROM t ORDER BY a")]
    )


def hold(writer) -> tuple[threading.Event, threading.Thread]:
    """Keep the writer busy until the event is set."""
    begun, go_on = threading.Event(), threading.Event()

    def work(tx):
        begun.set()
        go_on.wait(30)

    thread = threading.Thread(target=writer.run, args=(work,))
    thread.start()
    assert begun.wait(30)
    return go_on, thread


def run_all(writer, works) -> list:
    """Send all while the writer is busy with something else, so that they share a batch."""
    go_on, thread = hold(writer)
    results = [None] * len(works)

    def one(i):
        try:
            results[i] = writer.run(works[i])
        except (LookupError, JobError, SQLAlchemyError) as error:
            results[i] = error

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(works))]
    for t in threads:
        t.start()
    while writer._requests.qsize() < len(works):
        pass
    go_on.set()
    for t in (*threads, thread):
        t.join()
    return results


def test_what_waits_together_is_committed_together_before_anyone_is_answered(writer, commits):
    assert run_all(writer, [insert(i) for i in range(20)]) == list(range(20))
    # One for the request that held the writer, one for all the others.
    assert commits == ["commit", "commit", (sorted(map(str, range(20))), True)]


def test_a_request_that_raises_undoes_only_itself(writer):
    def bad(tx):
        insert(99)(tx)
        raise LookupError("mine")

    results = run_all(writer, [insert(1), bad, insert(2)])
    assert (results[0], results[2]) == (1, 2)
    assert isinstance(results[1], LookupError)
    assert rows(writer) == [1, 2]


def test_a_statement_that_the_database_refuses_harms_nobody_else(writer):
    results = run_all(writer, [insert(1), insert(1), insert(2)])
    assert sorted(str(r) for r in results if not isinstance(r, Exception)) == ["1", "2"]
    assert len([r for r in results if isinstance(r, Exception)]) == 1
    assert rows(writer) == [1, 2]


def test_a_full_disk_refuses_what_does_not_fit_and_keeps_the_rest(writer):
    pages = writer.run(lambda tx: tx.connection.exec_driver_sql("PRAGMA page_count").scalar())
    writer.run(
        lambda tx: tx.connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}").close()
    )
    results = run_all(writer, [insert("small"), insert("x" * 50_000)])
    assert results[0] == "small"
    assert isinstance(results[1], StorageFullError)
    writer.run(lambda tx: tx.connection.exec_driver_sql("PRAGMA max_page_count=100000").close())
    assert writer.run(insert("x" * 50_000))  # room again: it goes on by itself
    assert len(rows(writer)) == 2


def test_a_database_that_another_process_holds_is_unavailable_for_now(tmp_path, monkeypatch):
    monkeypatch.setattr("jobs.database.BUSY_TIMEOUT_MS", 200)
    engine, other = writer_engine(tmp_path / "a.db"), writer_engine(tmp_path / "a.db")
    writer = Writer(engine, on_commit=lambda ids, q: None, on_broken=pytest.fail)

    def refused(_):
        with pytest.raises(StorageUnavailableError, match="another process"):
            writer.run(lambda tx: None)

    with other.begin(), ThreadPoolExecutor(20) as pool:
        started = time.monotonic()
        list(pool.map(refused, range(20)))
        assert time.monotonic() - started < 10 * 0.2  # busy for one of a batch is busy for all
    assert writer.run(lambda tx: "again") == "again"
    assert writer.broken is None
    writer.close()
    engine.dispose()
    other.dispose()


def test_a_request_that_waited_too_long_is_not_begun_later(writer):
    go_on, thread = hold(writer)
    with pytest.raises(StorageUnavailableError, match="did not answer"):
        writer.run(insert(1), timeout_s=0.05)
    go_on.set()
    thread.join()
    assert rows(writer) == []


def test_a_queue_that_is_full_refuses_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "_WAITING", 1)
    engine = writer_engine(tmp_path / "a.db")
    writer = Writer(engine, on_commit=lambda ids, q: None, on_broken=pytest.fail)
    go_on, thread = hold(writer)
    waiting = threading.Thread(target=writer.run, args=(lambda tx: None,))
    waiting.start()
    while not writer._requests.full():
        pass
    with pytest.raises(StorageUnavailableError):
        writer.run(lambda tx: None, timeout_s=0.05)
    go_on.set()
    waiting.join()
    thread.join()
    writer.close()
    engine.dispose()


def test_a_failed_sync_breaks_the_writer_until_the_next_start(writer, commits, monkeypatch):
    class SyncError(Exception):
        sqlite_errorcode = 10 | (4 << 8)  # SQLITE_IOERR_FSYNC

    def fail(*_):
        raise writer_module.DBAPIError("COMMIT", None, SyncError())

    monkeypatch.setattr(writer_module, "_run_batch", fail)
    with pytest.raises(StorageUnavailableError):
        writer.run(insert(1))
    monkeypatch.undo()
    assert commits == [writer.broken]  # and whoever opened it was told
    with pytest.raises(StorageUnavailableError, match="synced"):
        writer.run(insert(2))


def test_a_closed_writer_has_finished_what_waited_and_takes_no_more(tmp_path):
    engine = writer_engine(tmp_path / "a.db")
    migrate(engine)
    writer = Writer(engine, on_commit=lambda ids, q: None, on_broken=pytest.fail)
    go_on, thread = hold(writer)
    answers = []
    late = threading.Thread(target=lambda: answers.append(writer.run(lambda tx: "done")))
    late.start()
    while writer._requests.empty():
        pass
    go_on.set()
    writer.close()
    late.join()
    thread.join()
    assert answers == ["done"]
    with pytest.raises(StorageUnavailableError, match="closed"):
        writer.run(lambda tx: None)
    writer.close()
    engine.dispose()


SUBMITTER = r"""
import os, sys, threading
from pathlib import Path
from jobs.spec import DigitsDataSpec, JobSpec, MigeInfomaxSpec, MLPEncoderSpec
from jobs.store import open_store

home, run = Path(sys.argv[1]), sys.argv[2]
store = open_store(f"sqlite:///{home}/mige.db", home=home)
spec = JobSpec(objective=MigeInfomaxSpec(kind="mige_infomax"),
               encoder=MLPEncoderSpec(kind="mlp"), data=DigitsDataSpec(kind="digits"))

def submit(worker):
    for i in range(10_000):
        key = f"{run}-{worker}-{i}"
        job = store.submit(spec, project="p", actor="me", idempotency_key=key).job.id
        os.write(1, f"{key} {job}\n".encode())  # one write: lines of threads never mix

for worker in range(4):
    threading.Thread(target=submit, args=(worker,)).start()
"""


@pytest.mark.slow
def test_no_acknowledged_job_is_lost_when_the_process_is_killed(home):
    acknowledged = {}
    for run in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", SUBMITTER, str(home), str(run)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for number, line in enumerate(process.stdout):
            key, job_id = line.split()
            acknowledged[key] = job_id
            if number >= 20 + 17 * run:
                process.kill()
                break
        for line in process.stdout:  # what it had said before it died
            if line.endswith("\n"):
                key, job_id = line.split()
                acknowledged[key] = job_id
        process.wait()
        process.stdout.close()
    readers = reader_engine(home / "mige.db")
    store = open_store(f"sqlite:///{home}/mige.db", home=home)
    with readers.connect() as connection:
        query = "SELECT key, job_id FROM idempotency_keys"
        stored = dict(connection.exec_driver_sql(query).all())
        jobs = {i for (i,) in connection.exec_driver_sql("SELECT id FROM jobs")}
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    assert len(acknowledged) >= 5 * 20
    assert {k: stored.get(k) for k in acknowledged} == acknowledged  # none lost, none changed
    assert set(stored.values()) == jobs  # none without its key, none twice
    readers.dispose()
    store.close()
