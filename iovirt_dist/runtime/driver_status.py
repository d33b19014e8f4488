"""Which host-side drivers a guest's devices have, and where each of them is placed."""

from __future__ import annotations

from iovirt_dist.hypervisor.virtual_machine import VirtualMachine
from iovirt_dist.topology.specs import Topology


def driver_status(vm: VirtualMachine, topology: Topology) -> dict[str, dict[str, str]]:
    """Name the host-side drivers of a guest.

    Args:
        vm: The guest; one that has no power yet has no drivers of disk and entropy.
        topology: Says where the driver of a controller is.

    Returns:
        By the topology's word for the device: ``controller``; ``driver``, which is ``native`` or the name of a driver
        domain; ``class`` and ``module`` of what the hypervisor has: the driver itself where it is native, else the
        front end of the domain's.
    """
    plan, drivers = vm.plan, vm.drivers
    net = plan.net.attachment if plan.net is not None else None
    found = {
        "disk": (plan.disk, drivers.disk),
        "console": (plan.console, drivers.terminal),
        "virtio_console": (plan.virtio_console, drivers.virtio_terminal),
        "rng": (plan.rng, drivers.entropy),
        "net": (net, drivers.network),
    }
    return {
        device: {
            "controller": attachment.queue_pair.controller,
            "driver": topology.controller(attachment.queue_pair.controller).driver,
            "class": type(driver).__name__,
            "module": type(driver).__module__,
        }
        for device, (attachment, driver) in found.items()
        if attachment is not None and driver is not None
    }
