"""The command line where no service is needed: help, bad input, exit statuses."""

import json
import subprocess
import sys
import time

import pytest
import typer
from typer.testing import CliRunner

from services.cli.main import app
from services.cli.submit import apply_changes, ended
from services.client import ApiError, ConnectionFailedError

COMMANDS = [
    "serve", "submit", "jobs", "job", "watch", "logs", "cancel", "pause", "resume", "encoders",
    "download", "embed", "calibrate", "doctor", "keys",
]  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run `mige` with a home that holds nothing."""
    for name in ("MIGE_API_URL", "MIGE_API_KEY", "MIGE_DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIGE_HOME", str(tmp_path / "home"))

    def invoke(*arguments, stdin=None):
        return CliRunner().invoke(app, list(arguments), input=stdin, catch_exceptions=False)

    return invoke


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_help_lists_every_command(run):
    output = run("--help").output
    assert all(command in output for command in COMMANDS)


def test_help_answers_at_once_and_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from services.cli.main import app\n"
        "try:\n"
        "    app(['--help'])\n"
        "except SystemExit:\n"
        "    heavy = {'torch', 'ray', 'numpy', 'pydantic', 'fastapi', 'sqlalchemy', 'httpx2'}\n"
        "    print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stdout
    assert time.monotonic() - started < 2.0  # 0.3 s on a quiet machine


def test_the_version_is_told(run):
    assert run("--version").output.startswith("mige 0.")


def test_without_a_service_one_line_says_what_to_do(run):
    result = run("jobs")
    assert result.exit_code == 2
    assert "mige serve" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("stdin", "said"),
    [("{", "is not JSON"), ("[1]", "no JSON object"), ("", "is not JSON")],
)
def test_a_spec_that_is_no_json_object_is_rejected_before_anything_is_sent(run, stdin, said):
    result = run("submit", "-", stdin=stdin)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_missing_file_is_named(run, tmp_path):
    result = run("submit", str(tmp_path / "none.json"))
    assert result.exit_code == 2
    assert "none.json: No such file" in result.stderr


def test_an_array_that_is_no_plain_npy_is_rejected(run, tmp_path):
    file = tmp_path / "images.npy"
    file.write_bytes(b"not an array")
    result = run("embed", "enc_1", str(file))
    assert result.exit_code == 2
    assert "images.npy" in result.stderr


@pytest.mark.parametrize(
    ("change", "where", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("name=my-job", ("name",), "my-job"),
        ("training.epochs=10", ("training", "epochs"), 10),
        ("resources.backend=inline", ("resources", "backend"), "inline"),
        ("evaluation.knn=false", ("evaluation", "knn"), False),
        ("training.max_steps=null", ("training", "max_steps"), None),
        ('data={"kind": "mnist"}', ("data", "kind"), "mnist"),
        ("metadata.note=a=b", ("metadata", "note"), "a=b"),
    ],
)
def test_a_value_of_the_spec_can_be_set(change, where, value):
    spec = apply_changes({"training": {"epochs": 80, "batch_size": 64}}, [change])
    for name in where:
        spec = spec[name]
    assert spec == value


def test_setting_one_value_keeps_its_neighbours():
    spec = apply_changes({"training": {"epochs": 80, "batch_size": 64}}, ["training.epochs=1"])
    assert spec == {"training": {"epochs": 1, "batch_size": 64}}


@pytest.mark.parametrize("change", ["epochs", "=3", "a..b=1", "name.x=1"])
def test_a_change_that_makes_no_sense_is_rejected(run, change):
    result = run("submit", "-", "--set", change, stdin='{"name": "a"}')
    assert result.exit_code == 2
    assert "--set" in result.stderr


@pytest.mark.parametrize(
    ("job", "code"),
    [
        ({"id": "job_1", "status": "succeeded", "encoder_id": "enc_1"}, 0),
        ({"id": "job_1", "status": "failed", "reason": "nan_loss", "message": "The loss."}, 1),
        ({"id": "job_1", "status": "cancelled", "reason": "user_cancelled"}, 130),
    ],
)
def test_the_exit_status_tells_how_a_job_ended(job, code):
    assert ended(job).exit_code == code


def test_a_failed_job_says_why_and_what_to_do(capsys):
    ended({"id": "job_1", "status": "failed", "reason": "nan_loss", "message": "The loss is NaN.",
           "remedy": "Lower the learning rate."})  # fmt: skip
    assert (
        "job_1 failed: The loss is NaN. Lower the learning rate. (nan_loss)"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ApiError(422, {"code": "spec_invalid", "title": "The spec cannot work"}), 2),
        (ApiError(401, {"code": "unauthorized"}), 2),
        (ApiError(503, {"code": "storage_unavailable"}), 1),
        (ConnectionFailedError("http://x", "refused", 4.0), 1),
    ],
)
def test_expected_errors_become_one_message_and_an_exit_status(run, monkeypatch, error, code):
    def failing(*_arguments, **_options):
        raise error

    monkeypatch.setattr("services.client.Client", failing)
    result = run("job", "job_1")
    assert result.exit_code == code
    assert str(error).splitlines()[0] in result.stderr


def test_the_doctor_answers_every_question_and_warns_of_a_service_that_does_not_run(run):
    result = run("doctor", "--json")
    assert result.exit_code == 0
    findings = {f["name"]: f for f in json.loads(result.stdout)}
    assert list(findings) == [
        "python", "torch", "ray", "sqlite", "home", "disk", "data root", "service",
    ]  # fmt: skip
    assert findings["service"]["level"] == "warn"
    assert "mige serve" in findings["service"]["remedy"]


def test_the_doctor_finds_a_missing_data_root_and_a_misspelt_setting(run, monkeypatch, tmp_path):
    monkeypatch.setenv("MIGE_DATA_ROOT", str(tmp_path / "none"))
    result = run("doctor")
    assert result.exit_code == 1
    assert "MIGE_DATA_ROOT" in result.stdout
    monkeypatch.setenv("MIGE_DATA_ROT", "x")
    assert "MIGE_DATA_ROOT" in run("doctor").stdout


def test_an_interrupt_ends_with_130_and_no_traceback(run, monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("services.client.Client", interrupted)
    result = run("jobs")
    assert result.exit_code == 130
    assert isinstance(result.exception, SystemExit | typer.Exit)
