"""The UNIX socket at which front ends of one device connect: bytes and descriptors in, `backend.Backend` in between.

Theory of operation. A message is read in two parts, so that no byte of the next is taken, and no descriptor of it:
they come with the first byte that was sent with them. All reads and writes are non-blocking. One front end is served at
a time; another one is sent away, unless the first is found to have gone.

The core's actions are performed in order, one list after the other, also when performing one makes more. Those that are
about the device go to who walks its rings.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from iovirt_dist.errors import DecodeError
from iovirt_dist.gateway.unix_socket import listen_at
from iovirt_dist.gateway.vhost_user.actions import Action, CloseFds, Disconnect, Note, Send, SendRequest, Signal
from iovirt_dist.gateway.vhost_user.backend import BackendCounts
from iovirt_dist.gateway.vhost_user.decoding import payload_bytes
from iovirt_dist.gateway.vhost_user.events import signal_eventfd, write_request
from iovirt_dist.gateway.vhost_user.messages import HEADER, MAX_REGIONS

MAX_UNSENT: Final = 64
"""Replies that wait; a front end that does not read them is cut off."""

_AT_ONCE: Final = 16
"""Messages that are read before others have their turn."""
_ACCEPT_AGAIN_S: Final = 1.0
_FD_BYTES: Final = array.array("i").itemsize
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(MAX_REGIONS * _FD_BYTES)
_FLAGS: Final = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC

_log = logging.getLogger(__name__)


class Receiver(Protocol):
    """Who decides: a `Backend`, or what stands for one; what it does not return at once comes by `perform`."""

    @property
    def counts(self) -> BackendCounts:
        """What happened."""
        ...

    def connect(self) -> Sequence[Action]:
        """A front end came."""
        ...

    def receive(self, data: bytes, fds: Sequence[int]) -> Sequence[Action]:
        """A message came, whole; its descriptors are the receiver's now."""
        ...

    def disconnect(self) -> Sequence[Action]:
        """The front end went; does nothing if that is known."""
        ...


class FrontEndListener:
    """The socket of one device.

    Args:
        path: Of the socket.
        backend: Decides.
        perform: Performs those actions that are about the device: queues, memory, status, reset.
    """

    def __init__(self, path: Path, backend: Receiver, perform: Callable[[Action], None]) -> None:
        self._path = path
        self._backend = backend
        self._perform_for_device = perform
        self._actions: deque[Action] = deque()
        self._performing = False
        self._listening: socket.socket | None = None
        self._link: _Link | None = None

    def start(self) -> None:
        """Listen, from within the event loop. The file of an owner that is gone is replaced.

        Raises:
            EndpointError: Another process listens there, or nobody can.
        """
        self._listening = listen_at(self._path)
        self.listen()

    def stop(self) -> None:
        """Close the connection, stop listening, and remove the file."""
        self._close_link()
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None
            self._path.unlink(missing_ok=True)

    def perform(self, actions: Iterable[Action]) -> None:
        """Perform what the back end wants, behind all that it wanted before."""
        self._actions.extend(actions)
        if self._performing:
            return
        self._performing = True
        try:
            while self._actions:
                self._do(self._actions.popleft())
        finally:
            self._performing = False

    def _do(self, action: Action) -> None:
        match action:
            case Send(data, fds):
                if self._link is None:
                    close_all(fds)
                elif not self._link.send(data, fds):
                    self._close_link()
            case SendRequest(fd, data):
                if not write_request(fd, data):
                    _log.warning("%s: the front end does not read requests", self._path.name)
            case Signal(fd):
                signal_eventfd(fd)
            case CloseFds(fds):
                close_all(fds)
            case Disconnect(reason):
                _log.warning("%s: front end cut off: %s", self._path.name, reason)
                self._close_link()
            case Note(text):
                _log.warning("%s: %s", self._path.name, text)
            case _:
                self._perform_for_device(action)

    # --- connections

    def listen(self) -> None:
        """Accept again, if that was given up for a while; does nothing once stopped."""
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        assert self._listening is not None
        try:
            connected, _ = self._listening.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptors, no memory: it stays readable
            _log.warning("%s: cannot accept: %s", self._path.name, error.strerror)
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._listening)
            loop.call_later(_ACCEPT_AGAIN_S, self.listen)
            return
        if self._link is not None:
            self._readable()  # it may have gone without our knowing
        if self._link is not None:
            _log.warning("%s: a second front end is sent away", self._path.name)
            connected.close()
            return
        connected.setblocking(False)
        self._link = _Link(connected)
        asyncio.get_running_loop().add_reader(connected, self._readable)
        _log.info("%s: front end connected", self._path.name)
        self.perform(self._backend.connect())

    def _readable(self) -> None:
        for _ in range(_AT_ONCE):
            link = self._link
            if link is None:
                return
            try:
                message = link.receive()
            except DecodeError as error:
                _log.warning("%s: front end cut off: %s", self._path.name, error)
                self._backend.counts.rejects[error.reason] += 1
                self._close_link()
                return
            except OSError:
                self._close_link()
                return
            if message is None:
                return
            self.perform(self._backend.receive(*message))

    def _close_link(self) -> None:
        link, self._link = self._link, None
        if link is None:
            return
        link.close()
        _log.info("%s: front end gone", self._path.name)
        self.perform(self._backend.disconnect())


