"""A network inside one process, in virtual time, that can delay, lose, double and reorder.

It behaves as ZeroMQ does where the layers above can see it: a listening port gives each connection an address of its
own and knows who dialled; a dialling port may come first, and what it sends waits for the listener; what was under way
to a closed port is lost. What happens to a message is decided by a `LinkModel` and a random generator per link, seeded,
so that one run equals the next and one link's traffic does not change another's luck.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple, Protocol

from iovirt_dist.errors import EndpointError
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES, Buffer

DEFAULT_CAPACITY = 8192
"""Messages under way or unread per direction of a connection, as ZeroMQ's high-water mark."""


class Delivery(NamedTuple):
    """One arrival of a message.

    Attributes:
        at_ns: Virtual time of the arrival, not before the sending.
        in_order: It arrives no earlier than what was sent before it on the link.
    """

    at_ns: int
    in_order: bool = True


class LinkModel(Protocol):
    """Decides what becomes of a message; `iovirt_dist.faults.link.Faults` is one."""

    def deliveries(self, now_ns: int, random: Random) -> Sequence[Delivery]:
        """Arrivals of one message sent at `now_ns`: none if it is lost, two if it is doubled."""
        ...


class PerfectLink:
    """Delivers everything at once."""

    def deliveries(self, now_ns: int, random: Random) -> Sequence[Delivery]:  # noqa: ARG002 - the seam's signature
        """One arrival, now."""
        return (Delivery(now_ns),)


class _Pipe:
    """One direction of one connection."""

    __slots__ = ("address", "connection", "destination", "last_at_ns", "load", "random", "route")

    def __init__(
        self, connection: _Connection, destination: MemoryPort, address: bytes, route: tuple[str, str], random: Random
    ) -> None:
        self.connection = connection
        self.destination = destination
        self.address = address
        self.route = route
        self.random = random
        self.last_at_ns = 0
        self.load = 0


class _Connection:
    """A dialling and a listening port that have found each other.

    Attributes:
        address: The address of the dialling port at the listening one.
        open: Neither port has closed.
    """

    __slots__ = ("address", "dialler", "listener", "open", "to_dialler", "to_listener")

    def __init__(self, dialler: MemoryDialler, listener: MemoryListener, number: int, seed: int) -> None:
        self.dialler = dialler
        self.listener = listener
        self.open = True
        self.address = b"\0" + number.to_bytes(4, "big")
        up, down = (dialler.name, listener.name), (listener.name, dialler.name)
        self.to_listener = _Pipe(self, listener, self.address, up, Random(f"{seed} {up} {number}"))  # noqa: S311 - reproducible luck, no secret
        self.to_dialler = _Pipe(self, dialler, ONLY_PEER, down, Random(f"{seed} {down} {number}"))  # noqa: S311 - as above


