"""A virtio block driver for scripts (VIRTIO 1.2, section 5.2): single requests to await, or batches without any await.

Theory of operation. Each request in flight has a slot: a header, a status byte and a buffer at fixed addresses, so that
a request costs one header and its descriptors. `submit_many` fills slots and rings the doorbell once; `completions`
returns whatever is done. Requests that somebody awaits (`read`, `write` ...) go through the same slots and are kept out
of `completions`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.script.access import GuestAccess
from iovirt_dist.guest.script.requests import DESCRIPTORS, RequestRing, Shape, request_ring
from iovirt_dist.guest.script.transport import DeviceError, VirtioDevice
from iovirt_dist.step import Record
from iovirt_dist.virtio.block import (
    CONFIG_BYTES,
    HEADER,
    HEADER_BYTES,
    ID_BYTES,
    RANGE,
    RANGE_UNMAP,
    REQUEST,
    SECTOR_BYTES,
    STATUS_BYTES,
    BlockConfig,
    BlockFeature,
    BlockRequest,
    BlockStatus,
)
from iovirt_dist.virtio.features import DeviceId, Feature, has, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.ring import RingSetup

_WANTED = mask(
    BlockFeature.SEG_MAX,
    BlockFeature.RO,
    BlockFeature.BLK_SIZE,
    BlockFeature.FLUSH,
    BlockFeature.DISCARD,
    BlockFeature.WRITE_ZEROES,
)
_IN = BlockRequest.IN
_FORM_BITS = SECTOR_BYTES.bit_length()
"""From sectors to a slot's `format`: the bytes, and one bit more."""
_DATA_IN = (int(_IN), int(BlockRequest.GET_ID))
"""Requests whose data the device writes."""
_UNANSWERED = 0xFF
"""Status byte before the device writes it: no `BlockStatus`."""


_pack_header = HEADER.pack_into


class DiskError(LocalError):
    """The disk did not do what was awaited."""


class BlockIo(NamedTuple):
    """One request of a batch.

    Attributes:
        type: What to do.
        sector: First sector of 512 bytes.
        sectors: How many; for OUT what `data` holds counts.
        data: OUT: what is written.
    """

    type: BlockRequest
    sector: int = 0
    sectors: int = 0
    data: bytes | bytearray | memoryview = b""


class BlockDone(Record, frozen=True):
    """Outcome of one request.

    Attributes:
        number: As `Disk.submit_many` counted it.
        status: A `BlockStatus`, or anything that the device wrote.
        data: What was read: the buffer itself, which the next `submit_many` may give to another request.
    """

    number: int
    status: int
    data: memoryview


class _Slot:
    """Memory of one request; offsets are from the start of RAM."""

    __slots__ = ("buffer", "data_in", "format", "header_offset", "index", "number", "shape", "status_offset")

    def __init__(self, index: int, guest: GuestAccess, io_bytes: int) -> None:
        header = guest.allocate(HEADER_BYTES + STATUS_BYTES)
        buffer = guest.allocate(io_bytes, 4096)
        self.index = index
        self.shape = Shape((header, HEADER_BYTES), buffer, (header + HEADER_BYTES, STATUS_BYTES))
        self.buffer = guest.memory.view(buffer, io_bytes)
        self.header_offset = header - guest.memory.base
        self.status_offset = self.header_offset + HEADER_BYTES
        self.format = 0
        """Length of the data and, lowest bit, whether the device writes it: as the ring knows it."""
        self.data_in = self.buffer[:0]
        """What the device writes besides the status."""
        self.number = 0


