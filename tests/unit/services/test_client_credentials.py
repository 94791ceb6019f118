"""Where the client finds the service's address and key."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services.client import Client, Credentials, CredentialsError, Patience, find_credentials
from services.client.credentials import is_loopback


@pytest.fixture
def home(tmp_path):
    content = {"url": "http://127.0.0.1:8642", "api_key": "mige_file"}
    (tmp_path / "credentials.json").write_text(json.dumps(content))
    return tmp_path


def found(home, url=None, key=None, **environment):
    credentials = find_credentials(url, key, environment={"MIGE_HOME": str(home), **environment})
    return credentials.url, credentials.api_key


def test_the_file_that_serve_leaves_is_enough(home):
    assert found(home) == ("http://127.0.0.1:8642", "mige_file")


def test_the_environment_wins_over_the_file(home):
    environment = {"MIGE_API_URL": "https://x/", "MIGE_API_KEY": "mige_env"}
    assert found(home, **environment) == ("https://x", "mige_env")


def test_arguments_win_over_the_environment(home):
    environment = {"MIGE_API_URL": "https://x", "MIGE_API_KEY": "mige_env"}
    assert found(home, "https://y", "mige_arg", **environment) == ("https://y", "mige_arg")


def test_the_files_key_does_not_travel_to_another_service(home):
    with pytest.raises(CredentialsError, match="no key for https://evil"):
        found(home, MIGE_API_URL="https://evil")


def test_the_files_key_is_used_where_the_address_is_the_same(home):
    assert found(home, "http://127.0.0.1:8642/") == ("http://127.0.0.1:8642", "mige_file")


def test_a_key_alone_goes_to_the_files_address(home):
    assert found(home, key="mige_arg") == ("http://127.0.0.1:8642", "mige_arg")


def test_nothing_anywhere_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(CredentialsError, match="mige serve"):
        found(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": "http://x"}', "\xff"])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "credentials.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CredentialsError, match=r"credentials\.json is damaged"):
        found(tmp_path)


def test_the_key_does_not_show_in_a_repr():
    assert "secret" not in repr(Credentials("http://x", "mige_secret"))


@pytest.fixture
def local_service():
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"id": "job_1"}')

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_proxy_of_the_environment_is_not_asked_for_a_service_on_this_machine(
    local_service, monkeypatch
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Client(local_service, "key", patience=Patience(first_s=0.0)) as client:
        assert client.job("job_1") == {"id": "job_1"}


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8642", True),
        ("http://localhost", True),
        ("http://[::1]:8642/", True),
        ("https://mige.example.org", False),
        ("http://10.0.0.1:8642", False),
    ],
)
def test_only_loopback_is_this_machine(url, here):
    assert is_loopback(url) is here
