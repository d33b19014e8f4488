"""The sockets of an NBD gateway."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from iovirt_dist.errors import EndpointError
from iovirt_dist.gateway.nbd.protocol import Command
from iovirt_dist.runtime import nbd_listener
from iovirt_dist.runtime.nbd_listener import NbdProtocol, check_address, listening_socket
from tests.unit.gateway.nbd.client import CHOOSE, MIB, request
from tests.unit.gateway.nbd.gateway import Gateway


def test_address_that_is_free_is_left_as_it_was(tmp_path: Path) -> None:
    """Nobody listens there yet."""
    check_address(tmp_path / "free", 0)

    assert list(tmp_path.iterdir()) == []


def test_address_at_which_somebody_listens_is_told(tmp_path: Path) -> None:
    """And stays."""
    path = tmp_path / "busy"
    with listening_socket(path, 0), pytest.raises(EndpointError, match="busy: the path is in use"):
        check_address(path, 0)
    assert path.is_socket()


def test_port_in_use_is_refused() -> None:
    """With address and port."""
    with listening_socket(None, 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(EndpointError, match=rf"127\.0\.0\.1:{port}: the port is in use"):
            listening_socket(None, port)


async def test_client_that_is_to_be_closed_and_does_not_read_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers, less than would hold it up, are not kept for ever, and it counts as one until it is gone."""
    monkeypatch.setattr(nbd_listener, "LINGER_S", 0.05)
    monkeypatch.setattr(nbd_listener, "_SOCKET_BUFFER_BYTES", 1)
    gateway, living = Gateway(), set[NbdProtocol]()
    loop, path = asyncio.get_running_loop(), tmp_path / "nbd"
    listening = listening_socket(path, 0)
    server = await loop.create_unix_server(lambda: NbdProtocol(gateway.server, lambda: None, living), sock=listening)
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        await loop.sock_connect(client, str(path))
        reads = b"".join(request(Command.READ, 0, MIB, cookie=cookie) for cookie in range(3))
        await loop.sock_sendall(client, CHOOSE + reads + request(Command.DISC))
        while not gateway.server.closed:
            gateway.serve()
            await asyncio.sleep(0)
        before = len(living), gateway.server.connections
        while living:
            await asyncio.sleep(0.005)
    server.close()
    await server.wait_closed()

    assert before == (1, [])
    assert gateway.server.closed == {"left": 1}
