"""`mige calibrate`: what it prints and writes, and what it refuses."""

import json

import pytest
from typer.testing import CliRunner

from services.cli import calibrate
from services.cli.main import app

FAST = ("--samples", "12", "--dim", "2", "--seeds", "2", "--problem", "gain")


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(app, ["calibrate", *arguments], catch_exceptions=False)

    return invoke


def test_a_table_for_people_and_the_way_there_apart_from_it(run):
    result = run("--estimator", "spectral", "--option", "explained=0.9", *FAST)
    assert result.exit_code == 0
    assert "PROBLEM" in result.stdout
    assert "gain" in result.stdout
    assert "±" in result.stdout
    assert " ms, " in result.stdout
    assert "spectral, n = 12, d = 2: 0 of 2, gain" in result.stderr
    assert " of 2" not in result.stdout


def test_the_card_as_json_holds_what_was_asked_for(run):
    result = run("-e", "spectral", "--option", "explained=0.9", "--json", *FAST)
    card = json.loads(result.stdout)
    assert card["estimator"] == {"name": "spectral", "options": {"explained": 0.9}}
    assert (card["n"], card["d"], card["problems"]["gain"]["seeds"]) == (12, 2, 2)


def test_the_folder_is_made_and_gets_a_card_and_a_picture(run, tmp_path):
    folder = tmp_path / "a" / "b"
    result = run("--output", str(folder), "--json", *FAST)
    assert result.exit_code == 0
    assert json.loads((folder / "card.json").read_text()) == json.loads(result.stdout)
    assert (folder / "card.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "card.png"]


def test_quick_takes_fewer_problems_and_seeds_unless_told_otherwise(run, monkeypatch):
    asked = []

    def remember(*_arguments, **options):
        asked.append(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("mige.calibration.calibrate", remember)
    for arguments in ((), ("--quick",), ("--quick", "--seeds", "7", "--problem", "sin")):
        assert run(*arguments).exit_code == 130
    standard, quick, chosen = asked
    assert standard["seeds"] == 10
    assert quick["seeds"] == 3
    assert set(quick["problems"]) < set(standard["problems"])
    assert (chosen["seeds"], list(chosen["problems"])) == (7, ["sin"])


def test_too_few_samples_for_the_estimator_are_told(run):
    result = run("-n", "4", "-d", "8", "--seeds", "1", "--problem", "gain")
    assert "is meant for at least 8 samples" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--estimator", "spectrall"), "estimator='spectrall' is unknown: choose one of"),
        (("--option", "ridge"), "--option ridge: write it as key=value"),
        (("--option", "ridge=-1.0"), "ridge=-1.0"),
        (("--option", "rigde=1"), "has no option 'rigde'"),
        (("--problem", "cubic"), "problem='cubic' is unknown"),
        (("--estimator", "nwj", "--problem", "network"), "can be tried on none of them"),
        (("--estimator", "ksg"), "gives a value and no gradient"),
        (("--device", "tpu9"), "device='tpu9' cannot be used"),
        (("--device", "meta"), "device='meta' cannot be used"),
        (("--dim", "4", "--dim-x", "3"), "dim_x=3: give at least the width d=4"),
        (("--samples", "1"), "--samples"),
        (("--dim", "0"), "--dim"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(run, arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(run, tmp_path, monkeypatch):
    monkeypatch.setattr("mige.calibration.calibrate", lambda *_a, **_k: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    result = run("--output", str(tmp_path / "file" / "below"), *FAST)
    assert result.exit_code == 2
    assert "below" in result.stderr


def test_a_numerical_failure_ends_with_one(run, monkeypatch):
    from mige import NumericalError

    def failing(*_arguments, **_options):
        raise NumericalError("the score holds 1 of 24 values that are NaN")

    monkeypatch.setattr("mige.calibration.calibrate", failing)
    result = run(*FAST)
    assert result.exit_code == 1
    assert "the score holds 1 of 24" in result.stderr


def test_too_little_memory_is_told_and_other_defects_are_not_hidden(run, monkeypatch):
    def failing(*_arguments, **_options):
        raise RuntimeError(said)

    monkeypatch.setattr("mige.calibration.calibrate", failing)
    said = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 14400000000 bytes."
    result = run(*FAST)
    assert result.exit_code == 1
    assert "samples=12, dim=2: they do not fit into memory" in result.stderr
    said = "shapes cannot be multiplied"
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run(*FAST)


def test_the_help_shows_no_default_where_there_is_none(run):
    assert "()" not in run("--help").stdout


@pytest.mark.parametrize(
    ("text", "value"), [("a=1", 1), ("a=0.5", 0.5), ("a=false", False), ("a=rbf", "rbf"),
                        ("a=null", None), ("a=b=c", "b=c")]
)  # fmt: skip
def test_options_are_json_where_they_can_be(text, value):
    assert calibrate.parse_options([text]) == {"a": value}


def test_lines_are_printed_now_and_then_where_there_is_no_terminal(capsys):
    with calibrate.progress_reporter("title") as report:
        for done in range(101):
            report(done, 100, "gauss")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert lines[0] == "title: 0 of 100, gauss"
    assert lines[-1] == "title: 100 of 100, gauss"
