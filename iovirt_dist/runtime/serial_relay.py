"""The serial console of a VMM: bytes between its pseudo-terminal and the gateway's socket, both ways.

The gateway may be away for a while. What the guest prints meanwhile is kept; when `KEEP_BYTES` are, the pseudo-terminal
is not read any more, and the guest's console waits. What the gateway had not read when it died is lost with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Any, Final

KEEP_BYTES: Final = 1 << 20
"""Most output that waits for the gateway."""

INPUT_BYTES: Final = 4096
"""Input that is on its way to the VMM; what its terminal does not take stays in the socket."""

RETRY_S: Final = 0.1
"""Time between attempts to reach the gateway."""

_CHUNK_BYTES: Final = 1 << 16
_POLL_S: Final = 0.01


class SerialRelay:
    """Relays one console until it is closed; it begins at once.

    Args:
        loop: Runs it.
        terminal: File descriptor of the pseudo-terminal's master side, non-blocking; stays the caller's.
        path: Socket of the gateway; None for a guest without a console, whose output nobody wants.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, terminal: int, path: Path | None) -> None:
        self._loop = loop
        self._terminal = terminal
        self._path = path
        self._socket: socket.socket | None = None
        self._output = bytearray()
        self._input = bytearray()
        self._retry: asyncio.TimerHandle | None = None
        self._counts = {"bytes_out": 0, "bytes_in": 0, "connections": 0}
        self._reading_terminal = self._writing_terminal = False
        self._connect()
        self._watch()

    def status(self) -> dict[str, Any]:
        """What is told of it: bytes from and to the guest, connections so far, output that waits."""
        return {**self._counts, "connected": self._socket is not None, "waiting_bytes": len(self._output)}

    async def drain(self, timeout_s: float) -> bool:
        """Wait until the gateway has taken all that was printed; returns whether it has.

        Args:
            timeout_s: How long to wait.
        """
        deadline = time.monotonic() + timeout_s
        self._from_terminal()
        while self._output and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
            self._from_terminal()
        return not self._output

    def close(self) -> None:
        """End it; what waits is lost."""
        if self._retry is not None:
            self._retry.cancel()
        self._disconnect()
        self._path = None
        self._loop.remove_reader(self._terminal)
        self._loop.remove_writer(self._terminal)

    # -- the gateway's side ----------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._retry = None
        if self._path is None:
            return
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            peer.connect(str(self._path))
        except OSError:  # not there yet, or not any more, or others wait in front
            peer.close()
            self._retry = self._loop.call_later(RETRY_S, self._connect)
            return
        self._socket = peer
        self._counts["connections"] += 1
        self._loop.add_reader(peer, self._from_gateway)
        self._to_gateway()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None

    def _lost(self) -> None:
        self._disconnect()
        if self._retry is None:
            self._retry = self._loop.call_later(RETRY_S, self._connect)

    def _to_gateway(self) -> None:
        """Send what waits; what the socket does not take goes when it can."""
        if self._socket is None:
            return
        try:
            sent = self._socket.send(self._output) if self._output else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._lost()
            return
        del self._output[:sent]
        self._counts["bytes_out"] += sent
        if self._output:
            self._loop.add_writer(self._socket, self._to_gateway)
        else:
            self._loop.remove_writer(self._socket)
        self._watch()

    def _from_gateway(self) -> None:
        assert self._socket is not None, "watched while it is there"
        try:
            data = self._socket.recv(INPUT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        self._counts["bytes_in"] += len(data)
        self._input += data
        self._loop.remove_reader(self._socket)  # until the terminal has taken it
        self._to_terminal()

    # -- the terminal's side ---------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Read the terminal while there is room for what it says."""
        wanted = len(self._output) < KEEP_BYTES
        if wanted != self._reading_terminal:
            self._reading_terminal = wanted
            if wanted:
                self._loop.add_reader(self._terminal, self._from_terminal)
            else:
                self._loop.remove_reader(self._terminal)

    def _from_terminal(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if len(self._output) < KEEP_BYTES:
                data = os.read(self._terminal, _CHUNK_BYTES)
                if self._path is not None:
                    self._output += data
        self._to_gateway()
        self._watch()

    def _to_terminal(self) -> None:
        try:
            written = os.write(self._terminal, self._input)
        except BlockingIOError:
            written = 0
        del self._input[:written]
        if self._input:
            self._loop.add_writer(self._terminal, self._to_terminal)
            return
        self._loop.remove_writer(self._terminal)
        if self._socket is not None:
            self._loop.add_reader(self._socket, self._from_gateway)
