"""A controller as a process: one device, its status file and its trace."""

from __future__ import annotations

import asyncio

from iovirt_dist.controllers.front import Access, Outcome
from iovirt_dist.runtime.device_process import DeviceProcess
from iovirt_dist.runtime.device_service import ControllerDevice
from iovirt_dist.topology.specs import ControllerSpec, Topology


async def serve_controller(
    topology: Topology, spec: ControllerSpec, device: ControllerDevice[Outcome, Access], stop: asyncio.Event
) -> None:
    """Serve one controller on the running loop until `stop` is set.

    Args:
        topology: Where everything is.
        spec: Which controller.
        device: Its device, of which the hands are opened and closed here.
        stop: Set when the process shall end.

    Raises:
        EndpointError: The endpoint cannot be bound.
        ImageError: The medium cannot be used.
    """
    process = DeviceProcess(topology, spec)
    try:
        service = process.open(spec, device)
        await process.run(stop, service.status)
    finally:
        process.close()
