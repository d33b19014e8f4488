"""A guest as a process: a vCPU in a thread, its channel, and the loop around them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.core import Action, Event, GuestCore
from iovirt_dist.guest.machines import build_cpu
from iovirt_dist.guest.tracing import guest_points
from iovirt_dist.runtime.epoch import next_epoch
from iovirt_dist.runtime.guest_channel import GuestChannel
from iovirt_dist.runtime.guest_status import own_status
from iovirt_dist.runtime.links import dial_as
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.runtime.trace_log import TraceLog
from iovirt_dist.runtime.vcpu_loop import VcpuLoop
from iovirt_dist.topology.specs import MachineSpec, ProgramSpec, Topology
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig

log = logging.getLogger(__name__)

_KICK_INTERVAL_S = 0.05


class GuestProcess:
    """Runs a machine guest of a topology on the current event loop.

    Args:
        topology: Where everything is.
        spec: Which guest.

    Raises:
        ImageError: An image is missing or cannot run on this machine.
    """

    def __init__(self, topology: Topology, spec: MachineSpec | ProgramSpec) -> None:
        self._topology = topology
        self._spec = spec
        self._epoch = next_epoch(RunDir(topology.run_dir), spec.name, time.time_ns())
        self._failed = False
        self._trace = TraceLog(RunDir(topology.run_dir), spec.name, self._switch_trace)
        config = SessionConfig(Role.GUEST, spec.name, self._epoch, lease_ms=topology.lease_ns // 1_000_000)
        self.core = GuestCore(config, spec.hypervisor)
        port = dial_as(topology, spec.name, spec.hypervisor)
        self.channel = GuestChannel(self.core, port, self._kick)
        self.cpu = build_cpu(spec, self.channel)
        self.core.use_memory(self.cpu.memory)

    async def run(self, stop: asyncio.Event) -> None:
        """Run the guest until `stop` is set; a guest that stopped by itself, or whose vCPU failed, stays, idle.

        It does not end before it is told to: whoever keeps it running would start it, and the failure, over and over.

        Raises:
            EndpointError: Another process of this name runs.
            LocalError: The vCPU failed.
        """
        run_dir = RunDir(self._topology.run_dir)
        run_dir.create()
        with run_dir.claimed(self._spec.name):
            await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        thread = threading.Thread(target=self._vcpu, name="vcpu", daemon=True)
        self.channel.open(loop)
        thread.start()
        async with Telemetry(self._topology, self._spec, self._epoch, self.status, self._trace):
            await stop.wait()
            self.channel.begin_close()
            while thread.is_alive():
                self._kick()
                await asyncio.to_thread(thread.join, _KICK_INTERVAL_S)
        self.channel.close("shutting down")
        if self._failed:
            raise LocalError("the virtual CPU failed", self._spec.name, "see the traceback in its log")

    def status(self) -> dict[str, Any]:
        """What the status file tells: the guest's state and its own counts."""
        return own_status(self.core)

    def _switch_trace(self, on: bool) -> None:
        self.channel.observe = self._observe if on else None

    def _observe(self, event: Event, actions: list[Action]) -> None:
        for point in guest_points(self._spec.name, self.core.number, event, actions):
            self._trace.add(point)

    def _kick(self) -> None:
        self.cpu.kick()

    def _vcpu(self) -> None:
        """The vCPU thread; whatever ends it is told, never lost."""
        try:
            VcpuLoop(self.cpu, self.channel).run()
        except Exception:
            log.exception("vCPU thread failed")
            self._failed = True
            self.channel.fail("internal error, see the log")
