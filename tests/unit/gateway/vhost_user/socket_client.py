"""A device that listens, and a front end at the other end of its socket."""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from iovirt_dist.gateway.vhost_user.actions import (
    Action,
    QueueStopping,
    Reset,
)
from iovirt_dist.gateway.vhost_user.backend import Backend
from iovirt_dist.gateway.vhost_user.mapping import FileMapper
from iovirt_dist.gateway.vhost_user.messages import NEED_REPLY
from iovirt_dist.gateway.vhost_user.socket import FrontEndListener
from tests.unit.gateway.vhost_user.front_end import (
    FACTS,
)

DEADLINE_S = 10.0


class Device:
    """What walks rings: here it only answers, at once.

    Attributes:
        actions: What it was told.
    """

    def __init__(self, path: Path) -> None:
        self.actions: list[Action] = []
        self.mapper = FileMapper()
        self.backend = Backend(self.mapper)
        self.backend.describe(FACTS)
        self.listener = FrontEndListener(path, self.backend, self.perform)

    def perform(self, action: Action) -> None:
        """Answer what wants an answer, in the midst of other actions."""
        self.actions.append(action)
        if isinstance(action, QueueStopping):
            self.listener.perform(self.backend.queue_stopped(action.queue, 42))
        elif isinstance(action, Reset):
            self.listener.perform(self.backend.device_reset())


class Client:
    """A front end at the other end of a socket, which does not block the loop.

    Args:
        path: Of the socket.
    """

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setblocking(False)
        self.socket.connect(os.fspath(path))

    def send(self, data: bytes, *fds: int) -> None:
        """Send a message with descriptors, which stay ours."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        assert self.socket.sendmsg([data], ancillary) == len(data)

    async def receive(self) -> tuple[int, bytes, list[int]]:
        """Return a reply: its request, payload, and descriptors."""
        header, fds = await self._read(12)
        request, flags, size = struct.unpack("=III", header)
        assert flags == 5
        payload, more = await self._read(size) if size else (b"", [])
        return request, payload, fds + more

    async def ask(self, data: bytes, *fds: int) -> bytes:
        """Send a message; return the payload of the reply."""
        self.send(data, *fds)
        request, payload, _ = await self.receive()
        assert request == struct.unpack_from("=I", data)[0]
        return payload

    async def acked(self, data: bytes, *fds: int) -> None:
        """Send a message that wants a reply, and see that it is carried out."""
        request, flags, size = struct.unpack_from("=III", data)
        wanted = struct.pack("=III", request, flags | NEED_REPLY, size) + data[12:]
        assert await self.ask(wanted, *fds) == bytes(8)

    async def closed(self) -> None:
        """Wait until the other side has closed."""
        async with asyncio.timeout(DEADLINE_S):
            loop = asyncio.get_running_loop()
            with contextlib.suppress(ConnectionError):
                while await loop.sock_recv(self.socket, 4096):
                    pass

    async def _read(self, size: int) -> tuple[bytes, list[int]]:
        data, fds = b"", array.array("i")
        async with asyncio.timeout(DEADLINE_S):
            while len(data) < size:
                try:
                    part, ancillary, _, _ = self.socket.recvmsg(size - len(data), 64)
                except BlockingIOError:
                    await asyncio.sleep(0)
                    continue
                assert part
                data += part
                for _, _, raw in ancillary:
                    fds.frombytes(raw)
        return data, list(fds)


def open_descriptors() -> int:
    """Count those of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0)
