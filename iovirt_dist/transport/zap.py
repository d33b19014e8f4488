"""Decides who may connect, while ZeroMQ shakes hands: the authenticator of the ZAP protocol (rfc.zeromq.org/spec/27).

ZeroMQ asks a socket at ``inproc://zeromq.zap.01``, one for all sockets of a context, with the key that the peer has
proved to own, and shuts out whom it does not approve of. The answer's user id is the name of the key; ZeroMQ gives it
with each message of the connection ("User-Id"). Who does not even get so far, because it speaks without CURVE, or not
ZeroMQ at all, is reported by the socket's monitor (zmq_socket_monitor(3)). Both are served by one small thread, which
sleeps but for handshakes, so that it works whatever waits for the socket itself: an event loop or a vCPU's thread. If
it failed, nobody would be let in: the sockets insist on an answer (ZMQ_ZAP_ENFORCE_DOMAIN).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import zmq

ADDRESS: Final = "inproc://zeromq.zap.01"
VERSION: Final = b"1.0"
_REQUEST_FRAMES: Final = 6
"""Version, request id, domain, address, identity, mechanism; the mechanism's credentials follow."""
_KEY_BYTES: Final = 32
_EVENT: Final = struct.Struct("=HI")
"""A monitor's event and its value."""
_FAILURES: Final = {
    int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL): "bad-handshake",
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL): "broken-handshake",
}
"""What a monitor reports and the authenticator never sees. What it sees it counts itself, with a better reason."""
_STOPPED: Final = int(zmq.EVENT_MONITOR_STOPPED)
_EVENTS: Final = sum(_FAILURES) | _STOPPED
_READABLE: Final = int(zmq.POLLIN)
_DONT_WAIT: Final = int(zmq.NOBLOCK)


class Door:
    """Who may connect to one listening socket, and how many were turned away.

    Args:
        clients: Names by public key, 32 bytes.

    Attributes:
        clients: As given; may be replaced at any time, which holds for later connections.
        refused: Handshakes that failed, by reason: ``unknown-key``, ``bad-handshake`` (no CURVE, or not by its
            rules), ``broken-handshake`` (gone, or too slow, in the middle of it), ``bad-request``.
    """

    def __init__(self, clients: Mapping[bytes, str]) -> None:
        self.domain = b"iovirt.%d" % next(_numbers)
        self.clients = clients
        self.refused: Counter[str] = Counter()


def judge(request: Sequence[bytes], doors: Mapping[bytes, Door]) -> list[bytes]:
    """Answer one request of ZeroMQ.

    Args:
        request: Its frames without the envelope.
        doors: By domain.

    Returns:
        The reply's frames: version, request id, status code and text, user id, metadata.
    """
    if len(request) < _REQUEST_FRAMES or request[0] != VERSION:
        return [VERSION, request[1] if len(request) > 1 else b"", b"500", b"bad request", b"", b""]
    door = doors.get(request[2])
    name, reason = None, "bad-request"
    if door is not None and request[5] == b"CURVE" and len(request) == 7 and len(request[6]) == _KEY_BYTES:
        name, reason = door.clients.get(request[6]), "unknown-key"
    if name is None:
        if door is not None:
            door.refused[reason] += 1
        return [VERSION, request[1], b"300", reason.encode(), b"", b""]
    return [VERSION, request[1], b"200", b"OK", name.encode(), b""]


class Doorkeeper:
    """The authenticator of one context: a thread, from the first door to the last.

    Args:
        context: Whose sockets it watches.

    Raises:
        zmq.ZMQError: The context has another authenticator.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._context = context
        self._doors: dict[bytes, Door] = {}
        self._new: deque[tuple[zmq.Socket[bytes], Door]] = deque()
        self._ending = False
        self._asks = context.socket(zmq.ROUTER)
        self._asks.linger = 0
        try:
            self._asks.bind(ADDRESS)
        except zmq.ZMQError:
            self._asks.close()
            raise
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="zap", daemon=True)
        self._thread.start()

    def open(self, door: Door, socket: zmq.Socket[bytes]) -> None:
        """Keep a door from now on; its socket is not bound yet."""
        address = f"inproc://monitor.{door.domain.decode()}"
        socket.monitor(address, _EVENTS)
        monitor = self._context.socket(zmq.PAIR)
        monitor.linger = 0
        monitor.connect(address)
        self._doors[door.domain] = door
        self._new.append((monitor, door))
        os.eventfd_write(self._wake, 1)

    def shut(self, door: Door, socket: zmq.Socket[bytes]) -> bool:
        """Let nobody in at this door any more; True if it was the last one, and the thread has ended."""
        socket.disable_monitor()
        self._doors.pop(door.domain, None)
        if self._doors:
            return False
        self._ending = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        return True

    def _run(self) -> None:
        """The thread."""
        monitors: dict[zmq.Socket[bytes], Door] = {}
        with contextlib.suppress(zmq.ContextTerminated):
            while not self._ending:
                sockets: list[Any] = [self._wake, self._asks, *monitors]
                ready = [socket for socket, _ in zmq.zmq_poll([(socket, _READABLE) for socket in sockets])]
                self._serve(ready, monitors)
            self._asks.unbind(ADDRESS)  # at once: closing gives the address back some time later
        for socket in (self._asks, *monitors, *(socket for socket, _ in self._new)):
            socket.close()

    def _serve(self, ready: list[Any], monitors: dict[zmq.Socket[bytes], Door]) -> None:
        if self._wake in ready:
            os.eventfd_read(self._wake)
            while self._new:
                socket, door = self._new.popleft()
                monitors[socket] = door
        for socket in ready:
            if socket is self._asks:
                self._answer()
            elif socket in monitors and not _note(socket, monitors[socket]):
                del monitors[socket]
                socket.close()

    def _answer(self) -> None:
        """Answer one request; an answer that cannot be given is a refusal."""
        with contextlib.suppress(zmq.Again):
            frames = self._asks.recv_multipart(_DONT_WAIT)
            envelope = frames.index(b"") + 1 if b"" in frames else len(frames)
            self._asks.send_multipart([*frames[:envelope], *judge(frames[envelope:], self._doors)], _DONT_WAIT)


def _note(monitor: zmq.Socket[bytes], door: Door) -> bool:
    """Count what a monitor reports; False once it has ended."""
    with contextlib.suppress(zmq.Again):
        number, _ = _EVENT.unpack(monitor.recv_multipart(_DONT_WAIT)[0])
        if number in _FAILURES:
            door.refused[_FAILURES[number]] += 1
        return bool(number != _STOPPED)
    return True


_numbers = itertools.count(1)
_keepers: dict[zmq.Context[zmq.Socket[bytes]], Doorkeeper] = {}
_lock = threading.Lock()


def open_door(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], clients: Mapping[bytes, str]) -> Door:
    """Let only `clients` connect to a socket that is about to be bound, as its CURVE server.

    Args:
        context: The socket's.
        socket: With its CURVE options set.
        clients: Names by public key, 32 bytes.

    Raises:
        zmq.ZMQError: Something else authenticates in this context.
    """
    door = Door(clients)
    socket.zap_domain = door.domain
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    with _lock:
        if context not in _keepers:
            _keepers[context] = Doorkeeper(context)
        _keepers[context].open(door, socket)
    return door


def shut_door(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], door: Door) -> None:
    """Undo `open_door`, before the socket is closed."""
    with _lock:
        if _keepers[context].shut(door, socket):
            del _keepers[context]
