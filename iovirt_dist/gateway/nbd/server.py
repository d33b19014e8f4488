"""All clients of a gateway and the disk that they share; a sans-IO core.

Theory of operation. A *turn* takes what the disk has done, sends the answers, and then fills the disk's free places
with what clients want, each in its turn, with one doorbell for all of it. Whoever runs the gateway calls for a turn
when clients have sent something or the disk has done something.

A power-on gives the guest a new life, without the requests of the old one. So when the disk is taken away (`detach`)
what is in flight is kept, with the data of its writes, and goes to the next disk (`attach`) before anything else:
clients see a pause. Until it is answered a request may be done twice, as nobody can tell.

A flush covers what other connections have written: all requests go through one queue to one disk, so CAN_MULTI_CONN.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from iovirt_dist.gateway.nbd.connection import Connection, Send
from iovirt_dist.gateway.nbd.protocol import Command, Export, TransmissionFlag
from iovirt_dist.gateway.nbd.transmission import Piece
from iovirt_dist.guest.script.disk import BlockDone, BlockIo, Disk
from iovirt_dist.virtio.block import RANGE, SECTOR_BYTES, BlockFeature, BlockRequest, BlockStatus
from iovirt_dist.virtio.features import has, mask

FEATURES: Final = mask(
    BlockFeature.RO, BlockFeature.BLK_SIZE, BlockFeature.FLUSH, BlockFeature.DISCARD, BlockFeature.WRITE_ZEROES
)
"""What the disk's driver takes if it is offered."""
MAX_BATCHES: Final = 2
"""Doorbells at once whose last request is not done: while so many are, requests gather for the next, because a message
costs as much as some ten requests in it. Two, so that the disk works while answers are sent."""
LONG_BATCH_BYTES: Final = 512 << 10
"""From so much data on a batch does not count: there is no need for others to gather."""

_READ, _WRITE, _FLUSH = int(Command.READ), int(Command.WRITE), int(Command.FLUSH)
_IN, _OUT = BlockRequest.IN, BlockRequest.OUT
_RANGES: Final = {Command.TRIM: BlockRequest.DISCARD, Command.WRITE_ZEROES: BlockRequest.WRITE_ZEROES}
_new = tuple.__new__
_SYNC: Final = BlockIo(BlockRequest.FLUSH)


