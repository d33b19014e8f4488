"""Where a device's virtqueues live: memory, the kind of ring, and who interrupts the driver."""

from __future__ import annotations

from typing import Protocol

from iovirt_dist.virtio.memory import GuestMemory
from iovirt_dist.virtio.ring import DeviceRing, RingSetup, device_ring


class QueueHome(Protocol):
    """What `ArmedQueue` needs of the place where a queue lies.

    Attributes:
        interrupts: Whether the driver is interrupted from here, by `interrupt`; else the hypervisor does it.
    """

    interrupts: bool

    @property
    def memory(self) -> GuestMemory:
        """Guest memory."""
        ...

    def ring(self, queue: int, setup: RingSetup) -> DeviceRing:
        """Return the device's side of a ring that is armed now.

        Raises:
            RingError: The ring's areas are not what a ring's can be.
        """
        ...

    def interrupt(self, queue: int) -> None:
        """Interrupt the driver because of used buffers."""
        ...

    def broke(self, queue: int, reason: str) -> None:
        """The ring of a queue cannot be walked; the hypervisor is told, too."""
        ...


class MachineHome:
    """The home of the queues of a guest that has one memory, and whose hypervisor interrupts it.

    Args:
        memory: Guest memory.
    """

    interrupts = False

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory

    def ring(self, queue: int, setup: RingSetup) -> DeviceRing:  # noqa: ARG002 - the protocol's signature
        """A ring that was just enabled: nothing is in flight."""
        return device_ring(self.memory, setup)

    def interrupt(self, queue: int) -> None:
        """Not from here."""

    def broke(self, queue: int, reason: str) -> None:
        """The hypervisor makes the device say so."""
