"""What the README shows is run, and what a person can set or meet is in it."""

import ast
import inspect
import json
import re
from pathlib import Path

import pytest

from jobs import errors
from jobs.spec import JobSpec
from mige.calibration import calibrate, make_subject
from services.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


def test_the_quickstart_shown_is_the_file_that_the_demo_submits():
    (shown,) = blocks("json job")
    stored = (ROOT / "services" / "quickstart" / "digits.json").read_text()
    assert shown == stored
    JobSpec.model_validate_json(stored)


@pytest.mark.parametrize("path", sorted((ROOT / "services" / "quickstart").glob("*.json")))
def test_every_quickstart_is_a_valid_spec(path):
    JobSpec.model_validate_json(path.read_text())


def test_the_python_example_of_the_library_runs_and_gives_a_gradient():
    (example,) = (b for b in blocks("python") if "mutual_information_surrogate" in b)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert names["z"].grad.isfinite().all()
    assert names["z"].grad.abs().sum() > 0


def test_the_job_in_the_client_example_is_a_valid_spec():
    (example,) = (b for b in blocks("python") if "client.submit" in b)
    calls = (n for n in ast.walk(ast.parse(example)) if isinstance(n, ast.Call))
    (submit,) = (c for c in calls if getattr(c.func, "attr", "") == "submit")
    JobSpec.model_validate_json(json.dumps(ast.literal_eval(submit.args[0])))


def test_every_key_of_a_calibration_card_is_described():
    subject = make_subject("gaussian_residual", {"residual": False})
    card = calibrate(subject, n=8, d=1, problems=["gain"], seeds=1).to_dict()
    described = set(re.findall(r"`(\w+)`", README[README.index("It is the card of") :]))
    problem = card["problems"]["gain"]
    keys = {*card, *card["estimator"], *card["cost"], *problem, *problem["curve"]}
    assert {key for key in keys if not key.endswith("_std")} <= described


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_described(name):
    assert f"`MIGE_{name.upper()}`" in README


@pytest.mark.parametrize(
    "cls",
    [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__],
)
def test_every_error_code_is_explained(cls):
    if not cls.__name__.startswith("_") and isinstance(cls.__dict__.get("code"), str):
        assert f"`{cls.code}`" in README


@pytest.mark.parametrize("kind", ["objective", "encoder", "data"])
def test_every_kind_of_a_part_is_listed(kind):
    schema = JobSpec.model_json_schema()
    part = schema["properties"][kind]
    refs = [r["$ref"] for r in part.get("oneOf", [part])]
    for ref in refs:
        definition = schema["$defs"][ref.rsplit("/", 1)[1]]
        assert f"`{definition['properties']['kind']['const']}`" in README
