"""The driver's side of the virtio-mmio transport, version 2 (VIRTIO 1.2, section 4.2), for scripts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.script.access import GuestAccess
from iovirt_dist.virtio.features import DeviceId, Feature, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.mmio import MAGIC, VERSION, InterruptBit, Register, Status
from iovirt_dist.virtio.ring import DriverRing, RingSetup, ring_bytes, ring_setup

_WORD = 0xFFFF_FFFF


class NotifyingRing(Protocol):
    """What of a ring concerns notifications and interrupts; see `DriverRing`."""

    def notify_needed(self) -> bool:
        """Whether the device wants a notification."""
        ...

    def enable_interrupts(self) -> bool:
        """Ask for an interrupt; True if something was used already."""
        ...

    def disable_interrupts(self) -> None:
        """Ask for none."""
        ...


R = TypeVar("R", bound=NotifyingRing)


class DeviceError(LocalError):
    """A virtio device is not what the script expects, or wants to be reset."""


class VirtioDevice:
    """One virtio device, from reset to DRIVER_OK (section 3.1.1).

    Args:
        guest: Whose.
        base: Guest physical address of its window.
        source: Its number at the interrupt controller.

    Attributes:
        guest: Whose.
        features: What was negotiated, a set as in `virtio.features`.
        polled: Whether its queues are polled; otherwise they interrupt.
        needs_reset: The device has said so: nothing that is in flight will complete.
        generation: Of the configuration when it was read last.
        used: Happens when the device interrupts because of used buffers.
        configured: Happens when it interrupts because its configuration changed.
    """

    def __init__(self, guest: GuestAccess, base: int, source: int) -> None:
        self.guest = guest
        self.features = 0
        self.polled = True
        self.needs_reset = False
        self.generation = 0
        self.used = guest.event()
        self.configured = guest.event()
        self._base = base
        self._source = source

    async def read(self, register: Register) -> int:
        """Read a register: a round trip."""
        return await self.guest.load(self._base + register)

    def write(self, register: Register, value: int) -> None:
        """Write a register."""
        self.guest.store(self._base + register, 4, value)

    async def start(self, device: DeviceId, wanted: int, *, interrupts: bool = False) -> int:
        """Reset the device and negotiate features; queues and `go` follow.

        Args:
            device: What it must be.
            wanted: Features to take if they are offered; VERSION_1 is a must.
            interrupts: Whether its queues shall interrupt; a polled queue is looked at whenever devices have written
                to memory, which costs no trap.

        Returns:
            The features that are in force.

        Raises:
            DeviceError: It is another device, or does not agree.
        """
        found = [await self.read(register) for register in (Register.MAGIC_VALUE, Register.VERSION, Register.DEVICE_ID)]
        if found != [MAGIC, VERSION, device]:
            what = "nothing" if found[0] != MAGIC or not found[2] else f"device {found[2]}, version {found[1]}"
            raise self.error(f"expected a virtio {device.name.lower()} device, found {what}")
        await self.reset()
        self.write(Register.STATUS, Status.ACKNOWLEDGE)
        self.write(Register.STATUS, Status.ACKNOWLEDGE | Status.DRIVER)
        offered = await self.offered()
        if not offered >> Feature.VERSION_1 & 1:
            raise self.error("the device does not offer VERSION_1")
        self.features = offered & (wanted | mask(Feature.VERSION_1))
        for at in (0, 1):
            self.write(Register.DRIVER_FEATURES_SEL, at)
            self.write(Register.DRIVER_FEATURES, self.features >> 32 * at & _WORD)
        self.write(Register.STATUS, Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)
        if not await self.read(Register.STATUS) & Status.FEATURES_OK:
            raise self.error(f"the device refuses the features {self.features:#x}")
        self.polled = not interrupts
        return self.features

    async def reset(self) -> None:
        """Reset the device, and wait until it is done (section 4.2.2.1)."""
        self.write(Register.STATUS, 0)
        while await self.read(Register.STATUS):
            pass
        self.needs_reset = False

    async def offered(self) -> int:
        """Read the features that the device offers."""
        offered = 0
        for at in (0, 1):
            self.write(Register.DEVICE_FEATURES_SEL, at)
            offered |= await self.read(Register.DEVICE_FEATURES) << 32 * at
        return offered

    async def config(self, length: int) -> bytes:
        """Read the start of the configuration space, all of it of one generation (section 2.5.3).

        Args:
            length: Bytes; rounded up to words.
        """
        while True:
            self.generation = await self.read(Register.CONFIG_GENERATION)
            words = [await self.guest.load(self._base + Register.CONFIG + at) for at in range(0, length, 4)]
            if await self.read(Register.CONFIG_GENERATION) == self.generation:
                return b"".join(word.to_bytes(4, "little") for word in words)[:length]

    async def queue(self, index: int, size: int, make: Callable[[ByteMemory, RingSetup], R]) -> DriverQueue[R]:
        """Give the device a queue (section 4.2.3.2).

        Args:
            index: Its number.
            size: Entries wanted, a power of two; there may be fewer.
            make: Makes the driver's side of the ring: `virtio.ring.driver_ring`.

        Raises:
            DeviceError: The device has no such queue.
        """
        self.write(Register.QUEUE_SEL, index)
        most = await self.read(Register.QUEUE_NUM_MAX)
        if not most:
            raise self.error(f"the device has no queue {index}")
        size = min(size, most)
        guest = self.guest
        setup = ring_setup(guest.allocate(ring_bytes(size)), size, self.features)
        ring = make(guest.memory, setup)
        self.enable_queue(setup)
        return DriverQueue(self, index, setup, ring)

    def enable_queue(self, setup: RingSetup) -> None:
        """Tell the device where the selected queue lies, and enable it (section 4.2.3.2)."""
        self.write(Register.QUEUE_NUM, setup.size)
        for register, address in (
            (Register.QUEUE_DESC_LOW, setup.descriptors),
            (Register.QUEUE_DRIVER_LOW, setup.driver_area),
            (Register.QUEUE_DEVICE_LOW, setup.device_area),
        ):
            self.guest.store(self._base + register, 4, address & _WORD)
            self.guest.store(self._base + register + 4, 4, address >> 32)
        self.write(Register.QUEUE_READY, 1)

    def go(self) -> None:
        """Set DRIVER_OK: the device may use its queues. Its interrupts are served from here on."""
        self.guest.interrupts.connect(self._source, self._interrupted)
        ready = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK
        self.write(Register.STATUS, ready)

    async def _interrupted(self) -> None:
        """Serve an interrupt (section 4.2.3.4)."""
        status = await self.read(Register.INTERRUPT_STATUS)
        self.write(Register.INTERRUPT_ACK, status)
        if status & InterruptBit.CONFIGURATION:
            self.needs_reset = bool(await self.read(Register.STATUS) & Status.DEVICE_NEEDS_RESET)
            self.configured.set()
            self.guest.dma.set()  # who polls must learn of it, too
        self.used.set()

    def error(self, what: str) -> DeviceError:
        """Return an error of this device."""
        return DeviceError(what, f"guest {self.guest.name}: virtio device at {self._base:#x}")


class DriverQueue(Generic[R]):
    """The driver's side of one queue; made by `VirtioDevice.queue`.

    Attributes:
        ring: The ring; when something was added comes `notify`, when something was taken `suppress`.
        setup: Where the ring lies; who wants to break it on purpose finds it there.
    """

    __slots__ = ("_device", "_index", "ring", "setup")

    def __init__(self, device: VirtioDevice, index: int, setup: RingSetup, ring: R) -> None:
        self._device = device
        self._index = index
        self.ring = ring
        self.setup = setup
        self.suppress()

    def notify(self) -> None:
        """Tell the device what was added, if it wants to know: one doorbell for any number of requests."""
        if self.ring.notify_needed():
            self._device.write(Register.QUEUE_NOTIFY, self._index)

    def suppress(self) -> None:
        """Ask for no interrupts if the queue is polled; with the event index that holds for 65535 requests only."""
        if self._device.polled:
            self.ring.disable_interrupts()

    async def wait(self) -> None:
        """Wait until something may have been used; whoever takes it first has it.

        Raises:
            DeviceError: The device needs a reset: nothing will come.
        """
        device = self._device
        if device.needs_reset:
            raise device.error("the device needs a reset")
        if device.polled:
            await device.guest.dma
        elif not self.ring.enable_interrupts():
            await device.used


async def take_used(queue: DriverQueue[DriverRing]) -> list[tuple[int, int]]:
    """Wait until something was used and return it, as `DriverRing.take_used`; raises as `DriverQueue.wait`."""
    while not (used := queue.ring.take_used()):
        await queue.wait()
    queue.suppress()
    return used
