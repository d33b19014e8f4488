"""A driver domain: one process that serves devices with the host operating system's own drivers.

It stands for the major operating system beside the hypervisor, as Xen's dom0 does: the hypervisor keeps a front end for
each device and needs no driver for it, because files, terminals, network interfaces and entropy are the host's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from iovirt_dist.ids import ProcessName
from iovirt_dist.runtime.device_process import DeviceProcess
from iovirt_dist.runtime.device_service import ControllerDevice, DeviceService
from iovirt_dist.topology.specs import BlockSpec, ConsoleSpec, ControllerSpec, DriverDomainSpec, RngSpec, Topology


class DriverDomainProcess:
    """Runs a driver domain of a topology on the current event loop.

    Args:
        topology: Where everything is.
        spec: Which driver domain.
    """

    def __init__(self, topology: Topology, spec: DriverDomainSpec) -> None:
        self._topology = topology
        self._spec = spec
        self._process = DeviceProcess(topology, spec)
        self._services: dict[ProcessName, DeviceService[Any, Any]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then everything acknowledged is stable and the devices are free.

        Raises:
            ConfigError: A device's settings do not fit it.
            EndpointError: A device's endpoint, or an interface, cannot be had.
            ImageError: A device's medium cannot be used.
        """
        try:
            for name in self._spec.devices:
                spec = self._topology.controllers[name]
                device = make_device(self._topology, spec)
                self._services[name] = self._process.open(spec, device, among_others=True)
            await self._process.run(stop, self.status)
        finally:
            self._process.close()

    def status(self) -> dict[str, Any]:
        """What the status file tells: of each device what a controller's own would tell, and its kind."""
        kinds = self._topology.controllers
        return {"devices": {str(name): {"kind": kinds[name].kind, **s.status()} for name, s in self._services.items()}}


def make_device(topology: Topology, spec: ControllerSpec) -> ControllerDevice[Any, Any]:
    """Make the device of a controller of any kind; of the kinds, only those that are served are imported.

    Guests wait while a domain starts again, and the modules of all kinds are a third of that time.

    Raises:
        ConfigError: Its settings do not fit it.
        ImageError: Its medium cannot be used.
    """
    if isinstance(spec, BlockSpec):
        from iovirt_dist.runtime.block_process import BlockProcess  # noqa: PLC0415 - see above

        return BlockProcess(topology, spec)
    if isinstance(spec, ConsoleSpec):
        from iovirt_dist.runtime.console_process import ConsoleProcess  # noqa: PLC0415 - see above

        return ConsoleProcess(topology, spec)
    if isinstance(spec, RngSpec):
        from iovirt_dist.runtime.rng_process import RngProcess  # noqa: PLC0415 - see above

        return RngProcess(topology, spec)
    from iovirt_dist.runtime.net_process import NetProcess  # noqa: PLC0415 - see above

    return NetProcess(topology, spec)
