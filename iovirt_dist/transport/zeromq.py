"""Messages between processes over ZeroMQ: the side that listens is a ROUTER, the side that dials a DEALER.

Chosen options, and why (zmq_setsockopt(3)):

- ROUTER_MANDATORY: a message to an unknown or full peer is refused, not dropped in silence.
- Addresses of peers are the ROUTER's own, new for each connection; who the peer is, HELLO says. So no two peers can
  clash, and ROUTER_HANDOVER stays off.
- IMMEDIATE stays off: what a DEALER sends before it is connected waits in its pipe, so a HELLO is there the moment the
  listener comes up. What of it is stale then is recognised by its epochs (`wire.session`).
- Heartbeats notice a dead host below the session; they are set before connect or bind, as they must be.
- MAXMSGSIZE bounds a frame before it is allocated, the high-water marks bound messages; both are backstops above the
  codec's limits and the session's credits and window.
- LINGER is short: what matters has been acknowledged.
"""

from __future__ import annotations

import contextlib
import errno
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import zmq

from iovirt_dist.errors import ConfigError, EndpointError
from iovirt_dist.transport.address import IpcClaim, check_endpoint, ipc_path
from iovirt_dist.transport.curve import Security
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.transport.zap import Door, open_door, shut_door
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES, MAX_PAYLOAD_FRAMES, Buffer

ZERO_COPY_BYTES = 64 << 10
"""Frames from this size on are sent and received without a copy; below it the bookkeeping costs more than it saves."""
HIGH_WATER_MESSAGES = 8192
"""Per peer and direction: above the largest default window."""
HEARTBEAT_MS = 1000
HEARTBEAT_TIMEOUT_MS = 3000
LINGER_MS = 200
MAX_NAMES = 4096
"""Connections whose owner is remembered; an older one is looked up again when it speaks."""
HANDSHAKE_MS = 5000
UNBIND_MS = 1000
CONNECT_MS = 2000
"""Without it Linux goes on with one attempt for minutes, asking ever more seldom, also once a link is whole again."""
RECONNECT_MS = 20
RECONNECT_CAP_MS = 100
"""Intervals double from the one to the other, so a process that is back is found within a tenth of a second."""
_DONT_WAIT = int(zmq.NOBLOCK)
_DONT_WAIT_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_WAIT = 0
_NO_COPY = False
_WOKEN, _IN_DOUBT, _LUCKY = range(3)


