"""Interception at the driver level: requests of a guest's drivers, as they lie in virtqueues.

What the hypervisor knows here is a device, a request of its class with its boundaries, and how much data goes which
way; not which program asked. The guest's process gathers what a ring offers into one `Doorbell`; what is done goes back
as one `Completions` for each queue and step (`wire.queue_messages` has the protocol, VIRTIO 1.2 the meaning).

The guest's process is as untrusted as the guest. A message that does not decode, names what does not exist, or brings
more requests than the queue holds has no effect and is malformed; one that is about an earlier life of a queue is
stale, which happens to honest guests, too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from functools import cache
from itertools import repeat
from typing import NamedTuple

from iovirt_dist.errors import DecodeError
from iovirt_dist.hypervisor.intercept.interceptor import Outgoing
from iovirt_dist.hypervisor.vdev.virtio_mmio import VirtioMmio
from iovirt_dist.hypervisor.vdev.virtio_queue import NOT_ARMED, VirtioQueue
from iovirt_dist.step import Tracer
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES, Buffer
from iovirt_dist.wire.messages import Message
from iovirt_dist.wire.payload import join_pieces, split_payload
from iovirt_dist.wire.queue_messages import (
    ALWAYS,
    ArmQueue,
    Completions,
    DisarmQueue,
    Doorbell,
    QueueBroken,
    QueueInterrupt,
)
from iovirt_dist.wire.requests import COMPLETION, MAX_REQUESTS, QueueRequest, check_entries

MAX_FAULT_REASONS = 64
"""Reasons that are counted by name; guests choose some of the names. The rest share `OTHER_REASON`."""
OTHER_REASON = "other"
_U32 = 0xFFFF_FFFF


class DriverInterception:
    """One guest's interception at the driver level; an `Interceptor`, and the `QueueHost` of its virtio devices.

    Args:
        take_lines: Returns the CPU's interrupt inputs that changed (`InterruptLines.take_changes`).
        next_generation: Counts; the lives of all queues of the guest are numbered with it.
        tracer: Sees every doorbell and every batch of completions.

    Attributes:
        devices: Virtio devices by number, as `add` was told.
        doorbells: Messages of that name that were taken.
        notifications: Stores to notify registers that they stand for.
        requests: Requests that they brought.
        bytes_out: Bytes that the drivers offered for reading.
        completions: Requests that went back.
        bytes_in: Bytes that went back with them.
        batches: `Completions` messages.
        interrupts: Used buffer interrupts that were raised with one.
        late_interrupts: Those that the guest's process asked for (`QueueInterrupt`).
        armed: Armed lives that queues had.
        stale: Messages about an earlier life of a queue.
        malformed: Messages that were none.
        faults: How often a device asked to be reset, by reason.
        last_fault: The latest of them: device, reason and what the guest's process told of it, one line.
        hold: Whether completions wait in their queues, because the guest has not acknowledged earlier ones.
    """

    takes: tuple[type[Message], ...] = (Doorbell, QueueInterrupt, QueueBroken)

    def __init__(
        self,
        take_lines: Callable[[], tuple[int, ...]],
        next_generation: Callable[[], int],
        tracer: Tracer | None = None,
    ) -> None:
        self.devices: dict[int, VirtioMmio] = {}
        self.doorbells = self.notifications = self.requests = self.bytes_out = 0
        self.completions = self.bytes_in = self.batches = 0
        self.interrupts = self.late_interrupts = 0
        self.armed = self.stale = self.malformed = 0
        self.faults: dict[str, int] = {}
        self.last_fault = ""
        self.hold = False
        self._take_lines = take_lines
        self._next_generation = next_generation
        self._tracer = tracer or Tracer()
        self._touched: list[VirtioQueue] = []

    def add(self, device: VirtioMmio) -> None:
        """Take up a device; its number is not in use yet."""
        self.devices[device.number] = device

    # --- QueueHost

    def touch(self, queue: VirtioQueue) -> None:
        """Have the queue looked at in the next flush."""
        self._touched.append(queue)

    def next_generation(self) -> int:
        """Number an armed life: 1..2**32-1, and round again."""
        self.armed += 1
        return (self._next_generation() - 1) % _U32 + 1

    def fault(self, device: int, reason: str) -> None:
        """Count why a device asks to be reset."""
        if reason not in self.faults and len(self.faults) >= MAX_FAULT_REASONS:
            reason = OTHER_REASON
        self.faults[reason] = self.faults.get(reason, 0) + 1
        self.last_fault = f"virtio device {device}: {reason}"

    # --- Interceptor: messages of the guest

    def message(self, body: Message, payload: Sequence[Buffer], now_ns: int) -> bool:
        """Take a message of the guest; False if it is malformed, it then had no effect."""
        taken = isinstance(body, Doorbell | QueueInterrupt | QueueBroken) and self._take(body, payload, now_ns)
        self.malformed += not taken
        return taken

    def _take(self, body: Doorbell | QueueInterrupt | QueueBroken, payload: Sequence[Buffer], now_ns: int) -> bool:
        device = self.devices.get(body.device)
        if device is None or body.queue >= len(device.queues):
            return False
        queue = device.queues[body.queue]
        if body.generation != queue.generation or queue.generation == NOT_ARMED:
            self.stale += 1
        elif isinstance(body, Doorbell):
            return self._doorbell(device, queue, body, payload, now_ns)
        elif isinstance(body, QueueInterrupt):
            self.late_interrupts += 1
            device.used_buffer(seen=True)
        else:
            device.needs_reset(body.reason)
            self.last_fault = f"{self.last_fault}, queue {body.queue}: {body.detail}"
        return True

    def _doorbell(
        self, device: VirtioMmio, queue: VirtioQueue, body: Doorbell, payload: Sequence[Buffer], now_ns: int
    ) -> bool:
        """Hand a batch to the device's function, all of it or nothing."""
        try:
            batch = unpack_requests(body.requests, queue.header_bytes, payload)
        except DecodeError:
            return False
        if queue.outstanding + len(batch) > queue.size:
            return False
        queue.interrupt_at = body.interrupt_at
        queue.outstanding += len(batch)
        self.doorbells += 1
        self.notifications += body.notifications
        self.requests += len(batch)
        if self._tracer.on:
            self._tracer.number = body.number
            self._trace("doorbell", queue, len(batch), sum(map(len, payload)))
        if batch:
            self.bytes_out += sum([request.readable for request in batch])
            device.function.requests(queue.number, batch, now_ns)
        return True

    # --- Interceptor: messages for the guest

    def flush(self, now_ns: int) -> Sequence[Outgoing]:  # noqa: ARG002 - the protocol's signature
        """Return what queues have for the guest: armed lives that began or ended, and completions."""
        if not self._touched:
            return ()
        touched, self._touched = self._touched, []
        if len(touched) > 1:
            touched.sort(key=_order)
        outgoing: list[Outgoing] = []
        for queue in touched:
            if queue.announced != queue.generation:
                outgoing += self._announce(queue)
            if self.hold and (queue.completions or queue.wanting):
                self._touched.append(queue)
                continue
            if queue.completions:
                outgoing += map(self._completed, _batches(queue))
            if queue.wanting:
                outgoing.append(Outgoing(Completions(queue.device, queue.number, queue.generation, False, b"")))
            queue.flushed()
        return outgoing

    def _announce(self, queue: VirtioQueue) -> Iterator[Outgoing]:
        if queue.announced != NOT_ARMED:
            yield Outgoing(DisarmQueue(queue.device, queue.number, queue.announced))
        queue.announced = queue.generation
        if queue.generation != NOT_ARMED:
            device = self.devices[queue.device]
            yield Outgoing(
                ArmQueue(
                    device=queue.device,
                    queue=queue.number,
                    generation=queue.generation,
                    notify=device.notify_address,
                    size=queue.size,
                    descriptors=queue.descriptors,
                    driver_area=queue.driver_area,
                    device_area=queue.device_area,
                    features=device.features,
                    header_bytes=queue.header_bytes,
                )
            )

    def _completed(self, batch: _Batch) -> Outgoing:
        """Make the message for a batch; raise the interrupt first if the driver wants it for one of these."""
        queue, entries, pieces, before, count = batch
        interrupt = queue.interrupt_at == ALWAYS or before < queue.interrupt_at <= before + count
        if interrupt:
            self.interrupts += 1
            self.devices[queue.device].used_buffer(seen=False)
        self.batches += 1
        self.completions += count
        frames = join_pieces(pieces) if pieces else ()
        size = sum(map(len, frames))
        self.bytes_in += size
        if self._tracer.on:
            self._tracer.number = 0  # of many
            self._trace("completions", queue, count, size)
        lines = self._take_lines()
        return Outgoing(Completions(queue.device, queue.number, queue.generation, interrupt, entries, lines), frames)

    def _trace(self, event: str, queue: VirtioQueue, requests: int, payload_bytes: int) -> None:
        """All that is known at this level without asking the device's class."""
        self._tracer.point(event, device=queue.device, queue=queue.number, requests=requests, bytes=payload_bytes)