class _Link:
    """One connection: parts of a message on the way in, and replies on the way out."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._data = b""
        self._fds: tuple[int, ...] = ()
        self._unsent: deque[tuple[memoryview, tuple[int, ...]]] = deque()

    def receive(self) -> tuple[bytes, tuple[int, ...]] | None:
        """Return the next message and its descriptors, which are the caller's; None if it is not all there.

        Raises:
            DecodeError: What comes is no message; descriptors are closed with the link.
            OSError: The connection is gone.
        """
        while True:
            missing = HEADER.size - len(self._data)
            if missing <= 0:
                missing += payload_bytes(self._data[: HEADER.size])
            if missing == 0:
                message = self._data, self._fds
                self._data, self._fds = b"", ()
                return message
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(missing, _ANCILLARY_BYTES, _FLAGS)
            except BlockingIOError:
                return None
            self._fds += descriptors(ancillary)
            if not data:
                raise ConnectionResetError
            if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_REGIONS:
                raise DecodeError("file-count", "more descriptors than any message has")
            self._data += data

    def send(self, data: bytes, fds: tuple[int, ...]) -> bool:
        """Send, now or as soon as there is room; descriptors are closed then. Return whether the peer still reads."""
        self._unsent.append((memoryview(data), fds))
        return len(self._unsent) <= MAX_UNSENT and self._send_more()

    def close(self) -> None:
        """Close, with all descriptors that are on their way."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        loop.remove_writer(self._socket)
        self._socket.close()
        close_all(self._fds)
        for _, fds in self._unsent:
            close_all(fds)
        self._fds = ()
        self._unsent.clear()

    def _writable(self) -> None:
        """Go on sending. If that fails, end the connection in both directions: its end is found where it is read."""
        if not self._send_more():
            asyncio.get_running_loop().remove_writer(self._socket)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _send_more(self) -> bool:
        while self._unsent:
            data, fds = self._unsent[0]
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self._socket.sendmsg([data], ancillary, socket.MSG_DONTWAIT)
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(self._socket, self._writable)
                return True
            except OSError:
                return False
            close_all(fds)
            if sent < len(data):
                self._unsent[0] = data[sent:], ()
            else:
                self._unsent.popleft()
        asyncio.get_running_loop().remove_writer(self._socket)
        return True


def descriptors(ancillary: Iterable[tuple[int, int, bytes]]) -> tuple[int, ...]:
    """Return the descriptors in what came beside the data; each is open in this process now."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % _FD_BYTES])
    return tuple(fds)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors, whatever they are."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
