"""The hypervisor and controller processes of a rig: the same cores as the real processes, in virtual time.

What `iovirt_dist.runtime` does with sockets and an event loop, a node does with a `MemoryNetwork` and the rig's clock:
take a message, let the core handle it, perform the actions.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from iovirt_dist.controllers import front as cf
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.errors import LocalError
from iovirt_dist.hypervisor import events as hv
from iovirt_dist.hypervisor.core import Hypervisor
from iovirt_dist.hypervisor.plan import GuestPlan
from iovirt_dist.step import TracePoint
from iovirt_dist.testing.clock import VirtualClock
from iovirt_dist.testing.trace import MessageTrace
from iovirt_dist.transport.memory import MemoryDialler, MemoryListener, MemoryNetwork
from iovirt_dist.transport.port import ONLY_PEER, key_fits
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig

CONTROLLER_CREDITS = 64


class LogLine(NamedTuple):
    """What a node would have logged.

    Attributes:
        at_ns: Virtual time.
        node: Who.
        text: What.
    """

    at_ns: int
    node: str
    text: str


class World(NamedTuple):
    """What all nodes of a rig share."""

    clock: VirtualClock
    network: MemoryNetwork
    messages: MessageTrace
    log: list[LogLine]
    points: list[TracePoint]
    lease_ms: int


class Node(ABC):
    """A simulated process.

    Args:
        name: Its name, which is also the endpoint at which it listens.
        world: What it shares with the others.

    Attributes:
        lives: How often it was started: the epoch of the present life.
        running: Whether it lives now.
        suspended: It lives but does nothing, as after SIGSTOP.
    """

    def __init__(self, name: str, world: World) -> None:
        self.name = name
        self.lives = 0
        self.running = False
        self.suspended = False
        self.world = world

    def start(self) -> None:
        """Begin a new life.

        Raises:
            LocalError: It lives.
        """
        if self.running:
            raise LocalError("it runs already", self.name, "kill or stop it first")
        self.lives += 1
        self.running, self.suspended = True, False
        self._begin()

    def kill(self) -> None:
        """End this life as SIGKILL does: no goodbye; what was under way to it is lost."""
        if self.running:
            self.running = False
            self._end()

    def say_goodbye(self) -> None:
        """Begin an orderly end, as SIGTERM does; `kill` it when its goodbyes have left."""
        if self.running:
            self._farewell("shutting down")

    def log(self, text: str) -> None:
        """Keep a line for `Rig.log`."""
        self.world.log.append(LogLine(self.world.clock.now_ns, self.name, text))

    def take_from(self, port: MemoryListener | MemoryDialler) -> tuple[bytes, list[Buffer]] | None:
        """Take the next message that has arrived at a port, and put it on record."""
        message = port.receive()
        if message is not None:
            sender = port.endpoint
            if isinstance(port, MemoryListener):
                connection = port.connections.get(message[0])
                sender = connection.dialler.name if connection else "?"
            self.world.messages.record(self.world.clock.now_ns, sender, self.name, message[1])
        return message

    @abstractmethod
    def handle_message(self) -> bool:
        """Handle one message that has arrived; False if none has."""

    @abstractmethod
    def deadline_ns(self) -> int | None:
        """When `tick` is due."""

    @abstractmethod
    def tick(self) -> None:
        """Do what is due now."""

    @abstractmethod
    def busy(self) -> str:
        """What of its own is under way, one line; empty for nothing."""

    @abstractmethod
    def _begin(self) -> None:
        """Build the core and open the ports."""

    @abstractmethod
    def _end(self) -> None:
        """Close the ports."""

    @abstractmethod
    def _farewell(self, reason: str) -> None:
        """Let the core say goodbye."""


class HypervisorNode(Node):
    """The hypervisor.

    Args:
        name: Its name.
        world: What it shares with the others.
        plans: Builds the guests' plans on queue pairs by controller name.
        controllers: Names of the controllers, which are their endpoints.
        settling: Those of them whose commands end by themselves.
        wall_ns: Wall clock at virtual time 0.
    """

    core: Hypervisor

    def __init__(
        self,
        name: str,
        world: World,
        plans: Callable[[Mapping[str, QueuePair]], Mapping[str, GuestPlan]],
        controllers: tuple[str, ...],
        settling: tuple[str, ...],
        wall_ns: int,
    ) -> None:
        super().__init__(name, world)
        self._plans = plans
        self._controllers = controllers
        self._settling = settling
        self._wall_ns = wall_ns

    def handle_message(self) -> bool:
        """Handle one message of a guest, else one of a controller."""
        if not self.running:
            return False
        message = self.take_from(self._guests)
        if message is not None:
            self._handle(hv.GuestFramesReceived(*message))
            return True
        for name, port in self._ports.items():
            message = self.take_from(port)
            if message is not None:
                self._handle(hv.ControllerFramesReceived(name, message[1]))
                return True
        return False

    def deadline_ns(self) -> int | None:
        """When the core is due."""
        return self.core.deadline_ns() if self.running else None

    def tick(self) -> None:
        """Fire the core's timer."""
        self._handle(hv.TimerFired())

    def busy(self) -> str:
        """Unacknowledged messages, and commands in flight except console receives, which wait for somebody to type."""
        if not self.running:
            return ""
        waiting = sum(opener.stream.unacknowledged() for opener in self.core.openers.values())
        for guest in self.core.guests:
            stream = self.core.acceptor.stream(guest)
            waiting += stream.unacknowledged() if stream is not None else 0
        in_flight = sum(self.core.config.controllers[name].in_flight for name in self._settling)
        if waiting or in_flight:
            return f"{self.name}: {waiting} messages unacknowledged, {in_flight} commands in flight"
        return ""

    def _begin(self) -> None:
        pairs = {name: QueuePair(name) for name in self._controllers}
        config = hv.HypervisorConfig(
            self.name, self.lives, self.world.lease_ms, self._wall_ns, self._plans(pairs), pairs
        )
        self.core = Hypervisor(config)
        self._guests = self.world.network.listen(self.name)
        self.core.acceptor.authenticate(key_fits(self._guests, str))
        self._ports = {name: self.world.network.dial(name, self.name) for name in self._controllers}
        self._handle(hv.Started())

    def _end(self) -> None:
        for port in (self._guests, *self._ports.values()):
            port.close()

    def _farewell(self, reason: str) -> None:
        self._handle(hv.StopRequested(reason))

    def _handle(self, event: hv.Event) -> None:
        for action in self.core.handle(event, self.world.clock.now_ns):
            if isinstance(action, hv.SendToGuest):
                self._guests.send(action.peer, action.frames)
            elif isinstance(action, hv.SendToController):
                self._ports[action.controller].send(ONLY_PEER, action.frames)
            elif isinstance(action, hv.Note):
                self.log(action.text)
            else:
                self.world.points.append(action)


