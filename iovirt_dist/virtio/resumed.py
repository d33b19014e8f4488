"""The device's side of a split ring that outlives who serves it.

A back end may end with requests in flight and another take its place (vhost-user, "Inflight I/O tracking"), or the ring
be enabled again over the same memory. What was in flight then is in a log that outlives the ring object: it is taken
again, in its order, before anything new. As the log may be written by somebody who is killed between two of its steps,
each step leaves a state from which exactly the requests that the used ring does not show are in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from iovirt_dist.virtio.chain import DESCRIPTOR_BYTES, U16, Chain, KnownRam, RingError, RingSetup, area
from iovirt_dist.virtio.memory import GuestMemory
from iovirt_dist.virtio.split import USED_INDEX_OFFSET, SplitDevice, avail_bytes, used_bytes


class InFlightLog(Protocol):
    """What outlives the ring: which of its requests were taken and not used yet."""

    def resume(self, used_index: int, size: int) -> list[int]:
        """Return the heads in flight, in the order in which they were taken.

        Args:
            used_index: The used ring's index as it is in memory.
            size: Entries of the ring.
        """
        ...

    def taken(self, heads: Sequence[int]) -> None:
        """Requests were taken, in this order; nobody knows of them yet."""
        ...

    def batch(self, heads: Sequence[int]) -> None:
        """Requests will be used, in this order; the used ring does not show them yet."""
        ...

    def published(self, used_index: int, heads: Sequence[int]) -> None:
        """They are used: the used ring has this index."""
        ...

    def clear(self, used_index: int) -> None:
        """Nothing is in flight: the ring was stopped, and what it still offered goes back to its driver."""
        ...


class ResumedSplitDevice(SplitDevice):
    """A split ring that goes on where its log and its used ring say; see `chain.DeviceRing`.

    Args:
        memory: Guest memory.
        setup: Where the ring lies.
        log: What was in flight.

    Raises:
        RingError: As `SplitDevice`.
    """

    def __init__(self, memory: GuestMemory, setup: RingSetup, log: InFlightLog) -> None:
        super().__init__(memory, setup)
        self._log = log
        used = area(memory, setup.device_area, used_bytes(setup.size), 4)
        self.completed = U16.unpack_from(used, USED_INDEX_OFFSET)[0]
        self._again = log.resume(self.completed, setup.size)
        self._next = (self.completed + len(self._again)) & 0xFFFF
        self._unasked = True  # who served it before may have asked for no notification while requests were in flight

    def remap(self) -> None:
        """Look the areas up again: guest memory is mapped otherwise now.

        Raises:
            RingError: They are not there any more.
        """
        memory, setup = self._memory, self._setup
        self._table = area(memory, setup.descriptors, DESCRIPTOR_BYTES * setup.size, 16)
        self._avail = area(memory, setup.driver_area, avail_bytes(setup.size), 2)
        area(memory, setup.device_area, used_bytes(setup.size), 4)
        self._ram = KnownRam(memory)
        self._known = [None] * setup.size

    def _take_available(self, most: int) -> list[Chain]:
        """Take what was in flight before, then what is new."""
        if self._again:
            return self._take_again(most)
        chains = super()._take_available(most)
        if chains:
            self._log.taken([chain.head for chain in chains])
        return chains

    def _take_again(self, most: int) -> list[Chain]:
        heads, self._again = self._again[:most], self._again[most:]
        chains = []
        for head in heads:
            if head >= self._size:
                raise RingError("head-range", f"{head} in a table of {self._size}")
            if self._in_flight[head]:
                raise RingError("head-in-flight", str(head))
            chains.append(self._walk(head))
        return chains

    def publish(self) -> bool:
        """Write the used ring between the two steps of the log; see `DeviceRing.publish`.

        The driver runs at the same time: it says what it wants, then looks at the index, as we write the index and then
        look at what it wants. A CPU may let a read overtake a write, and then both see what was before. So we look once
        more when the log has been written, by when the index has left the CPU: it queues some hundred writes at most.
        """
        heads = self._done[::2]
        if not heads:
            return False
        self._log.batch(heads)
        due = super().publish()
        self._log.published(self.completed & 0xFFFF, heads)
        return due or self._interrupt_due(len(heads))
