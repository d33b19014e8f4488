"""The gateway of a virtual machine as a process: its core on the event loop, with sockets, kicks and a clock."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final

from iovirt_dist.gateway.vhost_user.backend import Backend
from iovirt_dist.gateway.vhost_user.mapping import FileMapper
from iovirt_dist.gateway.vm_core import (
    Action,
    Event,
    ForFrontEnd,
    Kicked,
    SerialPrinted,
    SerialTyped,
    VmCore,
)
from iovirt_dist.guest import core as gc
from iovirt_dist.guest.script.core import Drained
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.runtime.epoch import next_epoch
from iovirt_dist.runtime.front_ends import FrontEnds
from iovirt_dist.runtime.guest_status import own_status
from iovirt_dist.runtime.links import dial_as
from iovirt_dist.runtime.reactor import Reactor
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.serial_socket import SerialSocket
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.runtime.trace_log import TraceLog
from iovirt_dist.step import TracePoint
from iovirt_dist.topology.specs import Topology, VmSpec
from iovirt_dist.topology.vm_specs import VmDevice, serial_socket, vm_socket
from iovirt_dist.transport.halt_poll import HaltPoll
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.transport.pump import Pump, attach
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig

log = logging.getLogger(__name__)

SLOTS: Final[dict[VmDevice, VirtioSlot]] = {
    "disk": VirtioSlot.DISK,
    "virtio_console": VirtioSlot.CONSOLE,
    "rng": VirtioSlot.ENTROPY,
    "net": VirtioSlot.NETWORK,
}


class VmProcess:
    """Runs the gateway of one virtual machine of a topology on the current event loop.

    Args:
        topology: Where everything is.
        spec: Which guest.
    """

    def __init__(self, topology: Topology, spec: VmSpec) -> None:
        self._topology = topology
        self._spec = spec
        self._epoch = next_epoch(RunDir(topology.run_dir), spec.name, time.time_ns())
        config = SessionConfig(Role.GUEST, spec.name, self._epoch, lease_ms=topology.lease_ns // 1_000_000)
        mapper = FileMapper()
        backends = {SLOTS[device]: Backend(mapper) for device in spec.devices}
        self.core = VmCore(config, spec.hypervisor, backends, serial=spec.console is not None)

    async def run(self, stop: asyncio.Event) -> None:
        """Run the gateway until `stop` is set.

        Raises:
            EndpointError: Another process of this name runs, or a socket cannot be made.
        """
        run_dir = RunDir(self._topology.run_dir)
        run_dir.create()
        with run_dir.claimed(self._spec.name):
            await self._run(stop)

    def _switch_trace(self, on: bool) -> None:
        self.core.script.tracing = on

    async def _run(self, stop: asyncio.Event) -> None:
        trace = TraceLog(RunDir(self._topology.run_dir), self._spec.name, self._switch_trace)
        sockets = _Sockets(self._topology, self._spec, self.core, trace)
        try:
            await sockets.start()
            async with Telemetry(self._topology, self._spec, self._epoch, self.status, trace):
                await stop.wait()
        finally:
            sockets.close()

    def status(self) -> dict[str, Any]:
        """What the status file tells: the guest's state, its own counts, and its front ends."""
        status = own_status(self.core.script.core)
        devices = self.core.facts()
        waiting = [name for name, device in devices.items() if not device["connected"]]
        if status["state"] == "running" and len(waiting) == len(devices) > 0:
            status["reason"] = "waiting for the VMM"
        return {**status, "devices": devices}


class _Sockets:
    """A gateway's core with its hypervisor, front ends and serial line, on the running loop."""

    def __init__(self, topology: Topology, spec: VmSpec, core: VmCore, trace: TraceLog) -> None:
        self._spec = spec
        self._core = core
        self._trace = trace
        self._run_dir = topology.run_dir
        self._port = dial_as(topology, spec.name, spec.hypervisor)
        self._pump: Pump | None = None
        self._reactor: Reactor[Event, Action] = Reactor(core, self._perform, gc.TimerFired(), self._settle)
        self._halt_poll = HaltPoll()
        self._front_ends = FrontEnds(core, self._happen, self._halt_poll)
        self._line = SerialSocket(serial_socket(self._run_dir, spec.name), self._printed)

    async def start(self) -> None:
        """Listen for front ends, and call the hypervisor.

        Raises:
            EndpointError: A socket cannot be made.
        """
        for device in self._spec.devices:
            self._front_ends.listen(SLOTS[device], vm_socket(self._run_dir, self._spec.name, device))
        if self._core.serial is not None:
            await self._line.start()
        loop, port = asyncio.get_running_loop(), self._port
        self._pump = attach(loop, port, self._from_hypervisor, self._drained, halt_poll=self._halt_poll)
        self._happen(gc.Started())

    def close(self) -> None:
        """Say goodbye and close everything; the sockets' files go, too."""
        self._front_ends.close()
        self._reactor.handle(gc.StopRequested("shutting down"))
        self._reactor.close()
        self._line.close()
        if self._pump is not None:
            self._pump.close()
        self._port.close()

    def _perform(self, action: Action) -> None:
        if isinstance(action, gc.Send):
            self._port.send(ONLY_PEER, action.frames)
        elif isinstance(action, ForFrontEnd):
            self._front_ends.perform(action.slot, action.action)
        elif isinstance(action, SerialTyped):
            self._line.type(action.data)
        elif isinstance(action, TracePoint):
            self._trace.add(action)
        else:
            log.info("%s", action.text)

    def _happen(self, event: Event) -> None:
        if self._trace.on and isinstance(event, Kicked):  # before the work, as no action of it can be
            fields: dict[str, int | str] = {"device": event.slot.name.lower(), "queue": event.queue}
            self._trace.add(TracePoint(self._spec.name, self._core.script.core.number + 1, "kick", fields))
        self._reactor.handle(event)
        self._settle()

    def _settle(self) -> None:
        """Sending may have consumed the socket's edge: look again."""
        self._reactor.settle()
        if self._core.serial is not None:
            self._line.pause(self._core.serial.full)
        if self._pump is not None:
            self._pump.kick()

    def _from_hypervisor(self, _: bytes, frames: list[Buffer]) -> None:
        self._reactor.handle(gc.FramesReceived(frames))

    def _drained(self) -> None:
        self._happen(Drained())

    def _printed(self, data: bytes) -> None:
        self._happen(SerialPrinted(data))