class ZeromqPort:
    """One ZeroMQ socket (contract: `transport.port.Port`). Made by `listen` and `dial`.

    Args:
        socket: Bound or connected, with its options set.
        endpoint: Its address.
        routed: Whether it is a ROUTER.
        claim: Ownership of its socket file.
        door: Who may connect; None: everybody who can.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        endpoint: str,
        routed: bool,
        claim: IpcClaim | None,
        door: Door | None = None,
    ) -> None:
        self._socket = socket
        self._endpoint = endpoint
        self._routed = routed
        self._claim = claim
        self._door = door
        self._names: dict[bytes, str] = {}
        self._closed = False
        self._fd = int(socket.getsockopt(zmq.FD))
        self._poll_set = [(socket, zmq.POLLIN)]
        self._patience_ms = -1
        # Receiving from an empty socket raises, which costs more than twice a look. So look first, except when a
        # message is likely: the first time after nothing was there (who asks then was woken), and once two receives
        # in a row found one.
        self._luck = _WOKEN
        # The C method below zmq.Socket.send, which only adds options that DEALER and ROUTER do not have. Methods are
        # bound once because zmq.Socket looks its attributes up in Python.
        self._send: Callable[..., object] = super(zmq.Socket, socket).send
        self._receive: Callable[..., Any] = socket.recv

    @property
    def endpoint(self) -> str:
        """Where this port listens (with the port that was chosen), or what it dials."""
        return self._endpoint

    @property
    def refused(self) -> Mapping[str, int]:
        """Handshakes that failed, by reason (see `transport.zap.Door`); empty without security."""
        return self._door.refused if self._door is not None else Counter()

    def identity(self, peer: bytes) -> str | None:
        """Whose key the peer at this address has proved to own; None if this port believes whoever connects."""
        return self._names.get(peer, "") if self._door is not None else None

    def admit(self, security: Security, clients: Iterable[str] | None = None) -> None:
        """Let others connect from now on, as of `listen`; who is connected stays."""
        if self._door is not None:
            self._door.clients = security.clients(clients)

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> bool:
        """Hand a message to ZeroMQ; False if the peer is unknown, its pipe is full, or the port is closed."""
        if not frames:
            return True
        send = self._send
        try:
            if self._routed:
                send(peer, _DONT_WAIT_MORE)
            elif peer != ONLY_PEER:
                return False
            if len(frames) > 1:
                for frame in frames[:-1]:
                    if len(frame) < ZERO_COPY_BYTES:
                        send(frame, _DONT_WAIT_MORE)
                    else:
                        send(uncopied(frame), _DONT_WAIT_MORE, _NO_COPY)
            last = frames[-1]
            if len(last) < ZERO_COPY_BYTES:
                send(last, _DONT_WAIT)
            else:
                send(uncopied(last), _DONT_WAIT, _NO_COPY)
        except zmq.ZMQError:
            return False
        return True

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        """Take the next message; frames beyond what any message may have are thrown away as they come."""
        if self._luck == _IN_DOUBT and not self.pending():
            return None
        return self._take(_DONT_WAIT)

    def receive_wait(self, timeout_ms: int) -> tuple[bytes, list[Buffer]] | None:
        """Take the next message, or wait for it, without holding the interpreter lock."""
        if self._closed:
            return None
        if timeout_ms != self._patience_ms:
            self._patience_ms = timeout_ms
            self._socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
        return self._take(_WAIT)

    def _take(self, flags: int) -> tuple[bytes, list[Buffer]] | None:
        receive = self._receive
        try:
            peer = receive(flags) if self._routed else ONLY_PEER
            frame = receive(flags, _NO_COPY)
            if self._door is not None and peer not in self._names:
                self._learn(peer, frame)
            frames: list[Buffer] = [frame.bytes]
            while frame.more:
                frame = receive(flags, _NO_COPY)
                if len(frames) <= MAX_PAYLOAD_FRAMES + 1:
                    frames.append(frame.buffer if len(frame) >= ZERO_COPY_BYTES else frame.bytes)
        except zmq.ZMQError:
            self._luck = _WOKEN
            return None
        if self._luck < _LUCKY:
            self._luck += 1
        return peer, frames

    def _learn(self, peer: bytes, frame: zmq.Frame) -> None:
        """Remember whose connection this is, once; every message of it says so."""
        if len(self._names) >= MAX_NAMES:
            del self._names[next(iter(self._names))]
        self._names[peer] = str(frame.get("User-Id"))

    def pending(self) -> bool:
        """Whether a message is there; lets ZeroMQ do its work, as every question does."""
        if self._closed:
            return False  # a closed socket would be polled as descriptor 0
        try:
            there = bool(zmq.zmq_poll(self._poll_set, 0))  # one C call; the option EVENTS costs two Python ones more
        except zmq.ZMQError:
            return False
        self._luck = _LUCKY if there else _WOKEN
        return there

    def fileno(self) -> int:
        """ZeroMQ's edge-triggered descriptor."""
        return self._fd

    def close(self) -> None:
        """Close the socket and give the address back."""
        if not self._closed:
            self._closed = True
            if self._door is not None:
                shut_door(self._socket.context, self._socket, self._door)
            if self._routed and self._claim is None:
                _unbind(self._socket, self._endpoint)
            self._socket.close(LINGER_MS)
        if self._claim is not None:
            self._claim.release()


def uncopied(frame: Buffer) -> Buffer | zmq.Frame:
    """What to send for a large frame: one that came from ZeroMQ goes back to it as it is.

    ZeroMQ counts references of its own messages. To lend it other memory takes pyzmq's thread, which learns of each
    frame when it is sent and when it is free, and wants the interpreter for both.
    """
    if isinstance(frame, memoryview):
        owner = frame.obj
        if isinstance(owner, zmq.Frame) and len(owner) == len(frame):
            return owner
    return frame