def unpack_requests(entries: bytes, header_bytes: int, payload: Sequence[Buffer]) -> list[QueueRequest]:
    """Decode and check a doorbell's requests.

    Args:
        entries: The ``requests`` field.
        header_bytes: What the queue was armed with.
        payload: Its frames.

    Returns:
        The requests, in their order; their data is not copied.

    Raises:
        DecodeError: Reason ``batch-size``, ``reserved-bits`` or ``payload-frames``.
    """
    entry = _entry(header_bytes)
    check_entries(entries, entry.size)
    if any(entries[2 :: entry.size]) or any(entries[3 :: entry.size]):
        raise DecodeError("reserved-bits")
    fields = list(entry.iter_unpack(entries))
    lengths = [readable - header_bytes if readable > header_bytes else 0 for _, readable, _, _ in fields]
    pieces: Iterable[Buffer] = split_payload(payload, lengths) if payload or any(lengths) else repeat(b"")
    new = tuple.__new__  # a third faster than the class, which only adds the names
    return [new(QueueRequest, (*field, piece)) for field, piece in zip(fields, pieces, strict=False)]


def _order(queue: VirtioQueue) -> tuple[int, int]:
    """Queues leave in the order of their numbers, so that the same state sends the same messages."""
    return queue.device, queue.number


