"""What split and packed rings have in common: where a ring lies, what it offers, and what may be wrong with it.

Everything here is re-exported by `virtio.ring`, which is where users import it from.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from iovirt_dist.errors import LocalError, PeerError
from iovirt_dist.step import Record
from iovirt_dist.virtio.features import Feature, has
from iovirt_dist.virtio.memory import GuestMemory, MemoryRangeError

SIZE_MAX = 32768
"""Largest Queue Size of either layout (sections 2.7 and 2.8)."""
CHAIN_BYTES_MAX = 0xFFFF_FFFF
"""Most bytes of a request. Section 2.7.5 allows one byte more, which no 32-bit length can tell."""

NEVER = -1
"""`DeviceRing.interrupt_at`: the driver wants no interrupt."""
ALWAYS = 0
"""`DeviceRing.interrupt_at`: the driver wants an interrupt with every batch."""

DESCRIPTOR_BYTES = 16
NEXT = 1
"""VIRTQ_DESC_F_NEXT: the request goes on in another descriptor."""
WRITE = 2
"""VIRTQ_DESC_F_WRITE: the device writes this buffer."""
INDIRECT = 4
"""VIRTQ_DESC_F_INDIRECT: the buffer is a table of descriptors."""

U16 = struct.Struct("@H" if sys.byteorder == "little" else "<H")
"""An index of a ring, little-endian. In the machine's own order CPython moves it as a whole; in a named order it moves
byte by byte, and who shares the memory may see, or show, half of an index."""

Segment = tuple[int, int]
"""Guest physical address and length, bytes."""


class RingSetup(NamedTuple):
    """Where a virtqueue lies (section 2.6): what a driver tells its transport.

    Attributes:
        size: Queue Size: descriptors, 1 to 32768; of a split ring a power of two.
        descriptors: Address of the descriptor table or the packed descriptor ring; a multiple of 16.
        driver_area: Address of the available ring (multiple of 2) or the driver event suppression (of 4).
        device_area: Address of the used ring or the device event suppression; a multiple of 4.
        features: The negotiated features, a set as in `virtio.features`.
    """

    size: int
    descriptors: int
    driver_area: int
    device_area: int
    features: int

    @property
    def packed(self) -> bool:
        """Whether the layout is that of section 2.8."""
        return has(self.features, Feature.RING_PACKED)

    @property
    def event_idx(self) -> bool:
        """Whether each side says at which entry it wants to be notified."""
        return has(self.features, Feature.RING_EVENT_IDX)

    @property
    def indirect(self) -> bool:
        """Whether descriptors may refer to tables."""
        return has(self.features, Feature.RING_INDIRECT_DESC)


class RingError(PeerError):
    """A ring that cannot be walked. It stays broken: the device must be reset.

    Reasons: ``ring-size``, ``ring-alignment`` and ``ring-memory`` (the areas themselves), ``index-jump`` (more is
    available than the ring holds), ``head-range``, ``head-in-flight``, ``head-unknown`` (used, but not taken),
    ``chain-range`` (a next field outside the table), ``chain-long`` (more descriptors than the ring has free, so also
    every loop), ``chain-partial`` (packed: goes on in a descriptor that is not available), ``chain-bytes`` (4 GiB or
    more), ``chain-order`` (readable behind writable), ``buffer-memory`` (outside RAM), ``indirect-feature`` (not
    negotiated), ``indirect-next`` (table and next at once), ``indirect-nested``, ``indirect-length``,
    ``indirect-memory``, ``used-length`` and ``request-size`` (more data than a message
    takes); of the driver's side ``used-jump`` and ``head-unknown``.
    """


class RingFullError(LocalError):
    """The ring has fewer free descriptors than a request needs; take what was used and try again.

    A request of more segments than the ring's size never fits, not even with a table (sections 2.7.5.3.1 and 2.8.19).
    """


class Chain(Record, frozen=True, gc=False):
    """One request: a chain of descriptors as the device sees it (section 2.6).

    Every segment lies in RAM and none is empty. What the driver writes to the descriptors later changes nothing here.

    Attributes:
        head: Number of the request: index of its first descriptor, or its buffer id (packed).
        readable: Device-readable segments.
        writable: Device-writable segments.
        readable_bytes: Their total; the totals of both together are below 4 GiB.
        writable_bytes: Theirs.
    """

    head: int
    readable: list[Segment]
    writable: list[Segment]
    readable_bytes: int
    writable_bytes: int


class DeviceRing(Protocol):
    """The device's side of a virtqueue in untrusted memory.

    A ring that raised `RingError` from `take` raises the same from every later `take`, having taken nothing.
    """

    completed: int
    """Completions published since the ring was made."""

    def take(self, most: int, *, ask: bool = True) -> list[Chain]:
        """Return what is newly available, in order.

        If fewer than `most` come back, the driver notifies for whatever it makes available from now on; otherwise
        call again.

        Args:
            most: Most requests to take, at least 1.
            ask: False if you will look again by yourself: with RING_EVENT_IDX the driver need not notify then. A later
                call with True asks for it.

        Raises:
            RingError: The driver broke the format. Nothing of this call is taken.
        """
        ...

    def put(self, head: int, written: int) -> None:
        """Use a request, not visible yet.

        Args:
            head: `Chain.head`.
            written: Bytes written from the start of its writable part, 0 to 2**32 - 1.

        Raises:
            RingError: Reason ``head-unknown``: no such request is in flight. Reason ``used-length``: not 32 bits.
        """
        ...

    def publish(self) -> bool:
        """Make visible what was used, in the order of `put`; return whether the driver wants an interrupt for it.

        False if nothing was used since the last call.
        """
        ...

    def interrupt_at(self) -> int:
        """Return with which completion the driver wants an interrupt, as `Doorbell.interrupt_at` has it.

        `NEVER`, `ALWAYS`, or a number above `completed`. Exact for split rings; for packed ones, which count in
        descriptors, exact as long as requests complete in the order in which they were taken.
        """
        ...


class DriverRing(Protocol):
    """The driver's side of a virtqueue, in memory of its own."""

    @property
    def free(self) -> int:
        """Descriptors that are free; a request needs one for each segment, or one if it has a table."""
        ...

    def add(self, readable: Sequence[Segment], writable: Sequence[Segment], table: int | None = None) -> int:
        """Make a request available; return its number, which `take_used` gives back.

        Args:
            readable: Device-readable segments.
            writable: Device-writable segments; at least one segment altogether.
            table: Address of 16 bytes for each segment, for an indirect table that stays until the request is
                used; needs RING_INDIRECT_DESC.

        Raises:
            RingFullError: Not enough free descriptors.
        """
        ...

    def notify_needed(self) -> bool:
        """Return whether the device wants a notification for what was added since the last call."""
        ...

    def take_used(self) -> list[tuple[int, int]]:
        """Return what was used since the last call, in order: number and bytes written.

        Raises:
            RingError: The device used what it did not have.
        """
        ...

    def enable_interrupts(self) -> bool:
        """Ask for an interrupt with the next used request; return True if one was used already.

        Then no interrupt need follow: take what was used and ask again (section 2.7.14).
        """
        ...

    def interrupt_after(self, requests: int) -> bool:
        """Ask for an interrupt once so many more are used, at least 1; return True if they were used already.

        Without RING_EVENT_IDX this is `enable_interrupts`. A packed ring counts descriptors: with requests of different
        lengths it may interrupt earlier, and later if shorter ones are added meanwhile.
        """
        ...

    def disable_interrupts(self) -> None:
        """Ask for none; with RING_EVENT_IDX in a split ring, none for the next 65535 used requests."""
        ...


