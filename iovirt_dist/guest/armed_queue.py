"""One armed virtqueue: where doorbells become messages and completions become memory.

Theory of operation. The hypervisor arms a queue when the driver enables it. From then on a store to its notify
register ends here: everything that the ring offers is taken (`virtio.ring`) and packed into few `Doorbell` messages,
the headers inside their entries, the data behind them as views of guest memory. What of a request is writable stays
here, under its number, until its completion comes; then the data goes to guest memory, the request to the used ring,
and the driver's wish for an interrupt to the hypervisor, if it could not know it.

A notification may have been on its way to the hypervisor while `ArmQueue` was on its way here. So what the ring offers
when it is armed is gathered at once.

Guest memory is anybody's. A ring that cannot be walked is reported once and left alone until it is armed anew; stores
to its notify register are still told, because they are traps. Requests in flight are a load, with their data and their
segments; above `MAX_LOAD_BYTES` the next ones wait inside, so that no ring, however its buffers overlap, makes us hold
or copy more. The hypervisor is a peer, too: what it says that cannot be is counted (`QueueCounts`), and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from iovirt_dist.errors import DecodeError
from iovirt_dist.guest.queue_home import QueueHome
from iovirt_dist.virtio.memory import MemoryRangeError
from iovirt_dist.virtio.ring import Chain, RingError, RingSetup, Segment
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES, Buffer
from iovirt_dist.wire.payload import join_pieces, split_payload
from iovirt_dist.wire.queue_messages import (
    NEVER,
    ArmQueue,
    Completions,
    Doorbell,
    QueueBroken,
    QueueInterrupt,
)
from iovirt_dist.wire.requests import COMPLETION, MAX_REQUESTS, REQUEST, check_entries

MAX_LOAD_BYTES = 4 * MAX_PAYLOAD_BYTES
"""Load of one queue's requests in flight above which the next ones wait inside."""

SEGMENT_LOAD_BYTES = 1024
"""What a segment adds to the load besides its readable bytes."""

QUIET_FROM = 4
"""Requests in flight from which on a driver outside this process need not notify: the ring is looked at with each
completion, and what has gathered by then travels as one message. Fewer go one by one, at once."""

_TAKEN_AT_ONCE = 128
_MAX_DETAIL = 256

NO_TAIL = -1
_TAILS = [bytes([value]) for value in range(256)]


class Outgoing(NamedTuple):
    """A message for the hypervisor, with its payload frames."""

    body: Doorbell | QueueInterrupt | QueueBroken
    payload: Sequence[Buffer] = ()


@dataclass(slots=True)
class QueueCounts:
    """What happened at the armed queues.

    Attributes:
        requests: Gathered.
        completions: Written to used rings.
        bytes_out: Readable bytes gathered, headers included.
        bytes_in: Bytes of data written to guest memory.
        broken: Rings that could not be walked.
        stale: Messages about an earlier life of a queue, or about none.
        unknown: Completions of requests that are not in flight.
        cut: Completions whose data or tail did not fit into the writable part.
        malformed: Batches of completions that are none, of which nothing is taken, or queues that could not be armed.
    """

    requests: int = 0
    completions: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    broken: int = 0
    stale: int = 0
    unknown: int = 0
    cut: int = 0
    malformed: int = 0


class _Plain(NamedTuple):
    """The entry of a request that has only a header to read; its ring gives the same chain again and again.

    Attributes:
        request: As `ArmedQueue.in_flight` has it.
        parts: The packed fields, and the header in guest memory.
    """

    request: tuple[Chain, int]
    parts: tuple[bytes, memoryview]


