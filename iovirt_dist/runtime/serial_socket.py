"""The UNIX socket of a VMM's serial line: raw bytes both ways, one peer at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

from iovirt_dist.errors import EndpointError

TYPED_BYTES = 4096
"""What was typed and waits for a VMM; what is typed beyond it is lost, as on a serial line."""


class SerialSocket:
    """Serves the line.

    Args:
        path: Of the socket; nobody else uses it, as the process's name is claimed.
        printed: Takes what the VMM prints.
    """

    def __init__(self, path: Path, printed: Callable[[bytes], None]) -> None:
        self._path = path
        self._printed = printed
        self._peer: _Peer | None = None
        self._typed = bytearray()
        self._server: asyncio.Server | None = None
        self._paused = False

    async def start(self) -> None:
        """Listen.

        Raises:
            EndpointError: The socket cannot be made.
        """
        self._path.unlink(missing_ok=True)
        try:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(lambda: _Peer(self, self._printed), str(self._path))
        except OSError as error:
            raise EndpointError(f"cannot listen: {error.strerror}", str(self._path), "set topology.run_dir") from None

    def type(self, data: bytes) -> None:
        """Send bytes to the VMM, at once or when it comes."""
        self._typed += data
        del self._typed[TYPED_BYTES:]
        self._flush()

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
        if self._server is not None:
            self._server.close()
        self._path.unlink(missing_ok=True)

    def came(self, peer: _Peer) -> bool:
        """A VMM's process connected; False if there is one already."""
        if self._peer is not None:
            return False
        self._peer = peer
        peer.pause(self._paused)
        self._flush()
        return True

    def went(self, peer: _Peer) -> None:
        """It is gone."""
        if self._peer is peer:
            self._peer = None

    def _flush(self) -> None:
        if self._peer is not None and self._typed:
            self._peer.write(bytes(self._typed))
            self._typed.clear()


class _Peer(asyncio.Protocol):
    """A connection."""

    def __init__(self, line: SerialSocket, printed: Callable[[bytes], None]) -> None:
        self._line = line
        self._printed = printed
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the line if it is free."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._line.came(self):
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """The VMM printed."""
        self._printed(data)

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
