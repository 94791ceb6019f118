import os
from pathlib import Path

import pytest

from jobs.errors import SettingsError
from services.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for key in [k for k in os.environ if k.upper().startswith("MIGE_")]:
        monkeypatch.delenv(key)


def test_nothing_set_means_loopback_and_a_home_of_ones_own():
    settings = load_settings()
    assert (settings.host, settings.port, settings.is_loopback) == ("127.0.0.1", 8642, True)
    assert settings.home == Path("~/.local/share/mige").expanduser()
    assert settings.database == f"sqlite:///{settings.home}/mige.db"


def test_an_unknown_key_is_refused_with_the_nearest_known_one(monkeypatch):
    monkeypatch.setenv("MIGE_DATAROOT", "/data")
    with pytest.raises(SettingsError, match=r"MIGE_DATAROOT.*Did you mean MIGE_DATA_ROOT"):
        load_settings()


def test_an_unknown_key_without_a_near_one_is_refused_with_all_known_ones(monkeypatch):
    monkeypatch.setenv("MIGE_ZZZZZZZZ", "1")
    with pytest.raises(SettingsError, match=r"Known keys: .*MIGE_HOME"):
        load_settings()


@pytest.mark.parametrize("key", ["MIGE_API_URL", "MIGE_API_KEY"])
def test_the_clients_keys_are_known(monkeypatch, key):
    monkeypatch.setenv(key, "x")
    load_settings()


@pytest.mark.parametrize(
    ("key", "value"),
    [("MIGE_PORT", "70000"), ("MIGE_LOG_LEVEL", "loud"), ("MIGE_LEASE_TTL_S", "nan")],
)
def test_a_value_that_does_not_fit_is_refused_by_name(monkeypatch, key, value):
    monkeypatch.setenv(key, value)
    with pytest.raises(SettingsError, match=key):
        load_settings()


@pytest.mark.parametrize(("key", "value"), [("MIGE_HEARTBEAT_S", "8"), ("MIGE_LEASE_TTL_S", "5")])
def test_a_lease_must_be_long_enough_for_two_heartbeats(monkeypatch, key, value):
    monkeypatch.setenv(key, value)
    with pytest.raises(SettingsError, match=r"MIGE_HEARTBEAT_S: .*half of MIGE_LEASE_TTL_S"):
        load_settings()


def test_values_are_read_and_paths_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIGE_HOME", "here")
    monkeypatch.setenv("MIGE_DATA_ROOT", "~/data")
    monkeypatch.setenv("MIGE_ALLOWED_HOSTS", "a.example, b.example,")
    settings = load_settings()
    assert settings.home == tmp_path / "here"
    assert settings.data_root == Path("~/data").expanduser()
    assert settings.allowed_hosts == ("a.example", "b.example")
    assert {"a.example", "localhost", "127.0.0.1"} <= set(settings.host_names)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("example.org", False),
    ],
)
def test_only_loopback_counts_as_this_machine(host, loopback):
    assert Settings(host=host).is_loopback is loopback
