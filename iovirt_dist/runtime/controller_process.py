"""A controller as a process: its front and device core between a ROUTER for hypervisors and the device."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

from iovirt_dist.controllers.front import (
    ControllerFront,
    DeviceCore,
    FramesReceived,
    Note,
    Send,
    StopRequested,
    TimerFired,
)
from iovirt_dist.runtime.reactor import Reactor
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.topology.specs import ControllerSpec, Topology
from iovirt_dist.transport.pump import Pump, attach
from iovirt_dist.transport.zeromq import listen
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig

log = logging.getLogger(__name__)


class Hands(Protocol):
    """What performs a device core's I/O actions."""

    def perform(self, action: Any) -> Any | None:
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
        device: DeviceCore,
        open_hands: Callable[[Callable[[Any], None]], Hands],
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
        loop = asyncio.get_running_loop()
        front = ControllerFront(self._session, device, self._hypervisors)
        port = listen(self._spec.endpoint)
        pump: Pump | None = None

        def perform(action: Any) -> None:
            if isinstance(action, Send):
                port.send(action.peer, action.frames)
            elif isinstance(action, Note):
                log.info("%s", action.text)
            elif (outcome := hands.perform(action)) is not None:
                reactor.handle(outcome)

        def settle() -> None:
            """After anything that did not come from the pump: sending may have consumed the socket's edge."""
            reactor.settle()
            if pump is not None:
                pump.kick()

        def later(event: Any) -> None:
            reactor.handle(event)
            settle()

        reactor: Reactor[Any, Any] = Reactor(front, perform, TimerFired(), settle)
        hands = open_hands(later)
        pump = attach(loop, port, lambda peer, frames: reactor.handle(FramesReceived(peer, frames)), reactor.settle)
        log.info("listening at %s", self._spec.endpoint)

        def all_status() -> dict[str, Any]:
            return {
                "state": "running",
                "hypervisors": front.connected,
                "rejects": dict(front.acceptor.rejects),
                "malformed": front.malformed,
                **status(),
            }

        async with Telemetry(self._topology, self._spec, self._epoch, all_status):
            await stop.wait()
        reactor.handle(StopRequested("shutting down"))
        reactor.close()
        pump.close()
        hands.close()
        port.close()