class KnownRam:
    """The stretch of RAM that buffers were found in so far: two comparisons in place of a look-up per buffer.

    RAM neither moves nor shrinks, so what was once wholly in RAM stays so. A buffer outside the stretch extends it if
    all between them is RAM, and replaces it otherwise.

    Args:
        memory: Guest memory.

    Attributes:
        low: Address of its first byte.
        high: Address behind its last.
    """

    __slots__ = ("_memory", "high", "low")

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self.low = self.high = 0

    def admit(self, address: int, length: int) -> None:
        """Check a buffer that is not within `low` and `high`.

        Raises:
            RingError: Reason ``buffer-memory``.
        """
        for low, high in (
            (min(self.low, address), max(self.high, address + length)),
            (address, address + length),
        ):
            try:
                self._memory.view(low, high - low)
            except MemoryRangeError:
                continue
            self.low, self.high = low, high
            return
        raise RingError("buffer-memory", f"{length} bytes at {address:#x}")


def area(memory: GuestMemory, address: int, length: int, alignment: int) -> memoryview:
    """Return a part of a virtqueue.

    Raises:
        RingError: Reason ``ring-alignment`` or ``ring-memory``.
    """
    if address % alignment:
        raise RingError("ring-alignment", f"{address:#x} is no multiple of {alignment}")
    try:
        return memory.view(address, length)
    except MemoryRangeError:
        raise RingError("ring-memory", f"{length} bytes at {address:#x}") from None


def indirect_table(memory: GuestMemory, allowed: bool, address: int, length: int, flags: int) -> memoryview:
    """Return the table that a descriptor refers to (sections 2.7.5.3 and 2.8.7). Its address needs no alignment.

    Args:
        memory: Guest memory.
        allowed: Whether RING_INDIRECT_DESC was negotiated.
        address: Of the descriptor, as are `length` and `flags`.
        length: Bytes.
        flags: Descriptor flags.

    Raises:
        RingError: Reason ``indirect-feature``, ``indirect-next``, ``indirect-length`` or ``indirect-memory``.
    """
    if not allowed:
        raise RingError("indirect-feature")
    if flags & NEXT:
        raise RingError("indirect-next")
    if not length or length % DESCRIPTOR_BYTES:
        raise RingError("indirect-length", f"{length} bytes")
    try:
        return memory.view(address, length)
    except MemoryRangeError:
        raise RingError("indirect-memory", f"{length} bytes at {address:#x}") from None
