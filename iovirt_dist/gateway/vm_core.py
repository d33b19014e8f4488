"""A foreign VMM as a guest of the hypervisor, without I/O: its front ends, and the guest's side of the guest protocol.

Theory of operation. The virtual devices of the guest's machine are driven by coroutines, one per device
(`served_device`) and one for the serial line; they run as a script guest's do (`guest.script.core`) and begin anew with
each life of the machine. Kicks of front ends are stores to notify registers of armed queues: `guest.core` walks the
vrings and sends doorbells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from iovirt_dist.gateway.serial_line import SerialLine
from iovirt_dist.gateway.served_device import ServedDevice
from iovirt_dist.gateway.vhost_user import actions as vu
from iovirt_dist.gateway.vhost_user.backend import Backend
from iovirt_dist.guest import core as gc
from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.script.core import Drained, ScriptCore, ScriptPlan
from iovirt_dist.guest.script.core import Event as ScriptEvent
from iovirt_dist.guest.script.guest import ScriptGuest
from iovirt_dist.guest.script.lines import LineInterrupts
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.step import TracePoint
from iovirt_dist.wire.messages import TrapKind
from iovirt_dist.wire.session import SessionConfig

DRIVER_MEMORY_BYTES = 256 << 10
"""Memory of the drivers in this process: the serial line's rings and buffers. What belongs to the VMM stays there."""

_DRIVER = IoPrivilege(0)


class FrontEndCame(NamedTuple):
    """A front end connected to a device's socket."""

    slot: VirtioSlot


class FrontEndWent(NamedTuple):
    """It is gone."""

    slot: VirtioSlot


class FrontEndSaid(NamedTuple):
    """A message of a front end, whole, with its file descriptors, which are the core's now."""

    slot: VirtioSlot
    data: bytes
    fds: Sequence[int]


class Kicked(NamedTuple):
    """A front end says that a queue has requests."""

    slot: VirtioSlot
    queue: int


class SerialPrinted(NamedTuple):
    """The VMM printed on its serial line."""

    data: bytes


class ForFrontEnd(NamedTuple):
    """What is to be done for a device's front end."""

    slot: VirtioSlot
    action: vu.Action


class SerialTyped(NamedTuple):
    """Bytes for the VMM's serial line."""

    data: bytes


Event: TypeAlias = ScriptEvent | FrontEndCame | FrontEndWent | FrontEndSaid | Kicked | SerialPrinted
Action: TypeAlias = gc.Send | gc.Note | TracePoint | ForFrontEnd | SerialTyped


class VmCore:
    """Sans-IO core of a gateway process.

    Args:
        config: Who we are.
        hypervisor: Name of the one hypervisor that we talk to.
        backends: The vhost-user sides of the devices that the guest has.
        serial: Whether it has a serial line.

    Attributes:
        script: What drives the devices; its `core` is the guest's side of the guest protocol.
        devices: The devices.
        serial: The serial line, None without one.
    """

    def __init__(
        self, config: SessionConfig, hypervisor: str, backends: Mapping[VirtioSlot, Backend], *, serial: bool
    ) -> None:
        self._name = config.name
        plan = ScriptPlan(name=config.name, memory_bytes=DRIVER_MEMORY_BYTES, script=self._live, parameters={})
        self.script = ScriptCore(config, hypervisor, plan)
        queues = self.script.core.queues
        self.devices = {
            slot: ServedDevice(slot, backend, queues, self._sink(slot)) for slot, backend in backends.items()
        }
        self.serial = SerialLine(self._type_in) if serial else None
        self._actions: list[Action] = []

    def handle(self, event: Event, now_ns: int) -> list[Action]:
        """Take one event; see the module's theory of operation."""
        actions: list[Action] = []
        self._actions = actions
        if isinstance(event, Kicked):
            device = self.devices[event.slot]
            if device.kicked(event.queue):
                store = gc.TrapRaised(TrapKind.MMIO_STORE, device.notify_address, 4, 1, event.queue, b"", _DRIVER)
                actions += self.script.handle(store, now_ns)
            return actions
        if isinstance(event, FrontEndSaid):
            self.devices[event.slot].received(event.data, event.fds)
        elif isinstance(event, FrontEndCame):
            self.devices[event.slot].front_end_came()
        elif isinstance(event, FrontEndWent):
            self.devices[event.slot].front_end_went()
        elif isinstance(event, SerialPrinted):
            if self.serial is not None:
                self.serial.printed(event.data)
        else:
            actions += self.script.handle(event, now_ns)
            return actions
        actions += self.script.handle(Drained(), now_ns)
        return actions

    def deadline_ns(self) -> int | None:
        """When a `TimerFired` is due."""
        return self.script.deadline_ns()

    def facts(self) -> dict[str, Any]:
        """What a person may want to know of the devices, by their names."""
        return {
            slot.name.lower(): {
                "connected": device.connected,
                "features": device.backend.features,
                "queues": sum(vring.started for vring in device.backend.queues),
                "faults": list(device.faults),
                "messages": device.backend.counts.messages,
                "rejects": dict(device.backend.counts.rejects),
            }
            for slot, device in self.devices.items()
        }

    async def _live(self, guest: ScriptGuest) -> None:
        """One life of the machine."""
        guest.interrupts = LineInterrupts(guest)
        tasks = [guest.spawn(device.serve(guest)) for device in self.devices.values()]
        if self.serial is not None:
            tasks.append(guest.spawn(self.serial.serve(guest)))
        for task in tasks:
            await task

    def _sink(self, slot: VirtioSlot) -> Callable[[vu.Action], None]:
        return lambda action: self._for_front_end(slot, action)

    def _for_front_end(self, slot: VirtioSlot, action: vu.Action) -> None:
        self._actions.append(ForFrontEnd(slot, action))
        if self.script.tracing and isinstance(action, vu.Signal):
            self._actions.append(TracePoint(self._name, 0, "call", {"device": slot.name.lower()}))

    def _type_in(self, data: bytes) -> None:
        self._actions.append(SerialTyped(data))