class ArmedQueue:
    """One armed queue.

    Args:
        home: Where it lies.
        arm: The message that armed it.
        counts: Where to count.

    Attributes:
        arm: The message.
        broken: Whether the ring could not be walked.
        in_flight: Requests that the hypervisor has, by number, and what each adds to the load.

    Raises:
        RingError: The ring's areas are not what a ring's can be.
    """

    __slots__ = (
        "_counts",
        "_drained",
        "_home",
        "_last_chain",
        "_load",
        "_memory",
        "_number",
        "_pack",
        "_plain",
        "_quiet",
        "_ring",
        "_waiting",
        "arm",
        "broken",
        "in_flight",
    )

    def __init__(self, home: QueueHome, arm: ArmQueue, counts: QueueCounts) -> None:
        self.arm = arm
        self.broken = False
        self.in_flight: dict[int, tuple[Chain, int]] = {}
        self._home = home
        self._memory = home.memory
        self._counts = counts
        self._pack = Struct(f"{REQUEST.format}{arm.header_bytes}s").pack
        self._load = 0
        self._waiting: deque[Chain] = deque()
        self._plain: dict[int, _Plain] = {}
        self._last_chain: dict[int, Chain] = {}
        self._drained = False
        self._quiet = False
        self._number = 0
        setup = RingSetup(arm.size, arm.descriptors, arm.driver_area, arm.device_area, arm.features)
        self._ring = home.ring(arm.queue, setup)

    def gather(self, notifications: int, number: int = 0) -> list[Outgoing]:
        """Take what the ring offers.

        Args:
            notifications: Stores to the notify register that are to be told; 0 if the driver did not ask.
            number: Of the trap that told of the ring; 0 for the one before.

        Returns:
            Doorbells, none if there is nothing to tell; behind them `QueueBroken` if the ring cannot be walked.
        """
        out: list[Outgoing] = []
        last: list[Outgoing] = []
        self._number = number or self._number
        self._drained = False
        try:
            while not self.broken and (self._waiting or self._take()) and self._load < MAX_LOAD_BYTES:
                out.append(self._doorbell(0 if out else notifications))
        except (RingError, MemoryRangeError) as error:
            last = [self.break_off(error)]
        if notifications and not out:
            out.append(Outgoing(self._body(notifications, b"")))
        return out + last

    def complete(self, message: Completions, payload: Sequence[Buffer]) -> list[Outgoing]:
        """Write a batch of completions to guest memory and to the used ring; without any look at the ring again.

        Returns:
            `QueueInterrupt` if an interrupt is due that the hypervisor did not raise, requests that waited for the
            load to fall or that no doorbell told of, or `QueueBroken`.
        """
        if self.broken:
            return []
        if not message.completions:
            return self.gather(0)
        try:
            self._write(message.completions, payload)
            due = self._ring.publish()
        except (RingError, MemoryRangeError) as error:
            return [self.break_off(error)]
        out: list[Outgoing] = []
        if due and self._home.interrupts:
            self._home.interrupt(message.queue)
        elif due and not message.interrupt:
            out.append(Outgoing(QueueInterrupt(message.device, message.queue, message.generation)))
        return out + self.gather(0) if self._waiting or self._quiet else out

    def break_off(self, error: RingError | MemoryRangeError) -> Outgoing:
        """The ring cannot be walked: forget what is in flight, and say so."""
        self.broken = True
        self._counts.broken += 1
        self.in_flight.clear()
        self._waiting.clear()
        self._home.broke(self.arm.queue, str(error))
        return broken(self.arm, error)

    def remapped(self) -> None:
        """Guest memory is mapped otherwise now: forget what was found in it, but not what is in flight."""
        self._plain.clear()
        self._last_chain.clear()

    @property
    def awaited(self) -> bool:
        """Whether a request with something to read is in flight; others, such as rooms to receive in, may stay long."""
        return any(chain.readable for chain, _ in self.in_flight.values())

    def rest(self) -> None:
        """Take nothing more from the ring until the driver notifies."""
        self._quiet = False

    # --- from the ring

    def _take(self) -> bool:
        """Take requests from the ring; return whether there were any."""
        if self._drained:
            return False
        take, waiting = self._ring.take, self._waiting
        self._quiet = self._home.interrupts
        chains = take(_TAKEN_AT_ONCE, ask=not self._quiet)
        waiting.extend(chains)
        if self._quiet and len(chains) < _TAKEN_AT_ONCE and not self._busy():
            self._quiet = False
            chains = take(_TAKEN_AT_ONCE)
            waiting.extend(chains)
        self._drained = len(chains) < _TAKEN_AT_ONCE
        return bool(waiting)

    def _busy(self) -> bool:
        """Whether completions will come soon; rooms to receive in may stay empty for long."""
        if len(self._waiting) + len(self.in_flight) < QUIET_FROM:
            return False
        chain = self._waiting[0] if self._waiting else next(iter(self.in_flight.values()))[0]
        return chain.readable_bytes > 0

    def _doorbell(self, notifications: int) -> Outgoing:
        """Make one message of what waits and what the ring offers; the first request must be there."""
        waiting, in_flight, pack, read = self._waiting, self.in_flight, self._pack, self._memory.read
        header_bytes, load, room = self.arm.header_bytes, self._load, MAX_PAYLOAD_BYTES
        entries: list[Buffer] = []
        pieces: list[Buffer] = []
        known, before, bytes_out = self._plain, len(in_flight), 0
        most = before + MAX_REQUESTS
        while len(in_flight) < most and load < MAX_LOAD_BYTES and (waiting or self._take()):
            chain = waiting[0]
            plain = known.get(chain.head)
            if plain is not None and plain.request[0] is chain:
                entries += plain.parts
                in_flight[chain.head] = plain.request
                load += plain.request[1]
                bytes_out += header_bytes
                waiting.popleft()
                continue
            readable, readable_bytes = chain.readable, chain.readable_bytes
            data_bytes = readable_bytes - header_bytes
            if data_bytes > room:
                if data_bytes > MAX_PAYLOAD_BYTES:
                    raise RingError("request-size", f"{readable_bytes} bytes to read")
                break
            if data_bytes > 0:
                header, data = self._split(readable, header_bytes)
                pieces.append(data)
                room -= data_bytes
            elif len(readable) == 1:
                header = read(*readable[0])
            else:
                header = self._joined(readable)
            added = readable_bytes + SEGMENT_LOAD_BYTES * (len(readable) + len(chain.writable))
            entries.append(pack(chain.head, 0, readable_bytes, chain.writable_bytes, header))
            in_flight[chain.head] = request = chain, added
            if readable_bytes == header_bytes and len(readable) == 1:
                self._learn(request)
            load += added
            bytes_out += readable_bytes
            waiting.popleft()
        self._load = load
        self._counts.requests += len(in_flight) - before
        self._counts.bytes_out += bytes_out
        return Outgoing(self._body(notifications, b"".join(entries)), join_pieces(pieces))

    def _learn(self, request: tuple[Chain, int]) -> None:
        """Keep the entry of a request that has only a header to read, if its chain comes for the second time."""
        chain = request[0]
        if self._last_chain.get(chain.head) is not chain:
            self._last_chain[chain.head] = chain
            return
        fields = REQUEST.pack(chain.head, 0, chain.readable_bytes, chain.writable_bytes)
        self._plain[chain.head] = _Plain(request, (fields, self._memory.view(*chain.readable[0])))

    def _body(self, notifications: int, requests: bytes) -> Doorbell:
        arm = self.arm
        interrupt_at = NEVER if self.broken or self._home.interrupts else self._ring.interrupt_at()
        return Doorbell(arm.device, arm.queue, arm.generation, notifications, interrupt_at, requests, self._number)

    def _split(self, readable: list[Segment], header_bytes: int) -> tuple[bytes, Buffer]:
        """Return the header, and what is behind it: the memory itself if that is one segment, else a copy."""
        address, length = readable[0]
        if length < header_bytes:
            whole = self._joined(readable)
            return whole[:header_bytes], memoryview(whole)[header_bytes:]
        header = self._memory.read(address, header_bytes)
        if length > header_bytes:
            rest = [(address + header_bytes, length - header_bytes), *readable[1:]]
        else:
            rest = readable[1:]
        return header, self._memory.view(*rest[0]) if len(rest) == 1 else self._joined(rest)

    def _joined(self, segments: list[Segment]) -> bytes:
        view = self._memory.view
        return b"".join([view(address, length) for address, length in segments])

    # --- to the ring

    def _write(self, completions: bytes, payload: Sequence[Buffer]) -> None:
        counts, pop, put, write = self._counts, self.in_flight.pop, self._ring.put, self._memory.write
        completed = freed = moved = 0
        for (head, has_tail, tail, length), data in self._unpack(completions, payload):
            request = pop(head, None)
            if request is None:
                counts.unknown += 1
                continue
            chain, load = request
            completed += 1
            freed += load
            writable = chain.writable
            if has_tail and writable and length <= writable[0][1] and length < chain.writable_bytes:
                if length:
                    write(writable[0][0], data)
                    moved += length
                address, size = writable[-1]
                write(address + size - 1, _TAILS[tail])
                put(head, length + (length == chain.writable_bytes - 1))  # all before the tail is written, so it counts
            else:
                put(head, self._fill(chain, data, length, tail if has_tail else NO_TAIL))
        counts.bytes_in += moved
        counts.completions += completed
        self._load -= freed

    def _unpack(self, completions: bytes, payload: Sequence[Buffer]) -> Iterable[tuple[tuple[int, ...], Buffer]]:
        """Return entries with their data; none if any is wrong."""
        try:
            check_entries(completions, COMPLETION.size)
            entries = list(COMPLETION.iter_unpack(completions))
            return zip(entries, split_payload(payload, [length for _, _, _, length in entries]), strict=True)
        except DecodeError:
            self._counts.malformed += 1
            return ()

    def _fill(self, chain: Chain, data: Buffer, length: int, tail: int) -> int:
        """Write a request's data and tail; return how many bytes from the start of its writable part are written."""
        writable = chain.writable
        room = chain.writable_bytes - (tail >= 0)
        if length > room:
            self._counts.cut += 1
            tail = tail if room >= 0 else NO_TAIL
            length = room = max(room, 0)
            data = data[:length]
        if length:
            address, size = writable[0]
            if length <= size:
                self._memory.write(address, data)
            else:
                self._scatter(writable, data)
            self._counts.bytes_in += length
        if tail < 0:
            return length
        address, size = writable[-1]
        self._memory.write(address + size - 1, _TAILS[tail])
        return length + (length == room)  # all before the tail is written, so it counts, too

    def _scatter(self, writable: list[Segment], data: Buffer) -> None:
        at = 0
        for address, size in writable:
            piece = data[at : at + size]
            if not piece:
                return
            self._memory.write(address, piece)
            at += size


def broken(arm: ArmQueue, error: RingError | MemoryRangeError) -> Outgoing:
    """Return the report of a ring that cannot be walked."""
    reason = error.reason if isinstance(error, RingError) else "buffer-memory"
    detail = error.detail if isinstance(error, RingError) else str(error)
    return Outgoing(QueueBroken(arm.device, arm.queue, arm.generation, reason, detail[:_MAX_DETAIL]))