def listen(
    endpoint: str,
    security: Security | None = None,
    clients: Iterable[str] | None = None,
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
) -> ZeromqPort:
    """Listen at an address.

    Args:
        endpoint: ``ipc://PATH``, whose directory is made with mode 0700 if missing, or ``tcp://HOST:PORT``, where
            port ``*`` is any free one (see `ZeromqPort.endpoint`).
        security: Own key pair and whom to believe: only those connect, and what passes is encrypted. Of no meaning
            for ipc, where the directory keeps others out.
        clients: Who of the trusted may connect; None for all of them.
        context: ZeroMQ context; the process's own if None.

    Raises:
        EndpointError: The address is malformed, in use, not on this host, or its directory is not ours alone.
    """
    check_endpoint(endpoint, listening=True)
    claim = IpcClaim(endpoint) if ipc_path(endpoint) is not None else None
    socket = _socket(context, zmq.ROUTER, endpoint)
    door: Door | None = None
    try:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        if security is not None and claim is None:
            socket.curve_server = True
            socket.curve_secretkey = security.secret
            door = open_door(socket.context, socket, security.clients(clients))
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        if door is not None:
            shut_door(socket.context, socket, door)
        socket.close(0)
        if claim is not None:
            claim.release()
        raise _endpoint_error(endpoint, error) from None
    bound = endpoint if claim is not None else str(socket.getsockopt_string(zmq.LAST_ENDPOINT))
    return ZeromqPort(socket, bound, True, claim, door)


def dial(
    endpoint: str,
    security: Security | None = None,
    server: str = "",
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
) -> ZeromqPort:
    """Dial an address; nobody need be there yet, and the connection is made again whenever it breaks.

    Args:
        endpoint: ``ipc://PATH`` or ``tcp://HOST:PORT``.
        security: Own key pair and whom to believe; of no meaning for ipc.
        server: Whose key must be found there; among the trusted.
        context: ZeroMQ context; the process's own if None.

    Raises:
        EndpointError: The address is malformed.
        ConfigError: There is no key of `server`.
    """
    check_endpoint(endpoint, listening=False)
    socket = _socket(context, zmq.DEALER, endpoint)
    try:
        if security is not None and ipc_path(endpoint) is None:
            socket.curve_serverkey = security.server_key(server, endpoint)
            socket.curve_publickey, socket.curve_secretkey = security.public, security.secret
        socket.connect(endpoint)
    except ConfigError:
        socket.close(0)
        raise
    except zmq.ZMQError as error:
        socket.close(0)
        raise _endpoint_error(endpoint, error) from None
    return ZeromqPort(socket, endpoint, False, None)


def _socket(context: zmq.Context[zmq.Socket[bytes]] | None, kind: int, endpoint: str) -> zmq.Socket[bytes]:
    """A socket with the options that both sides share; of IPv6 if the address is written so."""
    socket = (context or zmq.Context.instance()).socket(kind)
    for option, value in (
        (zmq.LINGER, LINGER_MS),
        (zmq.SNDHWM, HIGH_WATER_MESSAGES),
        (zmq.RCVHWM, HIGH_WATER_MESSAGES),
        (zmq.MAXMSGSIZE, MAX_PAYLOAD_BYTES),
        (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
        (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS),
        (zmq.HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS),
        (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
        (zmq.CONNECT_TIMEOUT, CONNECT_MS),
        (zmq.RECONNECT_IVL, RECONNECT_MS),
        (zmq.RECONNECT_IVL_MAX, RECONNECT_CAP_MS),
        (zmq.IPV6, int(endpoint.startswith("tcp://["))),
    ):
        socket.setsockopt(option, value)
    socket.copy_threshold = ZERO_COPY_BYTES
    return socket


def _unbind(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Give a TCP port back before going on: ZeroMQ's own thread closes it some time after unbind and close return."""
    with contextlib.suppress(zmq.ZMQError):
        monitor = socket.get_monitor_socket(int(zmq.EVENT_CLOSED))
        socket.unbind(endpoint)
        monitor.poll(UNBIND_MS)
        socket.disable_monitor()
        monitor.close(0)


def _endpoint_error(endpoint: str, error: zmq.ZMQError) -> EndpointError:
    """One line for what bind or connect did not like."""
    match error.errno:
        case errno.EADDRINUSE:
            return EndpointError("address is in use", endpoint, "stop what listens there or choose another port")
        case errno.EADDRNOTAVAIL | errno.ENODEV:
            return EndpointError("address is not on this host", endpoint, "use one of its addresses, or tcp://*:PORT")
        case _:
            return EndpointError((error.strerror or "cannot be used").lower(), endpoint, "check the address")
