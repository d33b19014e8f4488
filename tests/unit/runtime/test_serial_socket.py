"""The socket of a VMM's serial line, and processes of VMMs that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from iovirt_dist.errors import EndpointError
from iovirt_dist.runtime.serial_socket import TYPED_BYTES, SerialSocket

PATIENCE_S = 10.0
CHUNK = b"0123456789abcdef" * 256


class Bench:
    """A line, and what its VMM has printed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.printed = bytearray()
        self.line = SerialSocket(path, self.printed.extend)

    def connect(self) -> socket.socket:
        """A VMM's process."""
        peer = socket.socket(socket.AF_UNIX)
        peer.setblocking(False)
        peer.connect(str(self.path))
        return peer


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A line that is served."""
    made = Bench(tmp_path / "serial")
    await made.line.start()
    yield made
    made.line.close()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.001)


async def read(peer: socket.socket, length: int) -> bytes:
    """Read so much, or up to the end."""
    data = b""
    async with asyncio.timeout(PATIENCE_S):
        while len(data) < length:
            part = await asyncio.get_running_loop().sock_recv(peer, length - len(data))
            if not part:
                break
            data += part
    return data


async def test_bytes_go_both_ways(bench: Bench) -> None:
    """Raw."""
    with bench.connect() as peer:
        peer.send(b"login: ")
        await until(lambda: bench.printed == b"login: ")
        bench.line.type(b"root\n")

        assert await read(peer, 5) == b"root\n"


async def test_what_is_typed_before_a_vmm_comes_waits_for_it(bench: Bench) -> None:
    """As far as there is room."""
    bench.line.type(b"a" * TYPED_BYTES)
    bench.line.type(b"too late")

    with bench.connect() as peer:
        assert await read(peer, TYPED_BYTES) == b"a" * TYPED_BYTES
        bench.line.type(b"b")
        assert await read(peer, 1) == b"b"


async def test_vmm_that_does_not_read_is_not_typed_at_without_end(bench: Bench) -> None:
    """What it reads at last is the beginning; nothing is kept of the rest."""
    with bench.connect() as peer:
        peer.send(b"$")
        await until(lambda: bench.printed == b"$")
        for _ in range(1000):
            bench.line.type(CHUNK)
        taken = 0
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.2):
                    taken += len(await asyncio.get_running_loop().sock_recv(peer, 1 << 16))

        assert taken < 1000 * len(CHUNK) // 2
        bench.line.type(b"again")
        assert await read(peer, 5) == b"again"


async def test_line_that_is_paused_is_read_later(bench: Bench) -> None:
    """Even if it was paused while nobody was there."""
    bench.line.pause(True)
    with bench.connect() as peer:
        peer.send(b"x")
        bench.line.type(b"y")
        assert await read(peer, 1) == b"y"
        assert not bench.printed

        bench.line.pause(False)
        await until(lambda: bench.printed == b"x")


async def test_vmm_that_comes_while_the_line_is_paused_takes_the_place_of_the_one_before(bench: Bench) -> None:
    """That one's end cannot be seen as long as nothing is read from it."""
    with bench.connect() as first:
        first.send(b"1")
        await until(lambda: bench.printed == b"1")
        bench.line.pause(True)
    with bench.connect() as second:
        second.send(b"2")
        await until(lambda: bench.line.connections == 2)
        bench.line.pause(False)
        await until(lambda: bench.printed == b"12")


async def test_line_is_given_back_by_a_vmm_that_goes(bench: Bench) -> None:
    """The next one has it."""
    with bench.connect() as first:
        first.send(b"1")
        await until(lambda: bench.printed == b"1")
    with bench.connect() as second:
        second.send(b"2")
        await until(lambda: bench.printed == b"12")


async def test_socket_goes_with_the_line(bench: Bench) -> None:
    """And its peer."""
    with bench.connect() as peer:
        peer.send(b"1")
        await until(lambda: bench.printed == b"1")
        bench.line.close()

        assert await read(peer, 1) == b""
    assert not bench.path.exists()


async def test_socket_that_cannot_be_is_one_error(tmp_path: Path) -> None:
    """With its path."""
    path = tmp_path / "nowhere" / "serial"
    with pytest.raises(EndpointError, match="cannot listen: No such file"):
        await SerialSocket(path, print).start()