class Server:
    """Serves one disk.

    Args:
        name: The export's name.
        description: For people.

    Attributes:
        export: What is served; None before there was a disk.
        connections: All clients, oldest first.
        closed: Connections that are over, by reason.
        served: Pieces of requests that the disk has done or refused.
        resubmitted: Pieces that were given to a later disk again.
    """

    def __init__(self, name: str, description: str = "") -> None:
        self.export: Export | None = None
        self.connections: list[Connection] = []
        self.closed: Counter[str] = Counter()
        self.served = 0
        self.resubmitted = 0
        self._name = name
        self._description = description
        self._disk: Disk | None = None
        self._pieces: dict[int, Piece] = {}
        self._again: deque[Piece] = deque()
        self._ends: set[int] = set()
        self._first = 0
        self._piece_bytes = 0

    # --- clients

    @property
    def hungry(self) -> bool:
        """Whether a turn could give the disk something; if not, the next one comes with what the disk has done."""
        return self._disk is not None and len(self._ends) < MAX_BATCHES and self._disk.free > 0

    def connect(self, send: Send, close: Callable[[str], None]) -> Connection:
        """Greet a client; arguments as of `Connection`. There must have been a disk."""
        assert self.export is not None

        def closing(reason: str) -> None:
            self.closed[reason] += 1
            self.connections.remove(connection)
            close(reason)

        connection = Connection(self.export, self._piece_bytes, send, closing)
        self.connections.append(connection)
        return connection

    def status(self) -> dict[str, object]:
        """What there is to tell, as JSON values."""
        return {
            "clients": len(self.connections),
            "closed": dict(self.closed),
            "requests": self.served,
            "resubmitted": self.resubmitted,
        }

    # --- the disk

    def attach(self, disk: Disk) -> None:
        """Serve a disk; if it is another than before, no client can go on. One that has grown is the same."""
        before, export = self.export, Export(self._name, disk.capacity * SECTOR_BYTES, _flags(disk), self._description)
        if before is not None and (export.flags != before.flags or export.size_bytes < before.size_bytes):
            self._again.clear()
            for connection in tuple(self.connections):
                connection.close("disk-changed")
        self.export = export
        self._disk = disk
        self._piece_bytes = disk.io_sectors * SECTOR_BYTES

    def resized(self, sectors: int) -> None:
        """The disk has so many sectors now: clients that come are told, those that are there go on with theirs."""
        assert self.export is not None
        self.export = self.export._replace(size_bytes=sectors * SECTOR_BYTES)

    def detach(self) -> None:
        """The disk goes: keep what is in flight, in its order, for the next."""
        disk, self._disk = self._disk, None
        if disk is None:
            return
        again = []
        for number, data in disk.in_flight():
            request, at, length, _ = self._pieces[number]
            if not request.owner.gone:  # the data is copied: a power-on clears the memory that it lies in
                again.append((request, at, length, bytes(data) if request.command == _WRITE else b""))
        self.resubmitted += len(again)
        self._again.extendleft(reversed(again))
        self._pieces.clear()
        self._ends.clear()

    def turn(self) -> None:
        """Take what is done, answer, and submit what is wanted; see the theory of operation."""
        disk = self._disk
        if disk is None:
            return
        done = disk.completions_nowait()
        if done:
            self._finish(done)
        free = disk.free
        if free and len(self._ends) < MAX_BATCHES:
            pieces: list[Piece] = []
            while self._again and len(pieces) < free:
                piece = self._again.popleft()
                if not piece[0].owner.gone:
                    pieces.append(piece)
            self._gather(pieces, free)
            if pieces:
                first = disk.submit_many([_block_io(piece) for piece in pieces])
                self._pieces.update(enumerate(pieces, first))
                if len(pieces) * pieces[0][2] < LONG_BATCH_BYTES:
                    self._ends.add(first + len(pieces) - 1)

    def _finish(self, done: list[BlockDone]) -> None:
        """Tell requests of their pieces, and send the answers: after that the disk may use its buffers again."""
        pop, ok = self._pieces.pop, BlockStatus.OK
        self.served += len(done)
        ends = self._ends
        for one in done:
            request, at, _, _ = pop(one.number)
            if one.number in ends:
                ends.remove(one.number)
            if request.owner.finished(request, at, one.status == ok, one.data):
                self._again.append((request, 0, 0, b""))
        for connection in tuple(self.connections):
            connection.flush()

    def _gather(self, pieces: list[Piece], free: int) -> None:
        """Let each client have its share of the free places, then of what others have left."""
        connections = tuple(self.connections)
        if not connections:
            return
        self._first = first = (self._first + 1) % len(connections)
        order = connections[first:] + connections[:first]
        before = -1
        while len(pieces) < free and len(pieces) != before:
            before = len(pieces)
            share = -(-(free - before) // len(order))
            for connection in order:
                connection.take(pieces, min(share, free - len(pieces)))
        for connection in order:
            connection.flush()


def _flags(disk: Disk) -> TransmissionFlag:
    """What the disk can do."""
    flags = TransmissionFlag.HAS_FLAGS | TransmissionFlag.CAN_MULTI_CONN
    flags |= TransmissionFlag.SEND_FLUSH | TransmissionFlag.SEND_FUA
    if disk.read_only:
        return flags | TransmissionFlag.READ_ONLY
    if has(disk.device.features, BlockFeature.DISCARD):
        flags |= TransmissionFlag.SEND_TRIM
    if has(disk.device.features, BlockFeature.WRITE_ZEROES):
        flags |= TransmissionFlag.SEND_WRITE_ZEROES
    return flags


def _block_io(piece: Piece) -> BlockIo:
    """Say a piece as the disk's driver wants it."""
    request, at, length, data = piece
    command, offset = request.command, request.offset + at
    if command == _READ:
        return _new(BlockIo, (_IN, offset // SECTOR_BYTES, length // SECTOR_BYTES, b""))
    if command == _WRITE:
        return _new(BlockIo, (_OUT, offset // SECTOR_BYTES, 0, data))
    if command == _FLUSH:
        return _SYNC
    return BlockIo(_RANGES[Command(command)], 0, 0, RANGE.pack(offset // SECTOR_BYTES, length // SECTOR_BYTES, 0))
