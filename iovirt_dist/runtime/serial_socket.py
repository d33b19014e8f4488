"""The UNIX socket of a VMM's serial line: raw bytes both ways, one peer at a time.

It is the latest that has connected. The one before is gone then, though that cannot be seen while nothing is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

from iovirt_dist.gateway.unix_socket import listen_at

TYPED_BYTES = 4096
"""What was typed and waits for a VMM to come, or to read; what is typed beyond it is lost, as on a serial line."""


class SerialSocket:
    """Serves the line.

    Args:
        path: Of the socket; nobody else uses it, as the process's name is claimed.
        printed: Takes what the VMM prints.

    Attributes:
        connections: Peers so far.
    """

    def __init__(self, path: Path, printed: Callable[[bytes], None]) -> None:
        self._path = path
        self._printed = printed
        self.connections = 0
        self._peer: _Peer | None = None
        self._typed = bytearray()
        self._server: asyncio.Server | None = None
        self._paused = False

    async def start(self) -> None:
        """Listen.

        Raises:
            EndpointError: Another process listens there, or nobody can.
        """
        loop = asyncio.get_running_loop()
        listening = listen_at(self._path)
        self._server = await loop.create_unix_server(lambda: _Peer(self, self._printed), sock=listening)

    def type(self, data: bytes) -> None:
        """Send bytes to the VMM, at once or when it takes them."""
        self._typed += data
        self.flush()
        del self._typed[TYPED_BYTES:]

    def pause(self, full: bool) -> None:
        """Read no more of what is printed, or again."""
        if full != self._paused:
            self._paused = full
            if self._peer is not None:
                self._peer.pause(full)

    def close(self) -> None:
        """Close and remove the socket."""
        if self._peer is not None:
            self._peer.close()
        if self._server is not None:  # else the file is somebody else's
            self._server.close()
            self._path.unlink(missing_ok=True)

    def came(self, peer: _Peer) -> None:
        """A VMM's process connected."""
        self.connections += 1
        before, self._peer = self._peer, peer
        if before is not None:
            before.close()
        peer.pause(self._paused)
        self.flush()

    def went(self, peer: _Peer) -> None:
        """It is gone."""
        if self._peer is peer:
            self._peer = None

    def flush(self) -> None:
        """Send what was typed, if somebody takes it."""
        if self._peer is not None and not self._peer.full and self._typed:
            self._peer.write(bytes(self._typed))
            self._typed.clear()


class _Peer(asyncio.Protocol):
    """A connection.

    Attributes:
        full: Whether its other end does not read.
    """

    def __init__(self, line: SerialSocket, printed: Callable[[bytes], None]) -> None:
        self.full = False
        self._line = line
        self._printed = printed
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the line."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=TYPED_BYTES)
        self._line.came(self)

    def data_received(self, data: bytes) -> None:
        """The VMM printed."""
        self._printed(data)

    def pause_writing(self) -> None:
        """It does not read."""
        self.full = True

    def resume_writing(self) -> None:
        """It does again."""
        self.full = False
        self._line.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Give the line back."""
        self._transport = None
        self._line.went(self)

    def write(self, data: bytes) -> None:
        """Send."""
        if self._transport is not None:
            self._transport.write(data)

    def pause(self, paused: bool) -> None:
        """Read no more, or again."""
        if self._transport is not None:
            (self._transport.pause_reading if paused else self._transport.resume_reading)()

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()
