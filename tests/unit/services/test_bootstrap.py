import json
import os
import stat

import pytest

from jobs.errors import SettingsError
from jobs.store import open_store
from services.auth import SCOPES
from services.bootstrap import (
    check_data_root,
    check_exposure,
    create_first_key,
    prepare_home,
    renew_address,
)
from services.settings import Settings

URL = "http://127.0.0.1:1"


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home", port=0)


@pytest.fixture
def store(settings):
    opened = open_store(settings.database, home=settings.home)
    yield opened
    opened.close()


def test_the_first_key_may_do_everything_and_only_its_owner_can_read_it(settings, store):
    secret = create_first_key(settings, store, URL)
    assert store.authenticate(secret).scopes == set(SCOPES)
    assert json.loads(settings.credentials_file.read_text()) == {"url": URL, "api_key": secret}
    assert stat.S_IMODE(settings.credentials_file.stat().st_mode) == 0o600
    assert create_first_key(settings, store, URL) is None


def test_a_new_port_is_written_down_and_the_key_kept(settings, store):
    secret = create_first_key(settings, store, URL)
    renew_address(settings, "http://127.0.0.1:2")
    content = json.loads(settings.credentials_file.read_text())
    assert content == {"url": "http://127.0.0.1:2", "api_key": secret}
    assert stat.S_IMODE(settings.credentials_file.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [None, "", "[]", '{"url": "x"}'])
def test_a_credentials_file_of_someone_else_is_left_alone(settings, store, content):
    if content is not None:
        settings.credentials_file.write_text(content)
    renew_address(settings, URL)
    if content is None:
        assert not settings.credentials_file.exists()
    else:
        assert settings.credentials_file.read_text() == content


@pytest.mark.parametrize(
    ("host", "has_keys", "proxy", "word"),
    [
        ("127.0.0.1", False, False, None),
        ("0.0.0.0", True, True, None),
        ("0.0.0.0", False, True, "mige keys create"),
        ("0.0.0.0", True, False, "MIGE_BEHIND_TLS_PROXY"),
    ],
)
def test_strangers_are_served_only_with_a_key_and_tls(host, has_keys, proxy, word):
    settings = Settings(host=host, behind_tls_proxy=proxy)
    if word is None:
        check_exposure(settings, has_keys=has_keys)
    else:
        with pytest.raises(SettingsError, match=word):
            check_exposure(settings, has_keys=has_keys)


def test_a_home_is_made_for_its_owner_only(tmp_path):
    prepare_home(tmp_path / "a" / "home")
    assert stat.S_IMODE((tmp_path / "a" / "home").stat().st_mode) == 0o700
    assert list((tmp_path / "a" / "home").iterdir()) == []


def test_a_home_that_is_a_file_is_named_with_a_remedy(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(SettingsError, match=r"home cannot be used.*MIGE_HOME"):
        prepare_home(tmp_path / "home")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_is_named_with_a_remedy(tmp_path):
    (tmp_path / "home").mkdir(mode=0o500)
    with pytest.raises(SettingsError, match="MIGE_HOME"):
        prepare_home(tmp_path / "home")


def test_a_data_root_that_is_missing_is_named_with_a_remedy(tmp_path):
    check_data_root(Settings(home=tmp_path, data_root=tmp_path))
    with pytest.raises(SettingsError, match=r"nowhere is not a folder.*MIGE_DATA_ROOT"):
        check_data_root(Settings(home=tmp_path, data_root=tmp_path / "nowhere"))
