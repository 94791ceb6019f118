import stat
from datetime import UTC, datetime, timedelta

import pytest

from jobs.errors import NotFoundError
from jobs.store import open_store


def make_key(store, **changes):
    arguments = {"project": "p", "scopes": {"jobs:read", "jobs:write"}, "name": "laptop"}
    return store.create_key(**arguments | changes)


def test_a_key_speaks_for_its_project_and_scopes(store):
    assert not store.has_keys()
    record, token = make_key(store)
    assert store.authenticate(token) == record
    assert (record.project, record.scopes) == ("p", {"jobs:read", "jobs:write"})
    assert store.has_keys()
    assert store.keys() == [record]


def test_the_secret_is_not_in_the_database(store, home):
    _, token = make_key(store)
    store.close()
    assert token.rsplit("_", 1)[1].encode() not in (home / "mige.db").read_bytes()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda t: "",
        lambda t: t[:-1] + ("0" if t[-1] != "0" else "1"),
        lambda t: t.upper(),
        lambda t: t + "0",
        lambda t: t.replace("mige_", "mige_0", 1),
        lambda t: "mige_" + "0" * 32 + "_" + t.rsplit("_", 1)[1],
        lambda t: t + "\n",
        lambda t: t.replace("0", "٠"),
        lambda t: "x" * 1_000_000,
    ],
)
def test_anything_but_the_token_speaks_for_nobody(store, spoil):
    _, token = make_key(store)
    spoiled = spoil(token)
    assert spoiled == token or store.authenticate(spoiled) is None


def test_a_revoked_key_is_refused_at_once_and_revoking_again_is_fine(store):
    record, token = make_key(store)
    store.revoke_key(record.id)
    store.revoke_key(record.id)
    assert store.authenticate(token) is None
    assert store.keys() == []
    assert store.has_keys()  # the next start must not make a bootstrap key again
    with pytest.raises(NotFoundError):
        store.revoke_key("key_" + "0" * 32)


def test_an_expired_key_is_refused(store):
    past = datetime.now(UTC) - timedelta(seconds=1)
    assert store.authenticate(make_key(store, expires_at=past)[1]) is None
    future = datetime.now(UTC) + timedelta(hours=1)
    assert store.authenticate(make_key(store, expires_at=future)[1]) is not None


def test_an_attempt_token_speaks_for_one_attempt_also_after_a_restart(home):
    job = "job_" + "1" * 32
    store = open_store(f"sqlite:///{home}/mige.db", home=home)
    token = store.attempt_token(job, 3)
    assert store.verify_attempt_token(token) == (job, 3)
    for forged in (
        token.replace("_3_", "_4_"),
        token.replace("1" * 32, "2" * 32),
        token[:-1] + ("0" if token[-1] != "0" else "1"),
        "",
        token + "0",
        token.replace("_3_", "_03_"),
    ):
        assert store.verify_attempt_token(forged) is None
    store.close()
    again = open_store(f"sqlite:///{home}/mige.db", home=home)
    assert again.verify_attempt_token(token) == (job, 3)
    again.close()


def test_secrets_are_readable_by_their_owner_only(store, home):
    assert stat.S_IMODE((home / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "secrets" / "attempt.key").stat().st_mode) == 0o600
