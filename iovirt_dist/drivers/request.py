"""Requests of host-side drivers on their way to a controller and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.errors import DecodeError
from iovirt_dist.ids import RequestId
from iovirt_dist.mux.queue import Entry
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status, UnitIdentity

_SEQUENCE_BYTES = 8
_DISCARD, _WRITE_ZEROES = Opcode.DISCARD, Opcode.WRITE_ZEROES  # an attribute of an enumeration costs as much as a call


class Requester(Protocol):
    """Who hears how a request ended: a host-side driver."""

    def completed(self, request: Request, status: Status, data: Buffer, now_ns: int) -> None:
        """Take the outcome of a request.

        Args:
            request: As it was submitted.
            status: How it ended.
            data: What came back, as much as the controller liked to send: check its length.
            now_ns: Monotonic time.
        """
        ...


class BatchRequester(Requester, Protocol):
    """A requester that hears of many requests at once."""

    def succeeded_many(
        self, requests: Sequence[Request], lengths: Sequence[int], frames: Sequence[Buffer], now_ns: int
    ) -> None:
        """Take the outcomes of requests that all ended with OK.

        Args:
            requests: As they were submitted, in the order of completion.
            lengths: Bytes that came back with each: whether they are as many as asked for is not checked yet.
            frames: Those bytes, in that order; each frame holds whole requests' data.
            now_ns: Monotonic time.
        """
        ...


@dataclass(slots=True)
class Unit:
    """A disk extent or terminal that somebody uses.

    Attributes:
        used: Its identification was asked for.
        number: What the controller calls it in this life, None until identified.
        identity: What it told, None until identified the first time.
        problem: Why it cannot be used, empty if it can.
        parked: Requests that wait for its number.
        holders: Guests that have it.
    """

    used: bool = False
    number: int | None = None
    identity: UnitIdentity | None = None
    problem: str = ""
    parked: list[Request] = field(default_factory=list)
    holders: int = 0


def identification_problem(controller: str, name: str, status: Status, identity: Buffer) -> str:
    """What is wrong with a controller's answer to IDENTIFY of a unit, empty for nothing."""
    if status is not Status.OK:
        return f"controller {controller} has no unit '{name}' ({status.name.lower()})"
    try:
        block_bytes = UnitIdentity.unpack(identity).block_bytes
    except DecodeError as error:
        return f"controller {controller} identifies '{name}' wrongly ({error})"
    return "" if block_bytes else f"controller {controller} identifies '{name}' wrongly (blocks of 0 bytes)"


class Request(msgspec.Struct, frozen=True, eq=False):
    """A command that knows its unit by name, as unit numbers change with the controller's life.

    Attributes:
        queue: Where it comes from.
        tag: The requester's own number for it.
        id: Identity, end to end.
        opcode: What to do.
        offset: Bytes from the start of the unit.
        length: Bytes of data in or out.
        data: Bytes of data out.
    """

    queue: DeviceQueue
    tag: int
    id: bytes
    opcode: Opcode
    offset: int
    length: int
    data: Buffer

    @property
    def guest(self) -> int:
        """Instance number of the guest that asked."""
        return self.queue.guest

    @property
    def data_bytes(self) -> int:
        """Bytes of data that travel; those of a cleared range do not."""
        return 0 if self.opcode is _DISCARD or self.opcode is _WRITE_ZEROES else self.length


class DeviceQueue:
    """A queue of a guest's device: numbers its requests and says who hears of them. `QueuePair.device_queue` makes it.

    Args:
        guest: Instance number of the guest.
        number: Number of the queue within the guest.
        unit: What its requests are for.
        requester: Who hears how they end.
        entry: Where its requests go in.
        refuse: Ends a request that was not queued.

    Attributes:
        batches: The requester, if it takes batches.
        parked: How many of its requests wait for the unit's number.
    """

    __slots__ = ("_prefix", "_push", "_refuse", "_sequence", "batches", "entry", "guest", "parked", "requester", "unit")

    def __init__(
        self,
        guest: int,
        number: int,
        unit: Unit,
        requester: Requester,
        entry: Entry[Request],
        refuse: Callable[[Request, Status], None],
    ) -> None:
        self.guest = guest
        self.unit = unit
        self.requester = requester
        self.batches: BatchRequester | None = None
        self.entry = entry
        self.parked = 0
        self._push = entry.push
        self._refuse = refuse
        self._prefix = RequestId(guest, number, 0).pack()[:-_SEQUENCE_BYTES]
        self._sequence = 0

    def submit(self, tag: int, opcode: Opcode, offset: int = 0, length: int = 0, data: Buffer = b"") -> None:
        """Queue a request; where the queue is full it ends with QUEUE_FULL, like any other error, after this step."""
        self._sequence = sequence = self._sequence + 1
        id_ = self._prefix + sequence.to_bytes(_SEQUENCE_BYTES, "little")
        request = Request(self, tag, id_, opcode, offset, length, data)
        if not self._push(request):
            self._refuse(request, Status.QUEUE_FULL)

    def submit_many(self, requests: Sequence[DiskRequest]) -> None:
        """Queue requests in their order, as `submit` does each."""
        prefix, new, first = self._prefix, Request, self._sequence + 1
        self._sequence += len(requests)
        numbered = [
            new(self, tag, prefix + sequence.to_bytes(_SEQUENCE_BYTES, "little"), opcode, offset, length, data)
            for sequence, (tag, opcode, offset, length, data) in enumerate(requests, first)
        ]
        for request in numbered[self.entry.push_many(numbered) :]:
            self._refuse(request, Status.QUEUE_FULL)

    def offer(self, tag: int, opcode: Opcode, offset: int = 0, length: int = 0, data: Buffer = b"") -> bool:
        """Queue a request; where the queue is full nothing happens, and the answer is False."""
        self._sequence = sequence = self._sequence + 1
        id_ = self._prefix + sequence.to_bytes(_SEQUENCE_BYTES, "little")
        return self._push(Request(self, tag, id_, opcode, offset, length, data))


class _Nobody:
    """Requester of requests whose guest is gone."""

    def completed(self, request: Request, status: Status, data: Buffer, now_ns: int) -> None:
        """Nobody waits for this any more."""


NOBODY: Requester = _Nobody()
