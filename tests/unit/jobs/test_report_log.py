from datetime import UTC, datetime

import pytest

from jobs import report_log
from jobs.report_log import read_batches
from jobs.wire import Report


def line(step: int) -> bytes:
    report = Report(kind="metric", at=datetime.now(UTC), data={"step": step})
    return report.model_dump_json().encode() + b"\n"


def steps(batches) -> list:
    return [(b.first, [r.data.get("step", r.kind) for r in b.reports]) for b in batches]


def test_lines_are_read_from_where_the_store_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(report_log, "MAX_REPORTS", 2)
    path = tmp_path / "reports.jsonl"
    path.write_bytes(b"".join(line(i) for i in range(5)))
    assert steps(read_batches(path, 0)) == [(0, [0, 1]), (2, [2, 3]), (4, [4])]
    assert steps(read_batches(path, 3)) == [(3, [3, 4])]
    assert steps(read_batches(path, 5)) == []


def test_a_line_that_was_not_finished_is_left_out(tmp_path):
    path = tmp_path / "reports.jsonl"
    path.write_bytes(line(0) + line(1)[:-7])
    assert steps(read_batches(path, 0)) == [(0, [0])]


def test_a_line_that_cannot_be_read_keeps_its_number(tmp_path):
    path = tmp_path / "reports.jsonl"
    path.write_bytes(line(0) + b"{broken\n" + line(2))
    assert steps(read_batches(path, 0)) == [(0, [0, "diagnostic.unreadable", 2])]


@pytest.mark.parametrize("kind", ["missing", "symlink"])
def test_without_a_plain_file_there_are_no_reports(tmp_path, kind):
    path = tmp_path / "reports.jsonl"
    if kind == "symlink":
        (tmp_path / "other").write_bytes(line(0))
        path.symlink_to(tmp_path / "other")
    assert steps(read_batches(path, 0)) == []


def test_a_huge_line_counts_once(tmp_path, monkeypatch):
    monkeypatch.setattr(report_log, "_LINE_LIMIT_BYTES", 400)
    path = tmp_path / "reports.jsonl"
    path.write_bytes(line(0) + b"x" * 1000 + b"\n" + line(2))
    assert steps(read_batches(path, 0)) == [(0, [0, "diagnostic.unreadable", 2])]
    assert steps(read_batches(path, 2)) == [(2, [2])]
