"""Requests of one device queue that touch or overlap become one command, as far as nobody can tell by the outcome.

Theory of operation. What a guest asks for in a row leaves in one batch; block layers merge within such a batch, too
(Linux: block/blk-merge.c, `blk_attempt_plug_merge`). A request joins an earlier one of its queue if both do the same
and their ranges together have no gap. So it goes ahead of what lies between them; therefore it joins only if it
conflicts with none of those: no byte in common, or both only read. FLUSH, WRITE_ZEROES, and what
is no access are borders that nothing crosses. A join never makes a command larger than `Limits` say.

Reads share what was read. Of writes that overlap, the later has its way, as it would have had. Only small writes are
merged: a merged one is copied together, which small ones are anyway on their way into a frame (`wire.payload`), and
large ones are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode
from iovirt_dist.wire.payload import JOIN_BYTES

LOOK_BACK: Final = 16
"""So many commands of the queue are looked at for one to join: bounded work for each request, whatever they are."""

_READ: Final = Opcode.READ
_WRITE: Final = Opcode.WRITE
_ACCESSES: Final = frozenset({Opcode.READ, Opcode.WRITE, Opcode.DISCARD})


class Limits(NamedTuple):
    """What a merged command may be.

    Attributes:
        data_bytes: Most data that it moves.
        discard_bytes: Most that it discards.
        write_bytes: Writes longer than this are not merged.
        parts: Most requests in it.
        block_bytes: Requests that do not begin and end at multiples of this are not merged: they are errors, and must
            stay errors.
    """

    data_bytes: int = MAX_DATA_BYTES
    discard_bytes: int = 1 << 30
    write_bytes: int = JOIN_BYTES
    parts: int = 128
    block_bytes: int = 512


DEFAULT_LIMITS: Final = Limits()


class Mergeable(Protocol):
    """A request for a range of a unit."""

    @property
    def id(self) -> bytes:
        """Its identity."""
        ...

    @property
    def queue(self) -> object:
        """The queue of one guest's device that it came through; requests of different ones are never merged."""
        ...

    @property
    def opcode(self) -> Opcode:
        """What to do."""
        ...

    @property
    def offset(self) -> int:
        """Bytes from the start of the unit."""
        ...

    @property
    def length(self) -> int:
        """Bytes of the range."""
        ...

    @property
    def data(self) -> Buffer:
        """For WRITE as many bytes."""
        ...


M = TypeVar("M", bound=Mergeable)


class Merged(Generic[M]):
    """A command: one request, or several without a gap between them.

    Attributes:
        opcode: What all of them do.
        offset: Where the first byte is.
        end: Behind the last byte.
        parts: The requests, in the order in which they came.
        closed: Nothing joins.
        overlapping: Parts have bytes in common.
    """

    __slots__ = ("closed", "end", "offset", "opcode", "overlapping", "parts")

    def __init__(self, request: M, closed: bool) -> None:
        self.opcode = request.opcode
        self.offset = request.offset
        self.end = request.offset + request.length
        self.parts = [request]
        self.closed = closed
        self.overlapping = False

    @property
    def length(self) -> int:
        """Bytes of the range."""
        return self.end - self.offset

    def data(self) -> bytes | bytearray:
        """Return what WRITEs write, together: of overlapping ones the last one's bytes."""
        if not self.overlapping:
            return b"".join([part.data for part in sorted(self.parts, key=_offset)])
        whole = bytearray(self.length)
        for part in self.parts:
            at = part.offset - self.offset
            whole[at : at + part.length] = part.data
        return whole

    def joins(self, request: M, limits: Limits) -> bool:
        """Take a request in if it does the same, leaves no gap, and the limits allow; False if not."""
        begin, end = request.offset, request.offset + request.length
        if self.closed or request.opcode is not self.opcode or begin > self.end or end < self.offset:
            return False
        offset, last = min(begin, self.offset), max(end, self.end)
        most = limits.discard_bytes if self.opcode is Opcode.DISCARD else limits.data_bytes
        if last - offset > most or len(self.parts) >= limits.parts:
            return False
        self.overlapping = self.overlapping or (begin < self.end and end > self.offset)
        self.offset, self.end = offset, last
        self.parts.append(request)
        return True

    def conflicts(self, request: M) -> bool:
        """Whether the order of this and the request matters."""
        if self.opcode is _READ and request.opcode is _READ:
            return False
        return request.offset < self.end and request.offset + request.length > self.offset


def merge(
    requests: Sequence[M], limits: Limits = DEFAULT_LIMITS, apart: AbstractSet[bytes] = frozenset()
) -> list[Merged[M]]:
    """Make commands of requests; a command stands where the first of its requests stood.

    Args:
        requests: A batch in its order, of any queues.
        limits: What a command may be.
        apart: Ids of requests that must stay alone.

    Returns:
        Commands that, done in this order, have the effects of the requests done in theirs; each request is in one.
    """
    commands: list[Merged[M]] = []
    recent: dict[object, list[Merged[M]]] = {}
    for request in requests:
        if request.opcode not in _ACCESSES:
            recent.pop(request.queue, None)
            commands.append(Merged(request, closed=True))
            continue
        earlier = recent.setdefault(request.queue, [])
        closed = request.id in apart or not _fit(request, limits)
        if closed or not _join(earlier, request, limits):
            command = Merged(request, closed)
            commands.append(command)
            earlier.append(command)
    return commands


def _join(earlier: list[Merged[M]], request: M, limits: Limits) -> bool:
    """Let a request join the latest command that takes it, unless it had to pass one that it conflicts with."""
    for command in earlier[: -LOOK_BACK - 1 : -1]:
        if command.joins(request, limits):
            return True
        if command.conflicts(request):
            return False
    return False


def _fit(request: M, limits: Limits) -> bool:
    """Whether a request may be merged at all."""
    length = request.length
    if length <= 0 or (request.offset | length) % limits.block_bytes:
        return False
    return request.opcode is not _WRITE or len(request.data) == length <= limits.write_bytes


def _offset(request: Mergeable) -> int:
    return request.offset
