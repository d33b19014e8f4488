"""State of one peer's queue pair: commands that wait or run, completions that gather.

Data of completions is kept as extents of the buffers that a medium filled. What one access of the medium read for many
commands in a row therefore leaves as one frame, without a copy.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES, Buffer
from iovirt_dist.wire.commands import MAX_BATCH, Completion, Opcode
from iovirt_dist.wire.payload import join_pieces


class Remembered(NamedTuple):
    """A completion that is sent again when its id comes again, with its data in a buffer of its own."""

    completion: Completion
    data: Buffer


class _Extent:
    """Data of neighbouring completions that lies together: ``buffer[start:end]``."""

    __slots__ = ("buffer", "end", "start")

    def __init__(self, buffer: Buffer, start: int, end: int) -> None:
        self.buffer = buffer
        self.start = start
        self.end = end

    def frame(self) -> Buffer:
        """Return the bytes, not copied."""
        whole = self.start == 0 and self.end == len(self.buffer)
        return self.buffer if whole else memoryview(self.buffer)[self.start : self.end]


class CompletionBatch:
    """Completions of one message while they gather.

    Attributes:
        completions: In order.
        payload_bytes: Bytes of data that belong to them.
    """

    __slots__ = ("_extents", "_last", "completions", "payload_bytes")

    def __init__(self) -> None:
        self.completions: list[Completion] = []
        self.payload_bytes = 0
        self._extents: list[_Extent] = []
        self._last = _NO_EXTENT

    def full_for(self, count: int, length: int) -> bool:
        """Whether so many more completions, with so much data together, would exceed the wire's bounds."""
        return len(self.completions) + count > MAX_BATCH or self.payload_bytes + length > MAX_PAYLOAD_BYTES

    def add(self, completions: list[Completion], buffer: Buffer, start: int, end: int) -> None:
        """Add completions whose data is ``buffer[start:end]``; a neighbour's data is one frame with it."""
        self.completions += completions
        if start == end:
            return
        self.payload_bytes += end - start
        last = self._last
        if last.buffer is buffer and last.end == start:
            last.end = end
        else:
            self._last = _Extent(buffer, start, end)
            self._extents.append(self._last)

    def frames(self) -> list[Buffer]:
        """Return the payload."""
        return join_pieces([extent.frame() for extent in self._extents])


_NO_EXTENT = _Extent(b"", 0, 0)


@dataclass(slots=True, eq=False)
class PeerQueues:
    """A queue pair as the controller has it: submission and completion queue of one peer.

    Attributes:
        peer: Its name.
        epoch: Its life.
        number: Number of the open session, None while closed.
        abandoned: The peer's next life has begun; nothing of this one is sent any more.
        outstanding: Accepted and not completed, by id.
        submission: Accepted and not taken by arbitration.
        scheduled: Whether arbitration knows that commands wait.
        account: What was taken from it by weight (see `arbitration`).
        share: What a byte adds to the account.
        taken_commands: Commands that arbitration has taken.
        taken_bytes: Bytes that they move, of each at most `MAX_DATA_BYTES`.
        remembered: Completions to send again, oldest first.
        completion: Batches to be sent; the last one is open for more.
    """

    peer: str
    epoch: int = 0
    number: int | None = None
    abandoned: bool = False
    outstanding: dict[bytes, OutstandingCommand] = field(default_factory=dict)
    submission: deque[OutstandingCommand] = field(default_factory=deque)
    scheduled: bool = False
    account: int = 0
    share: int = 1
    taken_commands: int = 0
    taken_bytes: int = 0
    remembered: OrderedDict[bytes, Remembered] = field(default_factory=OrderedDict)
    completion: list[CompletionBatch] = field(default_factory=list)

    def abandon(self) -> None:
        """Drop everything of a life that is over; what runs at the medium ends into nothing."""
        self.abandoned = True
        self.number = None
        for stale in (self.submission, self.outstanding, self.remembered, self.completion):
            stale.clear()


class OutstandingCommand(msgspec.Struct, eq=False):
    """A command that a controller has accepted and not completed.

    Attributes:
        id: As in `Command`, as are `opcode`, `unit`, `offset` and `length`.
        data: Its payload, empty for opcodes without.
        queues: Where it came from and where its completion goes.
    """

    id: bytes
    opcode: Opcode
    unit: int
    offset: int
    length: int
    data: Buffer
    queues: PeerQueues
