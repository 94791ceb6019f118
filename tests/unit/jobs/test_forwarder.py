"""The line to the control plane, with a hand-written control plane and a hand-moved clock."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from jobs.errors import (
    ArtifactInvalidError,
    JobError,
    StaleFenceError,
    StorageUnavailableError,
)
from jobs.forwarder import Forwarder, Watch
from jobs.report_tail import ReportTail
from jobs.reporters import ControlFile, ReportWriter, new_report
from jobs.run_directory import RunDirectory
from jobs.wire import (
    MAX_REPORTS,
    Acknowledged,
    Command,
    Exit,
    Heartbeat,
    Manifest,
    Published,
    ReportBatch,
)
from services.body_guard import REPORT_LIMITS
from services.strict_json import parse_strict

AWAY = StorageUnavailableError("away", "wait")


class FakeControlPlane:
    """Keeps what it is told; `error` is raised instead while it is set."""

    def __init__(self) -> None:
        self.error: JobError | None = None
        self.refuse: Callable[[ReportBatch], bool] = lambda batch: False
        self.command = "continue"
        self.phases: list[str] = []
        self.kinds: list[str] = []
        self.batches: list[int] = []

    def heartbeat(self, heartbeat: Heartbeat) -> Command:
        self._fail()
        self.phases.append(heartbeat.phase.value)
        return Command(command=self.command)

    def report(self, batch: ReportBatch) -> Acknowledged:
        self._fail()
        if self.refuse(batch):
            raise ArtifactInvalidError("refused", "none")
        self.batches.append(len(batch.reports))
        new = batch.reports[len(self.kinds) - batch.first :]
        self.kinds += [report.kind for report in new]
        return Acknowledged(lines=len(self.kinds))

    def finalize(self) -> None: ...

    def publish(self, manifest: Manifest) -> Published:
        return Published(encoder_id="enc_1")

    def end(self, end: Exit) -> None: ...

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


class Line:
    """A forwarder with everything around it."""

    def __init__(self, tmp_path) -> None:
        self.run = RunDirectory(tmp_path, "job_1", 1)
        self.run.root.mkdir(parents=True)
        self.writer = ReportWriter(self.run.reports_file)
        self.control_plane = FakeControlPlane()
        self.now = 100.0
        self.called: list[str] = []
        self.forwarder = Forwarder(
            self.run,
            self.control_plane,
            Watch(
                fenced=lambda: self.called.append("fenced"),
                lost=lambda: self.called.append("lost"),
                heartbeat_s=3.0,
                unacknowledged_limit_s=60.0,
            ),
            clock=lambda: self.now,
        )

    def turn(self, after_s: float = 0.0) -> None:
        self.now += after_s
        self.forwarder.turn()

    def wanted(self) -> str:
        return ControlFile(self.run.control_file).read()


@pytest.fixture
def line(tmp_path) -> Line:
    return Line(tmp_path)


def test_the_first_turn_is_a_heartbeat_and_the_next_one_comes_on_time(line):
    line.turn()
    line.turn(after_s=2.9)
    assert line.control_plane.phases == ["provisioning"]
    line.turn(after_s=0.2)
    assert line.control_plane.phases == ["provisioning"] * 2


def test_reports_go_out_once_and_in_order(line):
    line.writer.append(new_report("metric", {"step": 1}))
    line.turn()
    line.writer.append(new_report("checkpoint.created", {"step": 1}))
    line.turn()
    line.turn()
    assert line.control_plane.kinds == ["metric", "checkpoint.created"]
    assert line.control_plane.batches == [1, 1]


def test_every_phase_is_told_by_a_heartbeat_even_if_several_come_at_once(line):
    for phase in ("loading_data", "training", "evaluating"):
        line.writer.append(new_report("phase", {"phase": phase}))
    line.turn()
    assert line.control_plane.phases == ["provisioning", "loading_data", "training", "evaluating"]


def test_nothing_is_lost_while_the_control_plane_is_away(line):
    line.control_plane.error = AWAY
    for step in range(500):
        line.writer.append(new_report("metric", {"step": step}))
        line.turn(after_s=0.1)
    line.control_plane.error = None
    line.turn(after_s=3.1)
    assert len(line.control_plane.kinds) == 500


def test_pauses_grow_while_it_is_away_and_stay_below_a_lease(line):
    line.control_plane.error = AWAY
    tries: list[float] = []
    heartbeat = line.control_plane.heartbeat
    line.control_plane.heartbeat = lambda h: (tries.append(line.now), heartbeat(h))[1]
    for _ in range(500):
        line.turn(after_s=0.1)
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert gaps[0] < 0.5
    assert 1.4 < max(gaps) <= 3.2
    assert len(tries) < 40


def test_an_acknowledgement_that_was_lost_sends_no_report_twice(line):
    line.writer.append(new_report("metric"))
    report = line.control_plane.report

    def lose_the_answer(batch: ReportBatch) -> Acknowledged:
        report(batch)
        line.control_plane.report = report
        raise AWAY

    line.control_plane.report = lose_the_answer
    line.turn()
    line.writer.append(new_report("checkpoint.created"))
    line.turn(after_s=1.0)
    assert line.control_plane.kinds == ["metric", "checkpoint.created"]


def test_commands_reach_the_control_file_and_can_be_taken_back(line):
    line.turn()
    assert line.wanted() == "continue"
    for command in ("pause", "continue", "cancel"):
        line.control_plane.command = command
        line.turn(after_s=3.1)
        assert line.wanted() == command


def test_an_interruption_is_a_pause_but_a_cancel_is_stronger(line):
    line.turn()
    line.forwarder.interrupt()
    line.turn()
    assert line.wanted() == "pause"
    assert line.forwarder.command == "continue"
    line.control_plane.command = "cancel"
    line.turn(after_s=3.1)
    assert line.wanted() == "cancel"


def test_an_interruption_is_obeyed_while_the_control_plane_is_away(line):
    line.control_plane.error = AWAY
    line.turn()
    line.forwarder.interrupt()
    line.turn()
    assert line.wanted() == "pause"


def test_a_stale_fence_is_told_once_unless_the_end_was_expected(line, tmp_path):
    line.control_plane.error = StaleFenceError("job_1", 1)
    line.turn()
    assert line.called == ["fenced"]
    other = Line(tmp_path / "other")
    other.control_plane.error = StaleFenceError("job_1", 1)
    other.forwarder.expect_end()
    other.turn()
    assert other.called == []


def test_a_runner_that_nobody_acknowledges_is_told_once(line):
    line.turn()
    line.control_plane.error = AWAY
    for _ in range(13):
        line.turn(after_s=4.0)
    assert line.called == []
    for _ in range(10):
        line.turn(after_s=4.0)
    assert line.called == ["lost"]


def test_reports_that_are_refused_for_good_do_not_block_those_behind_them(line):
    line.control_plane.refuse = lambda batch: any(r.kind == "metric" for r in batch.reports)
    line.writer.append(new_report("metric"))
    line.turn()
    line.writer.append(new_report("checkpoint.created"))
    line.turn()
    assert line.control_plane.kinds == ["diagnostic.refused", "checkpoint.created"]


def test_a_line_is_not_read_before_it_ends(line):
    with line.run.reports_file.open("ab") as file:
        file.write(b'{"kind": "met')
    line.turn()
    assert line.control_plane.kinds == []


@pytest.mark.parametrize("junk", [b'{"kind": "met\n', b"a\rb\n", b"\n"])
def test_an_unreadable_line_keeps_its_number(line, junk):
    with line.run.reports_file.open("ab") as file:
        file.write(junk)
    line.writer.append(new_report("metric"))
    line.turn()
    assert line.control_plane.kinds == ["diagnostic.unreadable", "metric"]


def test_batches_stay_within_what_the_api_takes(tmp_path):
    writer, tail = ReportWriter(tmp_path / "r.jsonl"), ReportTail(tmp_path / "r.jsonl")
    for step in range(300):
        writer.append(new_report("metric", {f"key_{i}": step for i in range(20)}))
    sizes = []
    while (batch := tail.next_batch()) is not None:
        assert len(batch.reports) <= MAX_REPORTS
        parse_strict(batch.model_dump_json().encode(), REPORT_LIMITS)
        sizes.append(len(batch.reports))
        tail.acknowledge(batch.first + len(batch.reports))
    assert sum(sizes) == 300
    assert len(sizes) < 10


def test_a_running_forwarder_flushes_what_was_written_before(line):
    line.forwarder.start()
    for step in range(50):
        line.writer.append(new_report("metric", {"step": step}))
    assert line.forwarder.flush(5.0)
    assert len(line.control_plane.kinds) == 50
    line.forwarder.stop()
