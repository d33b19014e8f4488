"""One controller's device on the running loop: between its endpoint and the device's own I/O.

A process serves one (`runtime.controller_process`) or several (`runtime.driver_domain_process`); hypervisors cannot
tell, as each device keeps its name and its endpoint.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from iovirt_dist.controllers.front import (
    Access,
    Access_contra,
    ControllerFront,
    DeviceCore,
    FramesReceived,
    FrontAction,
    FrontEvent,
    Note,
    Outcome,
    Outcome_co,
    Send,
    StopRequested,
    TimerFired,
)
from iovirt_dist.runtime.links import follow, listen_as
from iovirt_dist.runtime.reactor import Reactor
from iovirt_dist.runtime.session_status import session_status
from iovirt_dist.step import TracePoint
from iovirt_dist.topology.keys import units_of
from iovirt_dist.topology.specs import ControllerSpec, Topology
from iovirt_dist.transport.halt_poll import HaltPoll
from iovirt_dist.transport.pump import attach
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig

log = logging.getLogger(__name__)

OutcomeT = TypeVar("OutcomeT")
AccessT = TypeVar("AccessT")


class Hands(Protocol[Access_contra, Outcome_co]):
    """What performs a device core's I/O actions."""

    def perform(self, action: Access_contra) -> Outcome_co | None:
        """Do an action; returns the event that it ended in, None if that comes later."""
        ...

    def close(self) -> None:
        """End all I/O and give the device back."""
        ...


class ControllerDevice(Protocol[OutcomeT, AccessT]):
    """A device that can be served: what it decides with, what it acts with, and what it tells of itself."""

    @property
    def credits(self) -> int:
        """Depth of each hypervisor's queue pair."""
        ...

    @property
    def core(self) -> DeviceCore[OutcomeT, AccessT]:
        """The device class."""
        ...

    def open_hands(self, deliver: Callable[[OutcomeT], None]) -> Hands[AccessT, OutcomeT]:
        """Make what performs the core's actions; on the running loop.

        Args:
            deliver: Takes the outcomes that come later.

        Raises:
            ImageError: The medium cannot be used.
        """
        ...

    def status(self) -> dict[str, Any]:
        """What the device tells of itself, as JSON values."""
        ...

    def reload(self, topology: Topology) -> OutcomeT | None:
        """Follow a topology that was scaled; returns an event for the core, None where it need not know.

        Raises:
            IovirtError: It cannot follow; nothing is changed then.
        """
        ...


class Surroundings(NamedTuple):
    """What a process gives to each device that it serves.

    Attributes:
        topology: Where everything is.
        epoch: Which life of the process this is.
        halt_poll: Polls all sockets of the process.
        trace: Takes trace points.
        label: Begin of a device's lines in the log; empty where there is only one device.
    """

    topology: Topology
    epoch: int
    halt_poll: HaltPoll
    trace: Callable[[TracePoint], None]
    label: str = ""


class DeviceService(Generic[Outcome, Access]):
    """Serves one device from its construction until `close`.

    Args:
        around: The process that it is in.
        spec: The controller, with its endpoint.
        device: Its device; the service closes its hands.

    Raises:
        EndpointError: The endpoint cannot be bound.
        ImageError: The medium cannot be used.
    """

    def __init__(self, around: Surroundings, spec: ControllerSpec, device: ControllerDevice[Outcome, Access]) -> None:
        topology = around.topology
        lease_ms = topology.lease_ns // 1_000_000
        session = SessionConfig(Role.CONTROLLER, spec.name, around.epoch, credits=device.credits, lease_ms=lease_ms)
        hypervisors = [h.name for h in topology.hypervisors.values() if spec in topology.controllers_of(h.name)]
        self._hypervisors: frozenset[str] = frozenset(hypervisors)
        units = units_of(topology, spec.name)
        self._front = ControllerFront(session, device.core, self._hypervisors, spec.arbitration, units)
        self._name = spec.name
        self._device = device
        self._trace = around.trace
        self._label = around.label
        self._outcomes: deque[Outcome] = deque()
        self._reactor: Reactor[FrontEvent | Outcome, FrontAction | Access] = Reactor(
            self._front, self._perform, TimerFired(), self._settle
        )
        self._hands = device.open_hands(self._later)
        try:
            self._port = listen_as(topology, spec.name, self._front.acceptor)
        except BaseException:
            self._hands.close()
            raise
        loop = asyncio.get_running_loop()
        self._pump = attach(loop, self._port, self._received, self._reactor.settle, halt_poll=around.halt_poll)
        self._note(f"listening at {spec.endpoint}")

    def trace(self, on: bool) -> None:
        """Make trace points from now on, or no more."""
        self._front.trace(on)

    def reload(self, topology: Topology) -> None:
        """Follow a topology that was scaled; raises as the device's `reload` does."""
        follow(topology, self._name, self._port, self._front.acceptor)
        event = self._device.reload(topology)
        self._front.grant(units_of(topology, self._name))
        if event is not None:
            self._later(event)

    def status(self) -> dict[str, Any]:
        """What a status file tells of the device: its sessions, and what it says itself."""
        front = self._front
        parts = (type(self._device.core), type(self._hands))
        return {
            "classes": {part.__name__: part.__module__ for part in parts},
            "hypervisors": front.connected,
            "sessions": {name: session_status(front.acceptor.stream(name)) for name in sorted(self._hypervisors)},
            "shares": {name: share._asdict() for name, share in sorted(front.shares().items())},
            "rejects": dict(front.acceptor.rejects),
            "refused": dict(self._port.refused),
            "malformed": front.malformed,
            "not_granted": front.not_granted,
            **self._device.status(),
        }

    def close(self) -> None:
        """Say goodbye; end all I/O; free the endpoint."""
        self._handle(StopRequested("shutting down"))
        self._reactor.close()
        self._pump.close()
        self._hands.close()
        self._port.close()

    def _handle(self, event: FrontEvent | Outcome) -> None:
        """Let the core take an event, and then what its actions ended in."""
        self._reactor.handle(event)
        outcomes = self._outcomes
        while outcomes:
            self._reactor.handle(outcomes.popleft())

    def _perform(self, action: FrontAction | Access) -> None:
        if isinstance(action, Send):
            self._port.send(action.peer, action.frames)
        elif isinstance(action, Note):
            self._note(action.text)
        elif isinstance(action, TracePoint):
            self._trace(action)
        elif (outcome := self._hands.perform(action)) is not None:
            self._outcomes.append(outcome)

    def _received(self, peer: bytes, frames: list[Buffer]) -> None:
        self._handle(FramesReceived(peer, frames))

    def _later(self, event: Outcome) -> None:
        self._handle(event)
        self._settle()

    def _settle(self) -> None:
        """After anything that did not come from the pump: sending may have consumed the socket's edge."""
        self._reactor.settle()
        self._pump.kick()

    def _note(self, text: str) -> None:
        log.info("%s%s", self._label, text)
