"""What a script sees of its guest: memory, device registers, interrupt lines, time; and drivers for virtio devices."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

from iovirt_dist.errors import GuestFault, LocalError
from iovirt_dist.guest.script.interrupts import Interrupts
from iovirt_dist.guest.script.tasks import Event, Scheduler, Task
from iovirt_dist.guest.script.transport import VirtioDevice
from iovirt_dist.platform import virt
from iovirt_dist.virtio.memory import ByteMemory

T = TypeVar("T")


class RegisterBus(Protocol):
    """The way of a script's loads and stores to the devices of its machine."""

    def begin_load(self, address: int, width: int) -> None:
        """Begin a load; `ScriptGuest.finish_load` brings its end, later. One at a time."""
        ...

    def store(self, address: int, width: int, value: int) -> None:
        """Store, posted."""
        ...

    def say(self, text: str) -> None:
        """Log a line."""
        ...


class LoadEnd(NamedTuple):
    """How a load ended: its value, or the exception that the guest must take, -1 for none."""

    value: int
    fault: int = -1
    error_code: int = 0


class _Load:
    """A load that was begun or waits for its turn."""

    __slots__ = ("address", "end", "ended", "width")

    def __init__(self, address: int, width: int, ended: Event) -> None:
        self.address = address
        self.width = width
        self.ended = ended
        self.end: LoadEnd | None = None


class ScriptGuest:
    """A `virt` machine in the hands of a script, for one life: a power-on gives the script a new one.

    Args:
        name: The guest's name.
        parameters: From the topology.
        memory: RAM, all zero.
        bus: The way to the devices.
        scheduler: What runs the script.
        results: Where what the script publishes goes.

    Attributes:
        name: The guest's name.
        parameters: From the topology.
        memory: RAM, at the machine's RAM base.
        lines: Interrupt inputs of the CPU that are asserted now, bit per line (`platform.virt`: SEIP ...).
        lines_changed: Happens when they change.
        dma: Happens when devices have written to memory.
        interrupts: The interrupt controller.
        interrupts_taken: For the guest's report.
        results: For the author's use: JSON values by name, which ``results`` in the guest's status file shows.
    """

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        memory: ByteMemory,
        bus: RegisterBus,
        scheduler: Scheduler,
        results: dict[str, Any],
    ) -> None:
        self.name = name
        self.results = results
        self.parameters = parameters
        self.memory = memory
        self.lines = 0
        self.lines_changed = Event(scheduler)
        self.dma = Event(scheduler)
        self.interrupts = Interrupts(self)
        self.interrupts_taken = 0
        self._bus = bus
        self._scheduler = scheduler
        self._free = memory.base
        self._loads: deque[_Load] = deque()

    # --- registers

    async def load(self, address: int, width: int = 4) -> int:
        """Load from a device register: a trap, and a round trip to the hypervisor.

        Args:
            address: Guest physical address outside RAM.
            width: 1, 2, 4 or 8 bytes.

        Raises:
            GuestFault: The access is not allowed; `vector` is the RISC-V exception cause.
        """
        load = _Load(address, width, Event(self._scheduler))
        self._loads.append(load)
        if len(self._loads) == 1:
            self._bus.begin_load(address, width)
        while (end := load.end) is None:
            await load.ended
        if end.fault >= 0:
            raise GuestFault(end.fault, end.error_code)
        return end.value & ((1 << 8 * width) - 1)

    def store(self, address: int, width: int, value: int) -> None:
        """Store to a device register: a trap that nobody waits for, in order with all others."""
        self._bus.store(address, width, value)

    def finish_load(self, end: LoadEnd) -> None:
        """Take the end of the load that was begun last, and begin the next; for the bus."""
        if not self._loads:
            return
        load = self._loads.popleft()
        load.end = end
        load.ended.set()
        if self._loads:
            self._bus.begin_load(self._loads[0].address, self._loads[0].width)

    # --- memory, interrupts, time

    def allocate(self, size_bytes: int, align: int = 16) -> int:
        """Take memory, for good; returns its address.

        Raises:
            LocalError: There is not so much left.
        """
        address = -(-self._free // align) * align
        end = self.memory.base + self.memory.size_bytes
        if address + size_bytes > end:
            what = f"{size_bytes} bytes of memory are wanted and {max(end - address, 0)} are left"
            raise LocalError(what, f"guest {self.name}", f"set guest.{self.name}.memory")
        self._free = address + size_bytes
        return address

    async def interrupt(self, line: int = virt.SEIP) -> None:
        """Wait until an interrupt input is asserted; returns at once if it is."""
        while not self.lines >> line & 1:
            await self.lines_changed

    def now_ns(self) -> int:
        """Monotonic time of what the script reacts to."""
        return self._scheduler.now_ns

    async def sleep(self, seconds: float) -> None:
        """Wait for a while."""
        await self._scheduler.timer(int(seconds * 1e9))

    def spawn(self, coroutine: Coroutine[Any, None, T]) -> Task[T]:
        """Let another coroutine run at the same time; await what this returns for its result.

        If it raises, the whole script ends. It ends with the script.
        """
        return self._scheduler.spawn(coroutine)

    def event(self) -> Event:
        """Return an event for the script's own use."""
        return Event(self._scheduler)

    def say(self, text: str) -> None:
        """Write a line to the guest's log."""
        self._bus.say(text)

    # --- devices

    def virtio(self, slot: int) -> VirtioDevice:
        """Return the transport of the virtio device in a slot, in whatever state the device is."""
        return VirtioDevice(self, virt.VIRTIO_BASE + slot * virt.VIRTIO_STRIDE, virt.VIRTIO_IRQ + slot)
