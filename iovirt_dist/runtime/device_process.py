"""What every process that serves devices is made of: one status file, one trace, and a service for each device."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from iovirt_dist.controllers.front import Access, Outcome
from iovirt_dist.runtime.device_service import ControllerDevice, DeviceService, Surroundings
from iovirt_dist.runtime.epoch import next_epoch
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.scale_file import ScalingFollower
from iovirt_dist.runtime.telemetry import Telemetry
from iovirt_dist.runtime.trace_log import TraceLog
from iovirt_dist.step import TracePoint
from iovirt_dist.topology.specs import ControllerSpec, DriverDomainSpec, Topology
from iovirt_dist.transport.halt_poll import HaltPoll


class DeviceProcess:
    """Devices of one process on the running loop.

    Args:
        topology: Where everything is.
        spec: The process, whose name status file and trace bear.
    """

    def __init__(self, topology: Topology, spec: ControllerSpec | DriverDomainSpec) -> None:
        self._topology = topology
        self._spec = spec
        self._epoch = next_epoch(RunDir(topology.run_dir), spec.name, time.time_ns())
        self._halt_poll = HaltPoll()
        self._services: list[DeviceService[Any, Any]] = []
        self._trace = TraceLog(RunDir(topology.run_dir), spec.name, self._switch)

    def open(
        self, spec: ControllerSpec, device: ControllerDevice[Outcome, Access], *, among_others: bool = False
    ) -> DeviceService[Outcome, Access]:
        """Serve a device from now on.

        Args:
            spec: Its controller, with the endpoint.
            device: The device, of which the hands are opened here and closed by `close`.
            among_others: Whether log lines and trace points must tell which device they are of.

        Raises:
            EndpointError: The endpoint cannot be bound.
            ImageError: The medium cannot be used.
        """
        trace = self._trace_of(spec.name) if among_others else self._trace.add
        label = f"{spec.name}: " if among_others else ""
        around = Surroundings(self._topology, self._epoch, self._halt_poll, trace, label)
        service = DeviceService(around, spec, device)
        self._services.append(service)
        return service

    async def run(self, stop: asyncio.Event, status: Callable[[], dict[str, Any]]) -> None:
        """Tell in the status file how the devices are, until `stop` is set."""
        follower = ScalingFollower(self._topology, self._reload)
        told = Telemetry(self._topology, self._spec, self._epoch, lambda: _running(status()), self._trace, follower)
        async with told:
            await stop.wait()

    def close(self) -> None:
        """Give all devices back, the last one first."""
        while self._services:
            self._services.pop().close()

    def _reload(self, topology: Topology) -> None:
        for service in self._services:
            service.reload(topology)

    def _switch(self, on: bool) -> None:
        for service in self._services:
            service.trace(on)

    def _trace_of(self, device: str) -> Callable[[TracePoint], None]:
        """Where the trace points of one of several devices go."""

        def add(point: TracePoint) -> None:
            fields = {"device": device, **point.fields}
            self._trace.add(TracePoint(point.guest, point.number, point.event, fields))

        return add


def _running(status: dict[str, Any]) -> dict[str, Any]:
    return {"state": "running", **status}
