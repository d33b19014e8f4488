"""The virtio block device (VIRTIO 1.2, section 5.2) in front of a disk backend.

Theory of operation. A request becomes one backend request, unless it moves more than a command can (`MAX_DATA_BYTES`),
has several ranges (DISCARD, WRITE_ZEROES), or must be flushed because the driver takes the device for write-through:
then it is a `Job` of several. The tag of a backend request says which life of which queue, which request and which part
of it is meant, so what comes for an earlier life finds nothing. Queues are alike (section 5.2.2): there is no order
between their requests, and they share what may be in flight.

The driver is untrusted. Requests without room for the header or the status end in DEVICE_NEEDS_RESET; all others
get a status. What is in flight is bounded by the queues in number and by `most_bytes` in size.
"""

from __future__ import annotations

from collections.abc import Sequence

from iovirt_dist.drivers.backend import BatchBackend, DiskBackend, DiskRequest
from iovirt_dist.hypervisor.vdev.device import State
from iovirt_dist.hypervisor.vdev.virtio_blk_config import (
    MAX_QUEUES,
    MAX_REQUEST_BYTES,
    QUEUE_SIZE,
    configuration,
    offered_features,
)
from iovirt_dist.hypervisor.vdev.virtio_blk_job import Job, cost, spans
from iovirt_dist.hypervisor.vdev.virtio_blk_ranges import unpack_ranges
from iovirt_dist.hypervisor.vdev.virtio_function import FunctionPort
from iovirt_dist.hypervisor.vdev.virtio_queue import VirtioQueue
from iovirt_dist.step import Tracer
from iovirt_dist.virtio.block import (
    HEADER,
    HEADER_BYTES,
    ID_BYTES,
    SECTOR_BYTES,
    BlockConfig,
    BlockFeature,
    BlockRequest,
    BlockStatus,
)
from iovirt_dist.virtio.features import DeviceId, has
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode, Status
from iovirt_dist.wire.payload import split_payload
from iovirt_dist.wire.requests import COMPLETION, QueueRequest

MOST_BYTES = 64 << 20
"""Least bound for the data in flight."""

_PART_BITS = 5
_FLUSH_PART = (1 << _PART_BITS) - 1
_HEAD_BITS = 16
_HEAD_MASK = (1 << _HEAD_BITS) - 1
_QUEUE_MASK = MAX_QUEUES - 1
"""A request's id is its head, above it the queue, above that the queue's life."""
_LIFE_BITS = _HEAD_BITS + _QUEUE_MASK.bit_length()
_OK, _IOERR, _UNSUPP = int(BlockStatus.OK), int(BlockStatus.IOERR), int(BlockStatus.UNSUPP)
_DONE = Status.OK
_READ, _WRITE, _FLUSH = Opcode.READ, Opcode.WRITE, Opcode.FLUSH
_OUT, _SYNC = int(BlockRequest.OUT), int(BlockRequest.FLUSH)
_pack_completion = COMPLETION.pack
_FAILURES = {Status.UNKNOWN_OPCODE: _UNSUPP}
"""What the driver is told for a backend's status; IOERR for all others."""


