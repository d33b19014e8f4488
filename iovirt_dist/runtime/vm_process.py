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
        run_dir, name = self._topology.run_dir, str(self._spec.name)
        trace = TraceLog(RunDir(run_dir), name, self._switch_trace)
        port = dial_as(self._topology, name, self._spec.hypervisor)
        pump: Pump | None = None

        def perform(action: Action) -> None:
            if isinstance(action, gc.Send):
                port.send(ONLY_PEER, action.frames)
            elif isinstance(action, ForFrontEnd):
                front_ends.perform(action.slot, action.action)
            elif isinstance(action, SerialTyped):
                line.type(action.data)
            elif isinstance(action, TracePoint):
                trace.add(action)
            else:
                log.info("%s", action.text)

        def settle() -> None:
            """Sending may have consumed the socket's edge: look again."""
            reactor.settle()
            if self.core.serial is not None:
                line.pause(self.core.serial.full)
            if pump is not None:
                pump.kick()

        def happen(event: Event) -> None:
            reactor.handle(event)
            settle()

        def from_hypervisor(_: bytes, frames: list[Buffer]) -> None:
            reactor.handle(gc.FramesReceived(frames))

        reactor: Reactor[Event, Action] = Reactor(self.core, perform, gc.TimerFired(), settle)
        front_ends = FrontEnds(self.core, happen)
        line = SerialSocket(serial_socket(run_dir, name), lambda data: happen(SerialPrinted(data)))
        try:
            for device in self._spec.devices:
                front_ends.listen(SLOTS[device], vm_socket(run_dir, name, device))
            if self.core.serial is not None:
                await line.start()
            pump = attach(asyncio.get_running_loop(), port, from_hypervisor, lambda: happen(Drained()))
            happen(gc.Started())
            async with Telemetry(self._topology, self._spec, self._epoch, self.status, trace):
                await stop.wait()
            reactor.handle(gc.StopRequested("shutting down"))
        finally:
            reactor.close()
            front_ends.close()
            line.close()
            if pump is not None:
                pump.close()
            port.close()

    def status(self) -> dict[str, Any]:
        """What the status file tells: the guest's state, its own counts, and its front ends."""
        status = own_status(self.core.script.core)
        devices = self.core.facts()
        waiting = [name for name, device in devices.items() if not device["connected"]]
        if status["state"] == "running" and len(waiting) == len(devices) > 0:
            status["reason"] = "waiting for the VMM"
        return {**status, "devices": devices}