class Disk:
    """A block device that is ready; made by `open_disk`.

    Attributes:
        device: Its transport.
        config: Its configuration; fields are valid by `features`.
        capacity: Sectors of 512 bytes.
        read_only: Whether it refuses writes.
        depth: Requests that may be in flight.
        io_sectors: Most sectors of one request of a batch.
        submitted: Requests so far; the number of the next.
        queue: Its only queue.
    """

    def __init__(self, device: VirtioDevice, config: BlockConfig, io_bytes: int) -> None:
        self.device = device
        self.config = config
        self.capacity = config.capacity
        self.read_only = has(device.features, BlockFeature.RO)
        self.depth = 0
        self.io_sectors = io_bytes // SECTOR_BYTES
        self.submitted = 0
        self._memory = device.guest.memory.data
        self._io_bytes = io_bytes
        self._slots: list[_Slot] = []
        self._free: list[_Slot] = []
        self._awaited: dict[int, BlockDone | None] = {}
        self._done: list[BlockDone] = []

    async def start(self, depth: int) -> None:
        """Set the queue up and let the device go; for `open_disk`."""
        size = 1 << (DESCRIPTORS * depth - 1).bit_length()
        self.queue = await self.device.queue(REQUEST, size, lambda memory, setup: self._ring(memory, setup, depth))
        self.device.go()

    def _ring(self, memory: ByteMemory, setup: RingSetup, depth: int) -> RequestRing:
        """Take memory for as many slots as there shall be and the ring holds."""
        self.depth = min(depth, setup.size // DESCRIPTORS)
        self._slots = [_Slot(index, self.device.guest, self._io_bytes) for index in range(self.depth)]
        self._free = list(reversed(self._slots))
        return request_ring(memory, setup, [slot.shape for slot in self._slots])

    async def measure(self) -> int:
        """Read the capacity anew: the device interrupts (`VirtioDevice.configured`) when it has grown."""
        self.config = BlockConfig.unpack(await self.device.config(CONFIG_BYTES))
        self.capacity = self.config.capacity
        return self.capacity

    @property
    def free(self) -> int:
        """Requests that `submit_many` takes now."""
        return len(self._free)

    # --- batches

    def submit_many(self, requests: Iterable[BlockIo]) -> int:
        """Make requests available and ring the doorbell once.

        Args:
            requests: At most `free`, each of at most `io_sectors`.

        Returns:
            Number of the first; the others follow.

        Raises:
            DiskError: They are more, or larger. Those in front of it are submitted.
        """
        first = number = self.submitted
        slots: list[int] = []
        free, memory, most = self._free, self._memory, self._io_bytes
        try:
            for kind, sector, sectors, data in requests:
                form = sectors << _FORM_BITS | 1 if kind == _IN else 0
                if not free or data or form >> 1 > most or free[-1].format != form:
                    self.submitted = number
                    slots.append(self._fill(kind, sector, sectors, data).index)
                else:  # as the slot's last request: all but the header is in place
                    slot = free.pop()
                    _pack_header(memory, slot.header_offset, kind, 0, sector)
                    memory[slot.status_offset] = _UNANSWERED
                    slot.number = number
                    slots.append(slot.index)
                number += 1
        finally:
            self.submitted = number
            self.queue.ring.offer(slots)
            self.queue.notify()
        return first

    async def completions(self) -> list[BlockDone]:
        """Wait until something is done that was submitted with `submit_many`, and return all that is.

        Raises:
            DeviceError: The device needs a reset.
        """
        self._reap()
        while not self._done:
            await self.queue.wait()
            self._reap()
        done, self._done = self._done, []
        return done

    def completions_nowait(self) -> list[BlockDone]:
        """Return what is done, without waiting."""
        self._reap()
        done, self._done = self._done, []
        return done

    def in_flight(self) -> list[tuple[int, memoryview]]:
        """Return what was submitted and not taken back: numbers in their order, and the data that the device reads."""
        free = set(self._free)
        busy = [slot for slot in self._slots if slot not in free]
        found = [(slot.number, slot.buffer[: 0 if slot.format & 1 else slot.format >> 1]) for slot in busy]
        return sorted(found, key=lambda one: one[0])

    def _fill(self, kind: int, sector: int, sectors: int, data: bytes | bytearray | memoryview) -> _Slot:
        """Write a request into a slot."""
        if not self._free:
            raise DiskError(f"{self.depth} requests are in flight", fix="take completions first")
        reads = kind in _DATA_IN
        length = sectors * SECTOR_BYTES if kind == _IN else len(data)
        if length > self._io_bytes:
            raise DiskError(
                f"a request of {length} bytes, buffers have {self._io_bytes}", fix="open with more io_bytes"
            )
        slot = self._free.pop()
        _pack_header(self._memory, slot.header_offset, kind, 0, sector)
        self._memory[slot.status_offset] = _UNANSWERED
        if not reads:
            slot.buffer[:length] = data
        form = length << 1 | reads
        if slot.format != form:
            slot.format = form
            slot.data_in = slot.buffer[: length if reads else 0]
            self.queue.ring.describe(slot.index, length, writable=reads)
        slot.number = self.submitted
        self.submitted += 1
        return slot

    def _reap(self) -> None:
        """Take what is used, and sort it by who waits for it."""
        used = self.queue.ring.take()
        if not used:
            return
        self.queue.suppress()
        memory, slots, free, awaited, ready = self._memory, self._slots, self._free, self._awaited, self._done
        for index in used:
            slot = slots[index]
            free.append(slot)
            done = BlockDone(slot.number, memory[slot.status_offset], slot.data_in)
            if awaited and slot.number in awaited:
                awaited[slot.number] = done
            else:
                ready.append(done)

    # --- single requests

    async def read(self, sector: int, count: int) -> bytes:
        """Read sectors, in as many requests as it takes.

        Raises:
            DiskError: The device reports an error.
            DeviceError: The device needs a reset.
        """
        result = bytearray()
        while count:
            now = min(count, self.io_sectors)
            result += await self._transact(BlockRequest.IN, sector, now)
            sector, count = sector + now, count - now
        return bytes(result)

    async def write(self, sector: int, data: bytes | bytearray | memoryview) -> None:
        """Write whole sectors, in as many requests as it takes; raises as `read` does, also for a part of a sector."""
        if len(data) % SECTOR_BYTES:
            raise DiskError(f"{len(data)} bytes are no whole sectors")
        for at in range(0, len(data), self._io_bytes):
            piece = memoryview(data)[at : at + self._io_bytes]
            await self._transact(BlockRequest.OUT, sector + at // SECTOR_BYTES, 0, piece)

    async def flush(self) -> None:
        """Make stable what was written; raises as `read` does."""
        await self._transact(BlockRequest.FLUSH)

    async def discard(self, sector: int, count: int) -> None:
        """Say that sectors are not needed any more; raises as `read` does."""
        await self._transact(BlockRequest.DISCARD, 0, 0, RANGE.pack(sector, count, 0))

    async def write_zeroes(self, sector: int, count: int, *, unmap: bool = False) -> None:
        """Make sectors zero without sending zeroes; raises as `read` does.

        Args:
            sector: The first one.
            count: How many, at most the configuration's `max_write_zeroes_sectors`.
            unmap: Whether their space may be given back.
        """
        await self._transact(BlockRequest.WRITE_ZEROES, 0, 0, RANGE.pack(sector, count, RANGE_UNMAP if unmap else 0))

    async def identity(self) -> str:
        """Return the disk's name (GET_ID); raises as `read` does."""
        data = await self._transact(BlockRequest.GET_ID, 0, 0, bytes(ID_BYTES))
        return data.rstrip(b"\0").decode("ascii", "replace")

    async def _transact(
        self, kind: BlockRequest, sector: int = 0, count: int = 0, data: bytes | bytearray | memoryview = b""
    ) -> bytes:
        """Make one request and wait for it; returns a copy of what was read."""
        while not self._free:
            await self.queue.wait()
            self._reap()
        slot = self._fill(kind, sector, count, data)
        number = slot.number
        self._awaited[number] = None
        self.queue.ring.offer((slot.index,))
        self.queue.notify()
        try:
            while (done := self._awaited[number]) is None:
                self._reap()
                if self._awaited[number] is None:
                    await self.queue.wait()
            result = bytes(done.data)
        finally:
            del self._awaited[number]
        if done.status != BlockStatus.OK:
            words = {BlockStatus.IOERR: "an I/O error", BlockStatus.UNSUPP: "that it cannot do this"}
            what = words.get(BlockStatus(done.status)) if done.status in set(BlockStatus) else f"status {done.status}"
            raise DiskError(f"{kind.name} of {count} sectors at {sector}: the disk reports {what}")
        return result


async def open_disk(
    device: VirtioDevice,
    *,
    depth: int = 64,
    io_bytes: int = 65536,
    interrupts: bool = False,
    features: int = _WANTED,
) -> Disk:
    """Negotiate with a block device and make it ready.

    Args:
        device: As `ScriptGuest.virtio` gives it.
        depth: Requests in flight at most; fewer if the device's queue is too short.
        io_bytes: Most data of one request of a batch, a multiple of 512; takes `depth` times as much memory.
        interrupts: Whether it interrupts; otherwise it is polled.
        features: Features to take if they are offered: ring features such as RING_PACKED may be added.

    Raises:
        DeviceError: There is no block device there, or it does not agree.
        LocalError: The guest has too little memory.
    """
    if depth < 1 or io_bytes < SECTOR_BYTES or io_bytes % SECTOR_BYTES:
        raise DeviceError(f"depth {depth} and io_bytes {io_bytes} are no disk", fix="use 1 and 512 or more")
    wanted = features | mask(Feature.RING_EVENT_IDX) if interrupts else features
    await device.start(DeviceId.BLOCK, wanted, interrupts=interrupts)
    config = BlockConfig.unpack(await device.config(CONFIG_BYTES))
    disk = Disk(device, config, io_bytes)
    await disk.start(depth)
    return disk
