"""The sockets of an NBD gateway: one that listens, and a protocol for each client."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast

from iovirt_dist.errors import EndpointError
from iovirt_dist.gateway.nbd.connection import LEFT, LOST, Connection
from iovirt_dist.gateway.nbd.server import Server
from iovirt_dist.gateway.unix_socket import listen_at
from iovirt_dist.wire.codec import Buffer

log = logging.getLogger(__name__)

MAX_CLIENTS: Final = 32
HANDSHAKE_WITHIN_S: Final = 30.0
"""A client that has not chosen the export by then is closed."""
LINGER_S: Final = 30.0
"""A client that is to be closed, or sends no more, has so long to take its answers."""
_BACKLOG_BYTES: Final = 4 << 20
"""Answers that a client has not read above which nothing more is taken from it."""
_SOCKET_BUFFER_BYTES: Final = 4 << 20
"""Asked for; the kernel gives what it allows."""

Wake = Callable[[], None]


class NbdProtocol(asyncio.BufferedProtocol):
    """A client's socket.

    Args:
        server: Whom it talks to.
        wake: Asks for a turn of the server, soon.
        living: Where it is while its socket is open.
    """

    def __init__(self, server: Server, wake: Wake, living: set[NbdProtocol]) -> None:
        self._living = living
        self._server = server
        self._wake = wake
        self._connection: Connection | None = None
        self._transport: asyncio.Transport | None = None
        self._paused = False
        self._shut = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client; one too many is closed."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        if len(self._living) >= MAX_CLIENTS:
            self._server.closed["busy"] += 1
            transport.abort()
            return
        self._living.add(self)
        transport.set_write_buffer_limits(high=_BACKLOG_BYTES)
        client: socket.socket = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER_BYTES)
        self._within(HANDSHAKE_WITHIN_S, self._late)
        self._connection = self._server.connect(self._send, self._close)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol fixes the signature
        """Where to put what comes."""
        assert self._connection is not None
        return self._connection.inbox.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Something has come."""
        connection = self._connection
        if connection is None or connection.closed:
            return
        connection.received(nbytes)
        if connection.transmission is not None:
            self.look()
            if self._server.hungry:
                self._wake()

    def look(self) -> None:
        """After a turn: read on, or no more, as there is room."""
        connection, transport = self._connection, self._transport
        if connection is None or transport is None or connection.closed or self._shut:
            return
        full = connection.inbox.full
        if full != self._paused:
            self._paused = full
            (transport.pause_reading if full else transport.resume_reading)()

    def eof_received(self) -> bool:
        """The client sends no more, which is no reason to keep its answers back."""
        connection = self._connection
        if connection is None or connection.closed:
            return False
        self._shut = True
        connection.shut()
        if connection.closed:
            return False
        assert self._transport is not None
        self._within(LINGER_S, self._transport.abort)
        self._wake()
        return True

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        if self._connection is not None and self._connection.transmission is not None:
            self._connection.transmission.blocked = True

    def resume_writing(self) -> None:
        """It does again."""
        if self._connection is not None and self._connection.transmission is not None:
            self._connection.transmission.blocked = False
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol fixes the signature
        """The client is gone."""
        self._living.discard(self)
        if self._connection is not None:
            self._connection.close(LOST)
        if self._deadline is not None:
            self._deadline.cancel()

    def shut(self) -> None:
        """The gateway ends."""
        if self._connection is not None:
            self._connection.close("shutdown")
        if self._transport is not None:
            self._transport.abort()

    def _send(self, buffers: Sequence[Buffer]) -> None:
        assert self._transport is not None
        self._transport.write(b"".join(buffers))

    def _close(self, reason: str) -> None:
        if self._transport is None:
            return
        if reason != LEFT:
            log.info("client closed: %s", reason)
        self._within(LINGER_S, self._transport.abort)
        self._transport.close()

    def _within(self, limit_s: float, otherwise: Callable[[], object]) -> None:
        """Set the client a time limit, in place of the one that it had."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(limit_s, otherwise)

    def _late(self) -> None:
        if self._connection is not None and self._connection.transmission is None:
            self._connection.close("handshake-timeout")


def listening_socket(path: Path | None, port: int) -> socket.socket:
    """Bind the socket that clients connect to.

    Args:
        path: Of a UNIX socket; what a killed process has left there is replaced.
        port: On 127.0.0.1, if there is no path.

    Raises:
        EndpointError: Path or port are in use, or cannot be listened at.
    """
    if path is not None:
        return listen_at(path)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setblocking(False)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
    except OSError as error:
        listener.close()
        where = f"127.0.0.1:{port}"
        if error.errno == errno.EADDRINUSE:
            raise EndpointError("the port is in use", where, "choose another") from None
        raise EndpointError(f"cannot listen: {error.strerror}", where) from None
    return listener


def check_address(path: Path | None, port: int) -> None:
    """Check that `listening_socket` would find an address free now; nothing of that stays.

    Raises:
        EndpointError: As `listening_socket`.
    """
    listening_socket(path, port).close()
    if path is not None:
        path.unlink(missing_ok=True)
