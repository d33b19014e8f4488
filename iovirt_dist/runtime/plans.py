"""From a topology to what one of its hypervisors serves."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import Request
from iovirt_dist.errors import ConfigError
from iovirt_dist.hypervisor.events import HypervisorConfig
from iovirt_dist.hypervisor.machines.registry import NO_MACHINE
from iovirt_dist.hypervisor.plan import Attachment, Card, GuestPlan
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.runtime.files import read_files
from iovirt_dist.topology.specs import (
    BlockSpec,
    ControllerSpec,
    GuestSpec,
    HypervisorSpec,
    MachineSpec,
    ProgramSpec,
    RngSpec,
    Topology,
    VmSpec,
)

ENTROPY_UNIT = ""
"""An entropy controller has one unit, without a name."""

MACHINE_ABI = "linux_i386"
"""System calls of the programs on a `pc` machine."""


def hypervisor_config(topology: Topology, spec: HypervisorSpec, epoch: int) -> HypervisorConfig:
    """Translate a topology for one of its hypervisors, in its life `epoch`."""
    guests = topology.guests_of(spec.name)
    pairs: dict[str, QueuePair] = {
        controller.name: _queue_pair(controller, guests) for controller in topology.controllers_of(spec.name)
    }
    plans: dict[str, GuestPlan] = {guest.name: guest_plan(guest, pairs) for guest in guests}
    return HypervisorConfig(
        name=spec.name,
        epoch=epoch,
        lease_ms=topology.lease_ns // 1_000_000,
        wall_minus_monotonic_ns=time.time_ns() - time.monotonic_ns(),
        plans=plans,
        controllers=pairs,
    )


def _queue_pair(controller: ControllerSpec, guests: Sequence[GuestSpec]) -> QueuePair:
    merge = isinstance(controller, BlockSpec) and controller.merge
    return QueuePair(controller.name, _queue(controller, guests), merge=merge)


def _queue(controller: ControllerSpec, guests: Sequence[GuestSpec]) -> MultiQueue[Request]:
    """The queue in front of a controller; only where commands end by themselves can they wait for each other."""
    if not isinstance(controller, (BlockSpec, RngSpec)):
        return MultiQueue(depth=0)
    device = "disk" if isinstance(controller, BlockSpec) else "rng"
    shares = {str(guest.name): guest.qos[device] for guest in guests if guest.controller_of(device) == controller.name}
    return MultiQueue(controller.scheduler, depth=controller.depth, qos=shares)


def share_devices(guest: GuestSpec, pairs: Mapping[str, QueuePair], now_ns: int) -> None:
    """Give a guest that comes later its shares of the devices, as `hypervisor_config` does for the others.

    Args:
        guest: Which guest.
        pairs: Queue pairs by controller name.
        now_ns: Monotonic time.
    """
    for device, qos in guest.qos.items():
        controller = guest.controller_of(device)
        if controller is not None:
            pairs[controller].queue.set_qos(guest.name, qos, now_ns)


def guest_plan(guest: GuestSpec, pairs: Mapping[str, QueuePair]) -> GuestPlan:
    """Translate a guest.

    Raises:
        ConfigError: It needs a controller to which the hypervisor has no queue pair.
    """
    missing = [name for name in guest.controllers if name not in pairs]
    if missing:
        what = f"guest {guest.name} needs controller {missing[0]}, to which its hypervisor has no queue pair"
        raise ConfigError(what, guest.hypervisor, "restart the hypervisor")
    disk, console, virtio_console, rng = guest.disk, guest.console, guest.virtio_console, guest.rng
    net = guest.net
    return GuestPlan(
        name=guest.name,
        machine=NO_MACHINE if isinstance(guest, ProgramSpec) else guest.machine,
        memory_bytes=guest.memory_bytes,
        disk=disk and Attachment(pairs[disk.controller], disk.unit),
        console=console and Attachment(pairs[console.controller], console.terminal),
        prefetch=isinstance(guest, MachineSpec) and guest.prefetch,
        level=guest.level,
        virtio_console=virtio_console and Attachment(pairs[virtio_console.controller], virtio_console.terminal),
        rng=rng and Attachment(pairs[rng.controller], ENTROPY_UNIT),
        abi=guest.abi if isinstance(guest, ProgramSpec) else MACHINE_ABI,
        files=read_files(guest.files) if isinstance(guest, ProgramSpec) else {},
        disk_queues=guest.queues if isinstance(guest, VmSpec) else 1,
        net=Card(Attachment(pairs[net.controller], net.port), net.mac, net.mtu) if net is not None else None,
    )
