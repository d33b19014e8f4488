"""The relay of a serial console: bounds in both directions, and ends of connections at any time."""

from __future__ import annotations

import asyncio
import os
import socket
import tty
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from iovirt_dist.runtime import serial_relay
from iovirt_dist.runtime.serial_relay import SerialRelay

DEADLINE_S = 20.0
SPAN = bytes(range(256)) * 1024


async def until(holds: Callable[[], object]) -> None:
    """Wait for a condition; the test fails if it does not come."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():
            await asyncio.sleep(0.002)


class Bench:
    """A relay between a pseudo-terminal and a socket of the test.

    Attributes:
        relay: What is tested.
        guest: The VMM's side of the terminal, non-blocking.
        path: The socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._master, self.guest = os.openpty()
        tty.setraw(self.guest)
        os.set_blocking(self._master, False)
        os.set_blocking(self.guest, False)
        self._sockets: list[socket.socket] = []
        self.relay = SerialRelay(asyncio.get_running_loop(), self._master, path)

    async def print_until_held(self) -> int:
        """Print bytes of `SPAN` until the terminal takes no more; how many it took."""
        taken, idle = 0, 0
        while idle < 20:
            try:
                taken += os.write(self.guest, SPAN[taken : taken + 1000])
                idle = 0
            except BlockingIOError:
                idle += 1
            await asyncio.sleep(0.002)
        return taken

    async def accept(self) -> socket.socket:
        """Be the gateway: listen, and wait for the relay; its connection, non-blocking."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen()
        listener.setblocking(False)
        self._sockets.append(listener)
        loop = asyncio.get_running_loop()
        peer, _ = await asyncio.wait_for(loop.sock_accept(listener), DEADLINE_S)
        self._sockets.append(peer)
        return peer

    def close(self) -> None:
        """End everything."""
        self.relay.close()
        for peer in self._sockets:
            peer.close()
        os.close(self._master)
        os.close(self.guest)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A relay that keeps 8 KiB."""
    monkeypatch.setattr(serial_relay, "KEEP_BYTES", 8192)
    made = Bench(tmp_path / "serial")
    yield made
    made.close()


async def receive(peer: socket.socket, length: int) -> bytes:
    """Read that many bytes."""
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(DEADLINE_S):
        while len(data) < length:
            data += await loop.sock_recv(peer, 4096)
    return data


async def test_output_is_kept_up_to_a_bound_and_then_the_guest_waits(bench: Bench) -> None:
    """All that the terminal took arrives, in order, once somebody reads it."""
    taken = await bench.print_until_held()
    waiting = bench.relay.status()["waiting_bytes"]

    peer = await bench.accept()

    assert 8192 <= waiting < 3 * 8192
    assert taken < len(SPAN)
    assert await receive(peer, taken) == SPAN[:taken]
    await until(lambda: bench.relay.status()["waiting_bytes"] == 0)


async def test_input_waits_in_the_socket_until_the_terminal_takes_it(bench: Bench) -> None:
    """More than a terminal holds is typed at once, and read late."""
    peer = await bench.accept()
    typing = asyncio.create_task(asyncio.get_running_loop().sock_sendall(peer, SPAN))
    await until(lambda: bench.relay.status()["bytes_in"])

    read = b""
    async with asyncio.timeout(DEADLINE_S):
        while len(read) < len(SPAN):
            try:
                read += os.read(bench.guest, 4096)
            except BlockingIOError:
                await asyncio.sleep(0.001)

    await typing
    assert read == SPAN


async def test_drain_says_whether_all_was_taken(bench: Bench) -> None:
    """What was printed just now counts, too."""
    os.write(bench.guest, b"last words")

    assert not await bench.relay.drain(0.01)
    peer = await bench.accept()
    assert await bench.relay.drain(DEADLINE_S)

    assert await receive(peer, 10) == b"last words"


async def test_connection_that_ends_is_made_anew(bench: Bench) -> None:
    """Whatever the other side does with the old one."""
    first = await bench.accept()
    first.close()
    await until(lambda: not bench.relay.status()["connected"])
    os.write(bench.guest, b"again")
    bench.path.unlink()

    second = await bench.accept()

    assert await receive(second, 5) == b"again"
    assert bench.relay.status()["connections"] == 2
