"""Raw sockets against a real uvicorn: what the protocol adds to it. Times are shortened."""

import asyncio
import contextlib
import socket
import threading
import time

import pytest
import uvicorn

from services import protocol

PATIENCE_S = 0.3


async def application(scope, receive, send):
    """Answers 413 at once on /refuse, else reads the body and answers; /large sends 64 MiB."""
    if scope["path"] != "/refuse":
        while (await receive()).get("more_body"):
            pass
    body = b"x" * (64 * 1024 * 1024 if scope["path"] == "/large" else 2)
    status = 413 if scope["path"] == "/refuse" else 200
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def server(monkeypatch):
    for name in ("HEADER_S", "BODY_GRACE_S", "WRITE_STALL_S", "LINGER_S"):
        monkeypatch.setattr(protocol, name, PATIENCE_S)
    config = uvicorn.Config(
        application, http=protocol.GuardedProtocol, ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True
        )
        thread.start()
        yield server, listener.getsockname()
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def address(server):
    return server[1]


@contextlib.contextmanager
def connected(address):
    with socket.create_connection(address, timeout=10) as client:
        yield client


def read_all(client):
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := client.recv(65536):
            parts.append(part)
    return b"".join(parts)


def exchange(address, request):
    with connected(address) as client:
        client.sendall(request)
        return read_all(client)


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
GOOD = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def test_a_good_request_is_answered(address):
    assert exchange(address, GOOD).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=[
        "two hosts",
        "no host",
        "no host in HTTP/1.0",
        "bare line feeds",
        "length and chunked",
        "two lengths",
        "unknown coding",
        "space before the colon",
        "folded header",
        "bad chunk",
        "TLS",
    ],
)
def test_an_ambiguous_request_is_refused_and_the_connection_closed(address, request_):
    answer = exchange(address, request_)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 Bad Request")
    assert answer.count(b"HTTP/1.1") <= 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 30_000 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000,
        b"GET /" + b"y" * 200_000,
    ],
    ids=["one large header", "many headers", "a header without end", "a path without end"],
)
def test_a_large_header_is_refused(address, head):
    answer = exchange(address, head)
    assert answer.startswith(b"HTTP/1.1 431") or answer == b""


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET / HTTP/1.1\r\nHo",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc",
    ],
    ids=["idle", "half a header", "no body", "half a body"],
)
def test_a_client_that_stalls_is_closed(address, start):
    began = time.monotonic()
    exchange(address, start)
    assert time.monotonic() - began < 10 * PATIENCE_S


def test_a_stalled_second_request_is_closed_too(address):
    began = time.monotonic()
    answer = exchange(address, GOOD.replace(b"Connection: close\r\n", b"") + b"GET / HT")
    assert answer.startswith(b"HTTP/1.1 200")
    assert time.monotonic() - began < 15 * PATIENCE_S


def test_a_large_body_in_one_piece_is_no_large_header(address):
    body = b"x" * 1_000_000
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n"
    with connected(address) as client:
        client.sendall(head + b"\r\n" + body)
        first = b""
        while not first.endswith(b"\r\n\r\nxx"):  # head and body may come apart
            first += client.recv(1000)
        assert first.startswith(b"HTTP/1.1 200")
        client.sendall(head + b"Connection: close\r\n\r\n" + body)
        assert read_all(client).startswith(b"HTTP/1.1 200")


def test_a_client_that_sends_steadily_is_served(address):
    with connected(address) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n")
        client.sendall(b"Content-Length: 20000\r\n\r\n")
        for _ in range(10):
            client.sendall(b"x" * 2000)
            time.sleep(PATIENCE_S / 4)
        assert read_all(client).startswith(b"HTTP/1.1 200")


def test_a_client_that_takes_no_bytes_is_cut_off(server):
    connections = server[0].server_state.connections
    with connected(server[1]) as client:
        client.sendall(GOOD.replace(b"GET /", b"GET /large"))
        deadline = time.monotonic() + 10
        while not connections and time.monotonic() < deadline:
            time.sleep(0.01)
        assert connections
        while connections and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not connections


def test_a_refused_upload_gets_its_answer_and_then_the_connection_ends(address):
    head = b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n"
    began = time.monotonic()
    with connected(address) as client:
        client.sendall(head + b"x" * 100_000)
        assert read_all(client).startswith(b"HTTP/1.1 413")
    assert time.monotonic() - began < 10 * PATIENCE_S
