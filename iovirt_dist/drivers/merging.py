"""Merged commands of a queue pair: how they are made of requests, and how requests end when they do.

Theory of operation. A merged command is a `MergedRequest`: for the queue pair a request like any other, whose requester
is `Merging`. It has an id of its own, which says so (`ids.MERGED`): an id that a controller remembers as done never
comes again with something else. Requests are in flight as long as it is.

A controller that restarts gets the requests again, merged anew with whatever they meet, in the same order.

A command that fails for a reason that may concern only a part of it (`RETRIED`) is not the end: its requests are
submitted again, alone, before everything else, and each has its own outcome. Other failures are those of all parts.
What a later WRITE, DISCARD or WRITE_ZEROES overlaps, which is under way already, fails without a second attempt: that
would undo the later one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from iovirt_dist.drivers.request import NOBODY, DeviceQueue, Request
from iovirt_dist.ids import RequestId, merged_queue
from iovirt_dist.mux.merge import DEFAULT_LIMITS, Limits, Merged, merge
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status
from iovirt_dist.wire.payload import split_payload

RETRIED: Final = frozenset({Status.MEDIUM_ERROR, Status.OUT_OF_RANGE, Status.BAD_LENGTH})
"""Outcomes that may be one part's fault."""


class MergedRequest(Request, frozen=True, eq=False):
    """A command that consists of several requests.

    Attributes:
        parts: They, in their order.
        ordered: Their ranges lie in a row, without overlaps, in this order.
    """

    parts: list[Request]
    ordered: bool


def unmerged(requests: Sequence[Request]) -> list[Request]:
    """Return the requests that commands consist of, in order."""
    result: list[Request] = []
    for request in requests:
        if isinstance(request, MergedRequest):
            result += request.parts
        else:
            result.append(request)
    return result


class Merging:
    """Merges the requests of a queue pair; the `Requester` of its merged commands.

    Args:
        queue: Where requests go that are to be submitted again.
        in_flight: The queue pair's requests in flight, by id; read only.
        limits: What a merged command may be.

    Attributes:
        merged: Requests that left as a part of another's command.
    """

    def __init__(
        self, queue: MultiQueue[Request], in_flight: Mapping[bytes, Request], limits: Limits = DEFAULT_LIMITS
    ) -> None:
        self.merged = 0
        self._queue = queue
        self._in_flight = in_flight
        self._limits = limits
        self._apart: set[bytes] = set()

    def commands(self, requests: list[Request]) -> list[Request]:
        """Return the commands for a batch; a unit that is not identified yet has its requests parked one by one."""
        apart = self._apart
        if apart:
            self._apart = apart.difference([request.id for request in requests])
        if len(requests) < 2 or any(request.queue.unit.number is None for request in requests):
            return requests
        commands = merge(requests, self._limits, apart)
        if len(commands) == len(requests):
            return requests
        self.merged += len(requests) - len(commands)
        return [command.parts[0] if len(command.parts) == 1 else self._command(command) for command in commands]

    def completed(self, request: Request, status: Status, data: Buffer, now_ns: int) -> None:
        """End the requests of a merged command, or submit them again."""
        assert isinstance(request, MergedRequest), "only merged commands have this requester"
        if status in RETRIED:
            self._retry(request, status, now_ns)
        elif status is Status.OK:
            self._succeeded(request, data, now_ns)
        else:
            for part in request.parts:
                _end(part, status, b"", now_ns)

    def succeeded_many(
        self, requests: Sequence[Request], lengths: Sequence[int], frames: Sequence[Buffer], now_ns: int
    ) -> None:
        """End the requests of merged commands that ended with OK."""
        for request, data in zip(requests, split_payload(frames, lengths), strict=True):
            self.completed(request, Status.OK, data, now_ns)

    def forget(self, guest: int) -> None:
        """A guest instance is gone."""
        prefix = RequestId(guest, 0, 0).pack()[:4]
        self._apart = {id_ for id_ in self._apart if id_[:4] != prefix}

    def _command(self, command: Merged[Request]) -> MergedRequest:
        parts = command.parts
        first = parts[0]
        queue = first.queue
        guest, number, sequence = RequestId.unpack(first.id)
        id_ = RequestId(guest, merged_queue(number, len(parts)), sequence).pack()
        carrier = DeviceQueue(guest, number, queue.unit, self, _Uncounted(), _never)
        carrier.batches = self
        data = command.data() if command.opcode is Opcode.WRITE else b""
        ordered = not command.overlapping and all(before.offset < after.offset for before, after in pairwise(parts))
        return MergedRequest(carrier, 0, id_, command.opcode, command.offset, command.length, data, parts, ordered)

    def _succeeded(self, command: MergedRequest, data: Buffer, now_ns: int) -> None:
        """Give each part its data; in a row at once if the requester likes that."""
        parts, reading = command.parts, command.opcode is Opcode.READ
        whole = memoryview(data if len(data) == command.length else b"")  # else each finds that its data is missing
        batches = parts[0].queue.batches
        if batches is not None and (not reading or (command.ordered and whole)):
            lengths = [part.length if reading else 0 for part in parts]
            parts[0].queue.entry.in_flight -= len(parts)
            batches.succeeded_many(parts, lengths, [whole] if reading else [], now_ns)
            return
        for part in parts:
            at = part.offset - command.offset
            _end(part, Status.OK, whole[at : at + part.length] if reading else b"", now_ns)

    def _retry(self, command: MergedRequest, status: Status, now_ns: int) -> None:
        """Submit the parts again that may succeed alone and harm nobody; what its guest has left behind stays ended."""
        again: list[Request] = []
        for part in command.parts:
            gone = part.queue.requester is NOBODY
            if not gone and (command.opcode is Opcode.READ or not self._overtaken(part)):
                again.append(part)
            else:
                _end(part, status, b"", now_ns)
        self._apart.update(part.id for part in again)
        self._queue.push_front(again)

    def _overtaken(self, part: Request) -> bool:
        """Whether something that is under way changes bytes of this request, too."""
        unit, begin, end = part.queue.unit, part.offset, part.offset + part.length
        return any(
            other.queue.unit is unit
            and other.opcode in (Opcode.WRITE, Opcode.DISCARD, Opcode.WRITE_ZEROES)
            and other.offset < end
            and other.offset + other.length > begin
            for other in self._in_flight.values()
        )


def _end(part: Request, status: Status, data: Buffer, now_ns: int) -> None:
    queue = part.queue
    queue.entry.in_flight -= 1
    queue.requester.completed(part, status, data, now_ns)


class _Uncounted:
    """Entry of merged commands: their parts are counted, not they."""

    def __init__(self) -> None:
        self.in_flight = 0

    def push(self, item: Request) -> bool:  # noqa: ARG002 - the protocol fixes the signature
        """Nothing goes in."""
        return False

    def push_many(self, items: Sequence[Request]) -> int:  # noqa: ARG002 - as above
        """Nothing goes in."""
        return 0


def _never(request: Request, status: Status) -> None:
    """A merged command is never refused: it is made of what was taken already."""