class _Later(NamedTuple):
    """An outcome of I/O that takes virtual time."""

    at_ns: int
    number: int
    event: Any


class ControllerNode(Node):
    """A controller of any device class.

    Args:
        name: Its name.
        world: What it shares with the others.
        device: Makes the device core of a new life.
        perform: Does an I/O action of the device core; returns its outcome, if it has one.
        hypervisor: Who may open a queue pair.
        latency_ns: Virtual time between an I/O action and its outcome.
    """

    front: cf.ControllerFront[Any, Any]

    def __init__(
        self,
        name: str,
        world: World,
        device: Callable[[], cf.DeviceCore[Any, Any]],
        perform: Callable[[Any], Any | None],
        hypervisor: str,
        latency_ns: int = 0,
    ) -> None:
        super().__init__(name, world)
        self.latency_ns = latency_ns
        self._make_device = device
        self._perform = perform
        self._hypervisor = hypervisor
        self._later: list[_Later] = []
        self._numbered = 0

    def handle_message(self) -> bool:
        """Handle one message of the hypervisor."""
        message = self.take_from(self._port) if self.running else None
        if message is not None:
            self.deliver(cf.FramesReceived(*message))
        return message is not None

    def deadline_ns(self) -> int | None:
        """When the core or an outcome is due."""
        if not self.running:
            return None
        due = self.front.deadline_ns()
        if self._later:
            due = min(due, self._later[0].at_ns) if due is not None else self._later[0].at_ns
        return due

    def tick(self) -> None:
        """Deliver outcomes that are due, and fire the core's timer."""
        now_ns = self.world.clock.now_ns
        while self._later and self._later[0].at_ns <= now_ns:
            self.deliver(heapq.heappop(self._later).event)
        self.deliver(cf.TimerFired())

    def busy(self) -> str:
        """Outcomes that are to come, and unacknowledged messages."""
        if not self.running:
            return ""
        stream = self.front.acceptor.stream(self._hypervisor)
        waiting = stream.unacknowledged() if stream is not None else 0
        if waiting or self._later:
            return f"{self.name}: {waiting} messages unacknowledged, {len(self._later)} accesses under way"
        return ""

    def deliver(self, event: Any) -> None:
        """Let the core handle an event, and perform what it says."""
        for action in self.front.handle(event, self.world.clock.now_ns):
            if isinstance(action, cf.Send):
                self._port.send(action.peer, action.frames)
            elif isinstance(action, cf.Note):
                self.log(action.text)
            else:
                self._do(action)

    def _do(self, action: Any) -> None:
        outcome = self._perform(action)
        if outcome is None:
            return
        if not self.latency_ns:
            self.deliver(outcome)
            return
        self._numbered += 1
        heapq.heappush(self._later, _Later(self.world.clock.now_ns + self.latency_ns, self._numbered, outcome))

    def _begin(self) -> None:
        config = SessionConfig(
            Role.CONTROLLER, self.name, self.lives, credits=CONTROLLER_CREDITS, lease_ms=self.world.lease_ms
        )
        self.front = cf.ControllerFront(config, self._make_device(), frozenset({self._hypervisor}))
        self._port = self.world.network.listen(self.name)
        self.front.acceptor.authenticate(key_fits(self._port, str))

    def _end(self) -> None:
        self._port.close()
        self._later.clear()

    def _farewell(self, reason: str) -> None:
        self.deliver(cf.StopRequested(reason))
