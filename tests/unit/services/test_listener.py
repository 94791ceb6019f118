"""The address: taken ones are named, and clients are told one that they can call."""

import asyncio
import socket

import pytest

from jobs.errors import SettingsError
from services.listener import base_url, bind


def test_a_busy_port_is_named_with_a_remedy():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"{port} is in use.*MIGE_PORT"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_named(host):
    with pytest.raises(SettingsError, match=r"cannot be used.*MIGE_HOST"):
        bind(host, 0)


def test_the_address_for_clients_is_one_that_can_be_called():
    for host, prefix in (("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:")):
        with bind(host, 0) as listener:
            assert base_url(listener) == f"{prefix}{listener.getsockname()[1]}"


def test_answers_do_not_wait_for_the_clients_acknowledgement():
    async def accepted_without_delay(listener):
        loop, connected = asyncio.get_running_loop(), asyncio.Event()
        options = []

        class Connection(asyncio.Protocol):
            def connection_made(self, transport):
                socket_ = transport.get_extra_info("socket")
                options.append(socket_.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                transport.close()
                connected.set()

        server = await loop.create_server(Connection, sock=listener)
        _reader, writer = await asyncio.open_connection(*listener.getsockname())
        await connected.wait()
        writer.close()
        server.close()
        await server.wait_closed()
        return options[0]

    assert asyncio.run(accepted_without_delay(bind("127.0.0.1", 0))) != 0
