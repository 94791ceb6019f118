"""`mige keys` on a real database."""

import json

import pytest
from typer.testing import CliRunner

from jobs.store import open_store
from services.cli.main import app


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MIGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*arguments):
    return CliRunner().invoke(app, ["keys", *arguments], catch_exceptions=False)


def authenticate(home, token):
    store = open_store(f"sqlite:///{home / 'mige.db'}", home=home)
    try:
        return store.authenticate(token)
    finally:
        store.close()


def test_a_key_that_was_made_opens_the_service_and_a_revoked_one_does_not(home):
    made = run("create", "laptop", "--scope", "jobs:read", "--project", "ours")
    token = made.stdout.strip()
    record = authenticate(home, token)
    assert (record.project, record.scopes) == ("ours", frozenset({"jobs:read"}))
    assert run("revoke", record.id).exit_code == 0
    assert authenticate(home, token) is None


def test_only_the_key_goes_to_standard_output_so_that_a_script_can_keep_it(home):
    made = run("create", "ci")
    assert made.stdout.startswith("mige_")
    assert made.stdout.count("\n") == 1


def test_a_key_has_every_scope_but_admin_if_none_is_named(home):
    made = json.loads(run("create", "ci", "--json").stdout)
    assert "jobs:write" in made["scopes"]
    assert "admin" not in made["scopes"]


def test_the_list_shows_keys_without_their_secrets(home):
    made = json.loads(run("create", "ci", "--days", "3", "--json").stdout)
    listed = json.loads(run("list", "--json").stdout)
    assert [(k["id"], k["name"]) for k in listed] == [(made["id"], "ci")]
    assert " ci " in run("list").output
    assert listed[0]["expires_at"]
    assert made["key"].rsplit("_", 1)[1] not in run("list").output


def test_an_unknown_scope_is_refused_with_those_that_exist(home):
    result = run("create", "ci", "--scope", "jobs:destroy")
    assert result.exit_code == 2
    assert "jobs:write" in result.stderr


def test_an_unknown_key_cannot_be_revoked(home):
    result = run("revoke", "key_0")
    assert result.exit_code == 2
    assert "key_0" in result.stderr