@cache
def _entry(header_bytes: int) -> struct.Struct:
    """The layout of an entry with its header, without the two bytes that are zero."""
    return struct.Struct(f"<H2xII{header_bytes}s")


class _Batch(NamedTuple):
    """What one `Completions` carries.

    Attributes:
        queue: Whose it is.
        entries: Packed.
        pieces: Data of the entries that have any.
        before: Completions of the queue that left before these.
        requests: Entries.
    """

    queue: VirtioQueue
    entries: bytes
    pieces: list[Buffer]
    before: int
    requests: int


def _batches(queue: VirtioQueue) -> Iterator[_Batch]:
    """Divide what waits into messages: at most `MAX_REQUESTS` entries and `MAX_PAYLOAD_BYTES` of data each.

    Entries that are joined are together less than that, and stay in one message.
    """
    entries, count = queue.completions, len(queue.completions)
    if count <= MAX_REQUESTS and queue.piece_bytes <= MAX_PAYLOAD_BYTES:
        yield _Batch(queue, b"".join(entries), queue.pieces, queue.completed, count)
        return
    lengths = [COMPLETION.unpack(entry)[3] for entry in entries]
    pieces = split_payload(queue.pieces, lengths)
    first = size = 0
    for start, end in _groups(count, queue.joined):
        length = sum(lengths[start:end])
        if start > first and (end - first > MAX_REQUESTS or size + length > MAX_PAYLOAD_BYTES):
            yield _part(queue, pieces, first, start)
            first, size = start, 0
        size += length
    yield _part(queue, pieces, first, count)


def _groups(count: int, joined: Set[int]) -> Iterator[tuple[int, int]]:
    """Ranges of entries that leave together: each begins where an entry is not joined to the one before."""
    starts = [at for at in range(count) if at not in joined]
    return zip(starts, [*starts[1:], count], strict=True)


def _part(queue: VirtioQueue, pieces: Sequence[Buffer], first: int, end: int) -> _Batch:
    """The message with some of what waits."""
    data = [piece for piece in pieces[first:end] if piece]
    return _Batch(queue, b"".join(queue.completions[first:end]), data, queue.completed + first, end - first)