class MemoryNetwork:
    """All ports of a simulated system.

    Args:
        clock: Gives the virtual time in nanoseconds; never falls.
        seed: Seeds every link's luck.
        faults: Model of every link that has none of its own.
        capacity: Most messages per direction of a connection that are under way or unread.

    Attributes:
        lost: Messages that a model lost, that were too large, or that were under way to a port that closed.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        seed: int = 0,
        faults: LinkModel | None = None,
        capacity: int = DEFAULT_CAPACITY,
    ) -> None:
        self.lost = 0
        self.capacity = capacity
        self._clock = clock
        self._seed = seed
        self._model: LinkModel = faults or PerfectLink()
        self._models: dict[tuple[str, str], LinkModel] = {}
        self._listeners: dict[str, MemoryListener] = {}
        self._diallers: dict[str, list[MemoryDialler]] = {}
        self._events: list[tuple[int, int, _Pipe, list[Buffer]]] = []
        self._sent = self._connections = self._dialled = 0

    def listen(self, endpoint: str) -> MemoryListener:
        """Open a listening port; whoever dialled before it is connected now.

        Raises:
            EndpointError: Another port listens there.
        """
        if endpoint in self._listeners:
            raise EndpointError("address is in use", endpoint, "close the port that listens there")
        port = self._listeners[endpoint] = MemoryListener(self, endpoint, endpoint)
        for dialler in self._diallers.get(endpoint, ()):
            self._connect(dialler, port)
        return port

    def dial(self, endpoint: str, name: str = "") -> MemoryDialler:
        """Open a dialling port; `name` is its end of the link for `set_faults`, and whose key it has."""
        self._dialled += 1
        port = MemoryDialler(self, endpoint, name or f"dialler-{self._dialled}")
        self._diallers.setdefault(endpoint, []).append(port)
        listener = self._listeners.get(endpoint)
        if listener is not None:
            self._connect(port, listener)
        return port

    def set_faults(self, faults: LinkModel, source: str = "", destination: str = "") -> None:
        """Change the model of the link from `source` to `destination` (endpoint or dialler's name), or of all links."""
        if source or destination:
            self._models[source, destination] = faults
        else:
            self._model = faults
            self._models.clear()

    def next_event_ns(self) -> int | None:
        """Virtual time of the next arrival; None if nothing is under way."""
        return self._events[0][0] if self._events else None

    def advance(self) -> int:
        """Deliver what has arrived by now; returns how many messages."""
        now_ns = self._clock()
        events = self._events
        count = 0
        while events and events[0][0] <= now_ns:
            pipe, frames = heapq.heappop(events)[2:]
            if pipe.connection.open:
                pipe.destination.inbox.append((pipe, frames))
                count += 1
            else:
                self.lost += 1
        return count

    def transmit(self, pipe: _Pipe, frames: Sequence[Buffer]) -> bool:
        """Put a message on its way; False if the pipe is full."""
        if pipe.load >= self.capacity:
            return False
        now_ns = self._clock()
        deliveries = self._models.get(pipe.route, self._model).deliveries(now_ns, pipe.random)
        if not deliveries or any(len(frame) > MAX_PAYLOAD_BYTES for frame in frames):
            self.lost += 1
            return True
        copies: list[Buffer] = [bytes(frame) for frame in frames]
        for delivery in deliveries:
            at_ns = max(delivery.at_ns, now_ns)
            if delivery.in_order:
                at_ns = pipe.last_at_ns = max(at_ns, pipe.last_at_ns)
            self._sent += 1
            pipe.load += 1
            heapq.heappush(self._events, (at_ns, self._sent, pipe, list(copies)))
        return True

    def _connect(self, dialler: MemoryDialler, listener: MemoryListener) -> None:
        """Join two ports, and send what waited for it."""
        self._connections += 1
        connection = _Connection(dialler, listener, self._connections, self._seed)
        dialler.connection = connection
        listener.connections[connection.address] = connection
        while dialler.waiting:
            self.transmit(connection.to_listener, dialler.waiting.popleft())

    def forget(self, port: MemoryPort) -> None:
        """A port has closed."""
        if isinstance(port, MemoryListener):
            del self._listeners[port.endpoint]
        elif isinstance(port, MemoryDialler):
            self._diallers[port.endpoint].remove(port)


class MemoryPort(ABC):
    """What both kinds of port do (contract: `transport.port.Port`)."""

    def __init__(self, network: MemoryNetwork, endpoint: str, name: str) -> None:
        self.name = name
        self.inbox: deque[tuple[_Pipe, list[Buffer]]] = deque()
        self.closed = False
        self.network = network
        self._endpoint = endpoint

    @property
    def endpoint(self) -> str:
        """Where this port listens, or what it dials."""
        return self._endpoint

    @abstractmethod
    def send(self, peer: bytes, frames: Sequence[Buffer]) -> bool:
        """Put a message on its way; the frames are copied."""

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        """Take the next message that has arrived by now."""
        if not self.pending():
            return None
        pipe, frames = self.inbox.popleft()
        pipe.load -= 1
        return pipe.address, frames

    def pending(self) -> bool:
        """Whether a message has arrived by now."""
        if not self.inbox and not self.closed:
            self.network.advance()
        return bool(self.inbox)

    def fileno(self) -> int:
        """There is no descriptor in virtual time: -1."""
        return -1

    def receive_wait(self, timeout_ms: int) -> tuple[bytes, list[Buffer]] | None:  # noqa: ARG002 - the seam's signature
        """Virtual time stands still while anybody waits, so the answer comes at once."""
        return self.receive()

    def close(self) -> None:
        """Cut the connections; what is under way is lost."""
        if self.closed:
            return
        self.closed = True
        self.inbox.clear()
        self.network.forget(self)
        self._cut()

    @abstractmethod
    def _cut(self) -> None:
        """End the connections."""


class MemoryListener(MemoryPort):
    """Listening port; `connections` by the peer's address."""

    def __init__(self, network: MemoryNetwork, endpoint: str, name: str) -> None:
        super().__init__(network, endpoint, name)
        self.connections: dict[bytes, _Connection] = {}

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> bool:
        """As in `MemoryPort`; False for an address without a connection."""
        if not frames:
            return True
        connection = self.connections.get(peer)
        return connection is not None and self.network.transmit(connection.to_dialler, frames)

    def identity(self, peer: bytes) -> str | None:
        """Who dialled; empty for an address without a connection."""
        connection = self.connections.get(peer)
        return connection.dialler.name if connection is not None else ""

    def _cut(self) -> None:
        for connection in self.connections.values():
            connection.open = False
            connection.dialler.connection = None
        self.connections.clear()


class MemoryDialler(MemoryPort):
    """Dialling port; what is sent while nobody listens waits, within the capacity."""

    def __init__(self, network: MemoryNetwork, endpoint: str, name: str) -> None:
        super().__init__(network, endpoint, name)
        self.connection: _Connection | None = None
        self.waiting: deque[list[Buffer]] = deque()

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> bool:
        """As in `MemoryPort`; False for any address but ``b""``."""
        if not frames:
            return True
        if self.closed or peer != ONLY_PEER:
            return False
        if self.connection is not None:
            return self.network.transmit(self.connection.to_listener, frames)
        if len(self.waiting) >= self.network.capacity:
            return False
        self.waiting.append([bytes(frame) for frame in frames])
        return True

    def _cut(self) -> None:
        if self.connection is not None:
            self.connection.open = False
            self.connection.listener.connections.pop(self.connection.address, None)
            self.connection = None
        self.waiting.clear()