class VirtioBlk:
    """A virtio-blk function; a `VirtioFunction` and a `DiskClient`.

    Args:
        disk: The backend.
        most_bytes: Most data that is kept, in flight or done; a request beyond it ends in IOERR. Honest drivers have
            no more than their memory in flight.
        queues: Request queues, 1..`MAX_QUEUES`.
        tracer: Sees every request with all that is known of it: type, where, how much.

    Attributes:
        counts: Requests taken, by type (`BlockRequest` names in lower case, ``unknown``).
        failed: Requests that ended with another status than OK.

    Raises:
        ConfigError: The disk's blocks do neither divide 512 bytes nor consist of as many.
    """

    device_id = int(DeviceId.BLOCK)

    def __init__(
        self, disk: DiskBackend, most_bytes: int = MOST_BYTES, tracer: Tracer | None = None, queues: int = 1
    ) -> None:
        assert 1 <= queues <= MAX_QUEUES, "a plan has no other number"
        self._tracer = tracer or Tracer()
        self._disk = disk
        self._batches = disk if isinstance(disk, BatchBackend) else None
        self._end = disk.size_bytes // SECTOR_BYTES * SECTOR_BYTES
        self._most_bytes = max(most_bytes, MOST_BYTES)
        self.queue_sizes: Sequence[int] = (QUEUE_SIZE,) * queues
        self.header_bytes: Sequence[int] = (HEADER_BYTES,) * queues
        self.features = offered_features(disk.read_only, queues)
        self.config = configuration(disk, queues)
        self.counts = {kind.name.lower(): 0 for kind in BlockRequest} | {"unknown": 0}
        self.failed = 0
        self.enable(0)
        self._in_flight: dict[int, DiskRequest] = {}
        self._bytes = 0
        self._jobs: dict[int, Job] = {}
        self._others = {
            int(BlockRequest.OUT): self._write,
            int(BlockRequest.GET_ID): self._get_id,
            int(BlockRequest.DISCARD): self._discard,
            int(BlockRequest.WRITE_ZEROES): self._write_zeroes,
        }
        self._names = {int(kind): kind.name.lower() for kind in BlockRequest}

    def connect(self, port: FunctionPort) -> None:
        """Learn the transport."""
        self._port = port
        self._queues: Sequence[VirtioQueue] = port.queues
        self._single = len(self._queues) == 1

    def enable(self, features: int) -> None:
        """Note what was negotiated: without FLUSH the driver takes the device for write-through (section 5.2.5)."""
        self._negotiated = features
        self._write_through = not has(features, BlockFeature.FLUSH)
        self._plain_writes = not self._write_through and not self._disk.read_only

    def reset(self) -> None:
        """Nothing is negotiated."""
        self.enable(0)

    def stop(self, queue: int) -> None:
        """Forget what the queue has in flight."""
        gone = [tag for tag in self._in_flight if tag >> _PART_BITS + _HEAD_BITS & _QUEUE_MASK == queue]
        for tag in gone:
            self._bytes -= cost(self._in_flight.pop(tag))
        self._jobs = {id_: job for id_, job in self._jobs.items() if id_ >> _HEAD_BITS & _QUEUE_MASK != queue}

    def write_config(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """No field can be written: CONFIG_WCE is not offered."""

    def grown(self, size_bytes: int) -> None:
        """The backend has more sectors: tell the driver (section 5.2.4: `capacity` may change)."""
        self._end = size_bytes // SECTOR_BYTES * SECTOR_BYTES
        self.config = BlockConfig.unpack(self.config)._replace(capacity=self._end // SECTOR_BYTES).pack()
        self._port.config_changed()

    # --- requests

    def requests(self, queue: int, batch: list[QueueRequest], now_ns: int) -> None:
        """Take requests (section 5.2.6). Those that are one command each are dealt with here."""
        if self._tracer.on:
            self._trace(queue, batch)
        unpack, new, in_flight, plain_writes = HEADER.unpack, tuple.__new__, self._in_flight, self._plain_writes
        end, life = self._end, self._queues[queue].generation << _LIFE_BITS | queue << _HEAD_BITS
        most = self._most_bytes - self._leaving_bytes()
        gathered: list[DiskRequest] = []
        reads = writes = flushes = 0
        data: Buffer
        for head, readable, writable, header, payload in batch:
            if readable < HEADER_BYTES or not writable:
                self._hand_over(gathered)
                self._port.needs_reset("block-request")
                break
            kind, _, sector = unpack(header)
            offset = sector * SECTOR_BYTES
            if not kind:
                opcode, length, data = _READ, writable - 1, b""
                reads += 1
            elif kind == _OUT and plain_writes:
                opcode, length, data = _WRITE, len(payload), payload
                writes += 1
            elif kind == _SYNC:
                opcode, offset, length, data = _FLUSH, 0, 0, b""
                flushes += 1
            else:
                self._hand_over(gathered)
                self._other(kind, life | head, sector, writable - 1, payload)
                continue
            plain = not length % SECTOR_BYTES and offset + length <= end and (length > 0 or opcode is _FLUSH)
            if plain and length <= MAX_DATA_BYTES and self._bytes + length <= most:
                self._bytes += length
                tag = (life | head) << _PART_BITS
                request = in_flight[tag] = new(DiskRequest, (tag, opcode, offset, length, data))
                gathered.append(request)
                continue
            self._hand_over(gathered)
            (self._read if opcode is _READ else self._write)(life | head, offset, length, data)
        self._hand_over(gathered)
        self._count(reads, writes, flushes)

    def _hand_over(self, gathered: list[DiskRequest]) -> None:
        """Give the backend what was gathered so far, before anything that comes behind it."""
        if self._batches is not None and len(gathered) > 1:
            self._batches.submit_many(gathered)
        else:
            for request in gathered:
                self._disk.submit(request)
        gathered.clear()

    def _count(self, reads: int, writes: int, flushes: int) -> None:
        self.counts["in"] += reads
        self.counts["out"] += writes
        self.counts["flush"] += flushes

    def _other(self, kind: int, id_: int, sector: int, room: int, data: Buffer) -> None:
        handler = self._others.get(kind)
        self.counts[self._names.get(kind, "unknown")] += 1
        if handler is None:
            self._finish(id_, _UNSUPP)
        else:
            handler(id_, sector * SECTOR_BYTES, room, data)

    def _trace(self, queue: int, batch: list[QueueRequest]) -> None:
        device = self._queues[queue].device
        for head, readable, writable, header, _ in batch:
            kind, _, sector = HEADER.unpack(header)
            length = max(readable - HEADER_BYTES if kind == _OUT else writable - 1, 0)
            name = self._names.get(kind, str(kind))
            offset = sector * SECTOR_BYTES
            self._tracer.point("block", device=device, type=name, offset=offset, length=length, head=head)

    def _leaving_bytes(self) -> int:
        """Data of requests that are done and have not left yet."""
        return self._queues[0].piece_bytes if self._single else sum([queue.piece_bytes for queue in self._queues])

    def _room(self, length: int) -> bool:
        """Whether so much data may come into flight: what is done and has not left yet counts, too."""
        return self._bytes + self._leaving_bytes() + length <= self._most_bytes

    def _valid(self, offset: int, length: int) -> bool:
        """Whether a range is whole sectors of the disk, and small enough to be asked for at once."""
        return not length % SECTOR_BYTES and offset + length <= self._end and length <= MAX_REQUEST_BYTES

    def _read(self, id_: int, offset: int, length: int, data: Buffer) -> None:
        """IN that is empty, wrong, or more than one command."""
        if not self._valid(offset, length) or not self._room(length):
            self._finish(id_, _IOERR)
        else:
            parts = [DiskRequest(0, _READ, at, size) for at, size in spans(offset, length)]
            self._submit(id_, parts, Job(len(parts)))

    def _write(self, id_: int, offset: int, room: int, data: Buffer) -> None:
        """OUT that is flushed, empty, wrong, or more than one command; a read-only device refuses (section 5.2.6.2)."""
        length = len(data)
        if self._disk.read_only or not self._valid(offset, length) or not self._room(length):
            self._finish(id_, _IOERR)
            return
        view = memoryview(data)
        parts = [
            DiskRequest(0, _WRITE, at, size, view[at - offset : at - offset + size])
            for at, size in spans(offset, length)
        ]
        self._submit(id_, parts, Job(len(parts), flush=self._write_through))

    def _get_id(self, id_: int, offset: int, room: int, data: Buffer) -> None:
        """GET_ID: up to 20 characters, padded with zeroes."""
        name = self._disk.serial.encode("ascii", "replace")[:ID_BYTES].ljust(ID_BYTES, b"\0")
        self._finish(id_, _OK, name[:room])

    def _discard(self, id_: int, offset: int, room: int, data: Buffer) -> None:
        """DISCARD: the contents of these ranges are needed no more."""
        self._clear(id_, BlockFeature.DISCARD, data)

    def _write_zeroes(self, id_: int, offset: int, room: int, data: Buffer) -> None:
        """WRITE_ZEROES: no zeroes travel; the backend makes them where they are."""
        self._clear(id_, BlockFeature.WRITE_ZEROES, data)

    def _clear(self, id_: int, feature: BlockFeature, data: Buffer) -> None:
        """Ask for what the segments of a request ask for, or end it with an error."""
        status, ranges = unpack_ranges(data, self._end, zeroes=feature is BlockFeature.WRITE_ZEROES)
        if not has(self._negotiated, feature):
            status = BlockStatus.UNSUPP
        elif self._disk.read_only:
            status = BlockStatus.IOERR
        if status is not BlockStatus.OK:
            self._finish(id_, int(status))
            return
        parts = [DiskRequest(0, opcode, at, size) for opcode, at, size in ranges]
        self._submit(id_, parts, Job(len(parts), flush=self._write_through))

    # --- outcomes

    def _submit(self, id_: int, parts: list[DiskRequest], job: Job) -> None:
        """Hand the parts of a request to the backend; with none of them it is done."""
        if not parts:
            self._finish(id_, _OK)
            return
        job.pieces = [b""] * len(parts)
        self._jobs[id_] = job
        for at, part in enumerate(parts):
            request = part._replace(tag=id_ << _PART_BITS | at)
            self._in_flight[request.tag] = request
            self._bytes += cost(request)
            self._disk.submit(request)

    def complete(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Take the outcome of a backend request; one that is not outstanding (stopped since) is ignored."""
        request = self._in_flight.pop(tag, None)
        if request is None:
            return
        _, opcode, _, length, _ = request
        if opcode is _READ:
            self._bytes -= length
            if status is _DONE and len(data) != length:
                status = Status.BAD_LENGTH
        else:
            data = b""
            if opcode is _WRITE:
                self._bytes -= length
        id_ = tag >> _PART_BITS
        if self._jobs and id_ in self._jobs:
            self._part_done(id_, tag & _FLUSH_PART, _OK if status is _DONE else _FAILURES.get(status, _IOERR), data)
        elif status is _DONE:
            self._queues[id_ >> _HEAD_BITS & _QUEUE_MASK].complete(id_ & _HEAD_MASK, data, _OK)
        else:
            self._finish(id_, _FAILURES.get(status, _IOERR))

    def succeed_many(self, tags: Sequence[int], lengths: Sequence[int], frames: Sequence[Buffer], now_ns: int) -> None:
        """Take the outcomes of requests that ended well; those of a batch are mostly plain commands."""
        in_flight = self._in_flight
        requests = [in_flight.get(tag) for tag in tags]
        if self._jobs or None in requests or not (self._single or _same_queue(tags)):
            for tag, data in zip(tags, split_payload(frames, lengths), strict=True):
                self.complete(tag, _DONE, memoryview(data), now_ns)
            return
        for tag in tags:
            self._bytes -= in_flight.pop(tag).length
        pack = _pack_completion
        entries = [pack(tag >> _PART_BITS & _HEAD_MASK, 1, _OK, size) for tag, size in zip(tags, lengths, strict=True)]
        queue = 0 if self._single else tags[0] >> _PART_BITS + _HEAD_BITS & _QUEUE_MASK
        self._queues[queue].complete_many(entries, frames, sum(lengths))

    def _part_done(self, id_: int, part: int, status: int, data: Buffer) -> None:
        job = self._jobs[id_]
        job.left -= 1
        job.status = job.status or status
        if part < len(job.pieces):
            job.pieces[part] = data
        if job.left:
            return
        if job.flush and job.status == _OK:
            job.left, job.flush = 1, False
            tag = id_ << _PART_BITS | _FLUSH_PART
            request = self._in_flight[tag] = DiskRequest(tag, Opcode.FLUSH)
            self._disk.submit(request)
            return
        del self._jobs[id_]
        self._finish(id_, job.status, job.pieces[0] if len(job.pieces) == 1 else b"".join(job.pieces))

    def _finish(self, id_: int, status: int, data: Buffer = b"") -> None:
        """Return a request; one that failed has no data."""
        self.failed += status != _OK
        queue = self._queues[id_ >> _HEAD_BITS & _QUEUE_MASK]
        queue.complete(id_ & _HEAD_MASK, data if status == _OK else b"", status)

    # --- state

    def state(self) -> State:
        """What was negotiated, and what is in flight."""
        return {
            "negotiated": self._negotiated,
            "in_flight": [[tag, int(code), at, size, bytes(data)] for tag, code, at, size, data in self._requests()],
            "jobs": [
                [id_, job.left, job.flush, job.status, [bytes(piece) for piece in job.pieces]]
                for id_, job in self._jobs.items()
            ],
            "counts": dict(self.counts),
            "failed": self.failed,
        }

    def _requests(self) -> list[DiskRequest]:
        return list(self._in_flight.values())

    def restore(self, state: State) -> None:
        """Take over a state; what was in flight is submitted once more, with its tags."""
        self.enable(state["negotiated"])
        self._end = BlockConfig.unpack(self.config).capacity * SECTOR_BYTES
        self.counts, self.failed = dict(state["counts"]), state["failed"]
        self._jobs = {id_: Job(left, flush, status, list(pieces)) for id_, left, flush, status, pieces in state["jobs"]}
        again = [DiskRequest(tag, Opcode(code), at, size, data) for tag, code, at, size, data in state["in_flight"]]
        self._in_flight = {request.tag: request for request in again}
        self._bytes = sum(map(cost, again))
        for request in again:
            self._disk.submit(request)


def _same_queue(tags: Sequence[int]) -> bool:
    """Whether requests are of one queue, in one life of it."""
    shift = _PART_BITS + _HEAD_BITS
    return len({tag >> shift for tag in tags}) == 1
