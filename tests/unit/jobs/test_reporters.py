"""Reports are whole lines whoever writes them; commands are read when the file changes."""

from __future__ import annotations

import threading

import pytest

from jobs.reporters import ControlFile, FileReporter, Reporter, ReportWriter, new_report
from jobs.run_directory import RunDirectory
from jobs.wire import Command, Report


def command_file(path, command: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(Command(command=command).model_dump_json())
    new.replace(path)


def test_lines_of_several_writers_never_mix(tmp_path):
    path = tmp_path / "reports.jsonl"

    def write(name: int) -> None:
        writer = ReportWriter(path)
        for step in range(100):
            writer.append(new_report("metric", {"writer": name, "step": step, "pad": "x" * 500}))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reports = [Report.model_validate_json(line) for line in path.read_bytes().splitlines()]
    for name in range(4):
        assert [r.data["step"] for r in reports if r.data["writer"] == name] == list(range(100))


def test_a_report_that_is_a_symlink_is_not_followed(tmp_path):
    (tmp_path / "target").touch()
    (tmp_path / "reports.jsonl").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic"):
        ReportWriter(tmp_path / "reports.jsonl").append(new_report("metric"))


def test_a_value_that_is_not_finite_becomes_null_and_stays_json(tmp_path):
    ReportWriter(tmp_path / "r.jsonl").append(new_report("metric", {"loss": float("nan")}))
    assert b'"loss":null' in (tmp_path / "r.jsonl").read_bytes()


def test_the_command_is_continue_until_the_file_says_otherwise(tmp_path):
    run = RunDirectory(tmp_path, "job_1", 1)
    run.root.mkdir(parents=True)
    reporter = FileReporter(run)
    assert isinstance(reporter, Reporter)
    assert reporter.command() == "continue"
    for command in ("pause", "continue", "cancel"):
        command_file(run.control_file, command)
        assert reporter.command() == command


def test_a_file_that_makes_no_sense_changes_nothing(tmp_path):
    control = ControlFile(tmp_path / "control.json")
    command_file(control.path, "pause")
    assert control.read() == "pause"
    control.path.write_text("nonsense")
    assert control.read() == "pause"
