"""A hypervisor as a process: its core between a ROUTER for guests and a DEALER for each controller."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import Any

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.hypervisor import core as hv
from iovirt_dist.hypervisor.guest import Guest
from iovirt_dist.hypervisor.plan import Attachment, GuestPlan
from iovirt_dist.runtime.reactor import Reactor
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.topology.specs import HypervisorSpec, MachineSpec, Topology
from iovirt_dist.transport.pump import Pump, attach
from iovirt_dist.transport.zeromq import dial, listen
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import GuestState, TrapKind
from iovirt_dist.wire.stream import Stream

log = logging.getLogger(__name__)

_GUESTS = ""
"""Key of the guests' socket among the controllers', whose names are never empty."""


def hypervisor_config(topology: Topology, spec: HypervisorSpec, epoch: int) -> hv.HypervisorConfig:
    """Translate a topology into what one of its hypervisors serves."""
    pairs: dict[str, QueuePair] = {
        controller.name: QueuePair(controller.name) for controller in topology.controllers_of(spec.name)
    }
    plans: dict[str, GuestPlan] = {guest.name: _plan(guest, pairs) for guest in topology.guests_of(spec.name)}
    lease_ms = topology.lease_ns // 1_000_000
    wall = time.time_ns() - time.monotonic_ns()
    return hv.HypervisorConfig(spec.name, epoch, lease_ms, wall, plans, pairs)


def _plan(guest: MachineSpec, pairs: dict[str, QueuePair]) -> GuestPlan:
    disk = guest.disk and Attachment(pairs[guest.disk.controller], guest.disk.extent.name)
    console = guest.console and Attachment(pairs[guest.console.controller], guest.console.terminal)
    return GuestPlan(guest.name, guest.machine, guest.memory_bytes, disk, console, guest.prefetch)


class HypervisorProcess:
    """Runs a hypervisor of a topology on the current event loop.

    Args:
        topology: Where everything is.
        spec: Which hypervisor.
    """

    def __init__(self, topology: Topology, spec: HypervisorSpec) -> None:
        self._topology = topology
        self._spec = spec
        self._epoch = time.time_ns()
        self.core = hv.Hypervisor(hypervisor_config(topology, spec, self._epoch))

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then say goodbye and close every socket.

        Raises:
            EndpointError: The guests' endpoint cannot be bound.
        """
        loop = asyncio.get_running_loop()
        guests = listen(self._spec.endpoint)
        controllers = {name: dial(self._topology.controller(name).endpoint) for name in self.core.openers}
        stirred: set[str] = set()

        def perform(action: hv.Action) -> None:
            if isinstance(action, hv.SendToGuest):
                guests.send(action.peer, action.frames)
                stirred.add(_GUESTS)
            elif isinstance(action, hv.SendToController):
                controllers[action.controller].send(b"", action.frames)
                stirred.add(action.controller)
            else:
                log.info("%s", action.text)

        pumps: dict[str, Pump] = {}

        def settle(drained: str | None = None) -> None:
            """Sending on a socket that is not being drained may consume its edge: look again."""
            reactor.settle()
            if drained is not None:
                stirred.discard(drained)
            while stirred:
                pumps[stirred.pop()].kick()

        reactor: Reactor[hv.Event, hv.Action] = Reactor(self.core, perform, hv.TimerFired(), settle)
        handle = reactor.handle

        def from_guest(peer: bytes, frames: list[Buffer]) -> None:
            handle(hv.GuestFramesReceived(peer, frames))

        pumps[_GUESTS] = attach(loop, guests, from_guest, partial(settle, _GUESTS))
        for name, port in controllers.items():

            def from_controller(_: bytes, frames: list[Buffer], name: str = name) -> None:
                handle(hv.ControllerFramesReceived(name, frames))

            pumps[name] = attach(loop, port, from_controller, partial(settle, name))
        log.info("listening at %s", self._spec.endpoint)
        handle(hv.Started())
        settle()
        async with Telemetry(self._topology, self._spec, self._epoch, self.status):
            await stop.wait()
        handle(hv.StopRequested("shutting down"))
        reactor.close()
        for pump in pumps.values():
            pump.close()
        for port in (guests, *controllers.values()):
            port.close()

    def status(self) -> dict[str, Any]:
        """What the status file tells: guests with both sides' counts, controllers with their queue pairs."""
        core = self.core
        return {
            "state": "running",
            "guests": {name: _guest_status(guest, core.acceptor.stream(name)) for name, guest in core.guests.items()},
            "controllers": {name: _pair_status(pair) for name, pair in core.config.controllers.items()},
            "rejects": dict(core.acceptor.rejects),
        }


def _guest_status(guest: Guest, stream: Stream | None) -> dict[str, Any]:
    vm, counts = guest.vm, guest.vm.counts
    report = counts.reported
    disk, terminal = vm.drivers.disk, vm.drivers.terminal
    return {
        "connected": guest.connected,
        "waiting": guest.waiting,
        "state": (report.state if report else GuestState.STARTING).name.lower(),
        "reason": report.reason if report else "",
        "traps": {kind.name.lower(): counts.traps[kind] for kind in TrapKind},
        "traps_at_report": {kind.name.lower(): n for kind, n in zip(TrapKind, counts.at_report[1:], strict=False)},
        "guest_traps": {kind.name.lower(): n for kind, n in zip(TrapKind, report.traps[1:], strict=False)}
        if report
        else {},
        "touched": dict(counts.touched),
        "refused": counts.refused,
        "malformed": counts.malformed,
        "messages_in": stream.last_in if stream else 0,
        "messages_out": stream.last_out if stream else 0,
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
        "interrupts_raised": vm.interrupts_raised,
        "interrupts_taken": report.interrupts if report else 0,
        "faults_taken": report.faults if report else 0,
        "disk_requests": disk.requests if disk else 0,
        "disk_bytes_read": disk.bytes_read if disk else 0,
        "disk_bytes_written": disk.bytes_written if disk else 0,
        "console_bytes_out": terminal.bytes_out if terminal else 0,
        "console_bytes_in": terminal.bytes_in if terminal else 0,
    }


def _pair_status(pair: QueuePair) -> dict[str, Any]:
    return {
        "connected": pair.connected,
        "submitted": pair.submitted,
        "completed": pair.completed,
        "resubmitted": pair.resubmitted,
        "in_flight": pair.in_flight,
        "batches": pair.batches,
        "interrupts": pair.interrupts,
    }
