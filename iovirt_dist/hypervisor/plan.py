"""What the topology says of a guest, as its hypervisor needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import Unit
from iovirt_dist.platform.level import Level
from iovirt_dist.wire.codec import Buffer


@dataclass(frozen=True, slots=True)
class Attachment:
    """A device of a guest and the unit behind it.

    Attributes:
        queue_pair: Way to the controller.
        unit: Name of the extent or terminal there.
    """

    queue_pair: QueuePair
    unit: str

    def use(self) -> Unit:
        """The unit's state with the controller; asks for its identification the first time."""
        return self.queue_pair.use(self.unit)

    def hold(self) -> None:
        """Say that a guest has the unit, until `let_go`."""
        self.queue_pair.hold(self.unit)

    def let_go(self) -> None:
        """The guest is gone for good."""
        self.queue_pair.let_go(self.unit)

    def enroll(self, instance: int, guest: str) -> None:
        """Say that requests of this instance are the guest's, before a driver makes a queue for them."""
        self.queue_pair.queue.enroll(instance, guest)


@dataclass(frozen=True, slots=True)
class Card:
    """A network card and the switch port that it is plugged in.

    Attributes:
        attachment: The port.
        mac: The card's address, 6 bytes.
        mtu: Largest payload of a frame, bytes.
    """

    attachment: Attachment
    mac: bytes
    mtu: int


@dataclass(frozen=True, slots=True)
class GuestPlan:
    """What a guest is to have.

    Attributes:
        name: The guest.
        machine: ``pc``, ``virt``, ``vm``, or ``none`` for a program, which has no machine under it.
        memory_bytes: RAM.
        disk: First disk, None without one.
        console: First serial port, or a program's terminal; None without one.
        prefetch: Whether data port reads may come ahead of the INs that ask for them.
        level: Where its disk is intercepted.
        virtio_console: Virtio console, None without one.
        rng: Source of entropy, None without one.
        abi: Whose system calls are taken at the system-call level.
        files: What a program sees besides its devices: content by absolute path, read-only.
        net: Virtio network card, None without one.
        disk_queues: Request queues of a virtio disk, 1..8.
    """

    name: str
    machine: str
    memory_bytes: int
    disk: Attachment | None
    console: Attachment | None
    prefetch: bool = True
    level: Level = Level.OPERATION
    virtio_console: Attachment | None = None
    rng: Attachment | None = None
    abi: str = "linux_i386"
    files: Mapping[str, Buffer] = field(default_factory=dict)
    net: Card | None = None
    disk_queues: int = 1

    def shared(self, device: str) -> Attachment | None:
        """What is behind ``disk`` or ``rng``, whose requests wait for their turn; None if there is no such device."""
        return {"disk": self.disk, "rng": self.rng}.get(device)

    def attachments(self) -> list[Attachment]:
        """Everything that must be identified before the guest can have power."""
        net = self.net.attachment if self.net is not None else None
        return [a for a in (self.disk, self.console, self.virtio_console, self.rng, net) if a is not None]
