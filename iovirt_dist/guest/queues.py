"""All armed virtqueues of a guest: which store is a doorbell, and which message is about which queue."""

from __future__ import annotations

from collections.abc import Sequence

from iovirt_dist.guest.armed_queue import ArmedQueue, Outgoing, QueueCounts, broken
from iovirt_dist.guest.queue_home import MachineHome, QueueHome
from iovirt_dist.virtio.memory import GuestMemory, MemoryRangeError
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.virtio.ring import RingError
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.queue_messages import ArmQueue, Completions, DisarmQueue

MAX_QUEUES = 256
"""Queues that may be armed at a time; more than any machine has."""

_STATUS = Register.STATUS - Register.QUEUE_NOTIFY
"""Where a device's Status register lies behind the register that notifies its queues."""


class ArmedQueues:
    """All armed queues of a guest.

    Args:
        memory: Guest memory.

    Attributes:
        homes: Where the queues of a device live that are not in guest memory, or not all of the guest's, by device.
        home: Where all others live: in guest memory.
        by_doorbell: Queues by address of their notify register and the value that is stored there.
        counts: What happened.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self.homes: dict[int, QueueHome] = {}
        self.home = MachineHome(memory)
        self.by_doorbell: dict[tuple[int, int], ArmedQueue] = {}
        self.counts = QueueCounts()
        self._queues: dict[tuple[int, int], ArmedQueue] = {}

    def use_memory(self, memory: GuestMemory) -> None:
        """Take another guest memory, while nothing is armed."""
        self.home = MachineHome(memory)

    def arm(self, message: ArmQueue) -> list[Outgoing]:
        """Arm a queue, in place of its earlier life; returns what its ring offers already, or that it is broken."""
        key = message.device, message.queue
        self._remove(key)
        if len(self._queues) >= MAX_QUEUES:
            self.counts.malformed += 1
            return []
        try:
            queue = ArmedQueue(self.homes.get(message.device, self.home), message, self.counts)
        except RingError as error:
            self.counts.broken += 1
            return [broken(message, error)]
        self._queues[key] = self.by_doorbell[message.notify, message.queue] = queue
        return queue.gather(0)

    def disarm(self, message: DisarmQueue) -> None:
        """Forget a queue and what is in flight, unless it has another life already."""
        if self._find(message) is not None:
            self._remove((message.device, message.queue))

    def complete(self, message: Completions, payload: Sequence[Buffer]) -> list[Outgoing]:
        """Write completions to guest memory; see `ArmedQueue.complete`."""
        queue = self._find(message)
        return queue.complete(message, payload) if queue is not None else []

    def find(self, device: int, queue: int) -> ArmedQueue | None:
        """Return a queue if it is armed."""
        return self._queues.get((device, queue))

    def drop(self, device: int, queue: int) -> None:
        """Forget a queue before the hypervisor says so; what it still says of it is stale."""
        self._remove((device, queue))

    def stored(self, address: int, value: int) -> None:
        """Look at a store that is no doorbell: a 0 in a device's Status register resets it (VIRTIO 1.2, section 4.2.2).

        Its driver may use the queues' buffers for something else from here on, and the hypervisor has not heard of it.
        """
        if value == 0:
            for key in [key for key, queue in self._queues.items() if address - queue.arm.notify == _STATUS]:
                self._remove(key)

    def clear(self) -> None:
        """Forget all queues: the machine's devices are new."""
        self.by_doorbell.clear()
        self._queues.clear()

    @property
    def in_flight(self) -> int:
        """Requests that the hypervisor has."""
        return sum(len(queue.in_flight) for queue in self._queues.values())

    @property
    def awaited(self) -> bool:
        """Whether a request with something to read is in flight; others, such as buffers to receive in, may stay."""
        return any(queue.awaited for queue in self._queues.values())

    def _find(self, message: DisarmQueue | Completions) -> ArmedQueue | None:
        queue = self._queues.get((message.device, message.queue))
        if queue is None or queue.arm.generation != message.generation:
            self.counts.stale += 1
            return None
        return queue

    def _remove(self, key: tuple[int, int]) -> None:
        queue = self._queues.pop(key, None)
        if queue is None:
            return
        doorbell = queue.arm.notify, queue.arm.queue
        if self.by_doorbell.get(doorbell) is queue:
            del self.by_doorbell[doorbell]


class NoMemory:
    """A `GuestMemory` without RAM: of a guest that has no CPU to use any."""

    def read(self, address: int, length: int) -> bytes:
        """There is nothing."""
        raise MemoryRangeError("no RAM", f"{length} bytes at {address:#x}")

    def view(self, address: int, length: int) -> memoryview:
        """There is nothing."""
        raise MemoryRangeError("no RAM", f"{length} bytes at {address:#x}")

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """There is nothing."""
        raise MemoryRangeError("no RAM", f"{len(data)} bytes at {address:#x}")
