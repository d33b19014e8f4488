"""A controller as a process: its front and device core between a ROUTER for hypervisors and the device."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol

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
from iovirt_dist.runtime.reactor import Reactor
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.session_status import session_status
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.runtime.trace_log import TraceLog
from iovirt_dist.step import TracePoint
from iovirt_dist.topology.specs import ControllerSpec, Topology
from iovirt_dist.transport.halt_poll import HaltPoll
from iovirt_dist.transport.port import Port
from iovirt_dist.transport.pump import attach
from iovirt_dist.transport.zeromq import listen
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig

log = logging.getLogger(__name__)


class Hands(Protocol[Access_contra, Outcome_co]):
    """What performs a device core's I/O actions."""

    def perform(self, action: Access_contra) -> Outcome_co | None:
        """Do an action; returns the event that it ended in, None if that comes later."""
        ...

    def close(self) -> None:
        """End all I/O and give the device back."""
        ...


class ControllerProcess:
    """Runs one controller of a topology on the current event loop.

    Args:
        topology: Where everything is.
        spec: Which controller.
        credits: Depth of each hypervisor's queue pair.
    """

    def __init__(self, topology: Topology, spec: ControllerSpec, credits: int) -> None:  # noqa: A002 - the protocol's word
        self._topology = topology
        self._spec = spec
        self._epoch = time.time_ns()
        lease_ms = topology.lease_ns // 1_000_000
        self._session = SessionConfig(Role.CONTROLLER, spec.name, self._epoch, credits=credits, lease_ms=lease_ms)
        hypervisors = [h.name for h in topology.hypervisors.values() if spec in topology.controllers_of(h.name)]
        self._hypervisors: frozenset[str] = frozenset(hypervisors)

    async def serve(
        self,
        stop: asyncio.Event,
        device: DeviceCore[Outcome, Access],
        open_hands: Callable[[Callable[[Outcome], None]], Hands[Access, Outcome]],
        status: Callable[[], dict[str, Any]],
    ) -> None:
        """Serve until `stop` is set.

        Args:
            stop: Set when the process shall end.
            device: The device class.
            open_hands: Makes what performs its actions; gets the function that takes later outcomes.
            status: What the device tells of itself.

        Raises:
            EndpointError: The endpoint cannot be bound.
        """
        front = ControllerFront(self._session, device, self._hypervisors)
        port = listen(self._spec.endpoint)
        trace = TraceLog(RunDir(self._topology.run_dir), self._spec.name, front.trace)
        service = _Service(front, port, open_hands, trace)
        log.info("listening at %s", self._spec.endpoint)

        def all_status() -> dict[str, Any]:
            return {
                "state": "running",
                "hypervisors": front.connected,
                "sessions": {name: session_status(front.acceptor.stream(name)) for name in sorted(self._hypervisors)},
                "rejects": dict(front.acceptor.rejects),
                "malformed": front.malformed,
                **status(),
            }

        async with Telemetry(self._topology, self._spec, self._epoch, all_status, trace):
            await stop.wait()
        service.close()
        port.close()


class _Service(Generic[Outcome, Access]):
    """A front between its port and its hands, on the running loop.

    Args:
        front: What decides.
        port: Where hypervisors are.
        open_hands: Makes what performs the device's actions.
        trace: Takes trace points.
    """

    def __init__(
        self,
        front: ControllerFront[Outcome, Access],
        port: Port,
        open_hands: Callable[[Callable[[Outcome], None]], Hands[Access, Outcome]],
        trace: TraceLog,
    ) -> None:
        self._trace = trace
        self._port = port
        self._outcomes: deque[Outcome] = deque()
        self._reactor: Reactor[FrontEvent | Outcome, FrontAction | Access] = Reactor(
            front, self._perform, TimerFired(), self._settle
        )
        self._hands = open_hands(self._later)
        loop = asyncio.get_running_loop()
        self._pump = attach(loop, port, self._received, self._reactor.settle, halt_poll=HaltPoll())

    def close(self) -> None:
        """Say goodbye; end all I/O."""
        self._handle(StopRequested("shutting down"))
        self._reactor.close()
        self._pump.close()
        self._hands.close()

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
            log.info("%s", action.text)
        elif isinstance(action, TracePoint):
            self._trace.add(action)
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
