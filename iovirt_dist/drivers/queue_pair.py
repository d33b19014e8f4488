"""A hypervisor's end of a controller's queue pair.

Theory of operation. Requests wait in the mux, are submitted in batches as far as the controller's credits go, and
stay in the in-flight table until their completion comes: the table lives here, with the requester. A controller that
goes away keeps nobody's requests: when it is back, units are identified again and everything in flight is submitted
again under the same ids, in the same order; a controller that was only out of reach recognises what it did already.
Requests for a unit that is not identified (again) yet wait beside the queue, so that they hold nobody else up. A unit
that the controller no longer has, or a full queue, ends a request with an error; it is told by `settle`, at the end of
the step and never from inside `submit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from iovirt_dist.errors import DecodeError
from iovirt_dist.ids import RequestId
from iovirt_dist.mux.fifo import Fifo
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES, Buffer
from iovirt_dist.wire.commands import (
    MAX_BATCH,
    WITH_DATA_OUT,
    Command,
    Completion,
    Opcode,
    Status,
    UnitIdentity,
    pack_commands,
    unpack_completions,
)
from iovirt_dist.wire.messages import Complete, Submit

_UNIT_MASK = 0xFFFF_FFFF
"""Unit numbers are 32 bits wide in commands."""

OnComplete = Callable[[Status, Buffer, int], None]
"""Called once with the outcome of a request: status, data that came back, time in ns."""

OWN = 0
"""Guest instance number of the hypervisor's own commands."""

MAX_IN_FLIGHT = 2048
"""Most requests in flight whatever the credits: each may be a message, and the session's window is 4096 messages."""


class Request(NamedTuple):
    """A command that knows its unit by name, as unit numbers change with the controller's life."""

    id: RequestId
    opcode: Opcode
    unit: str
    offset: int
    length: int
    data: Buffer
    on_complete: OnComplete


@dataclass(slots=True)
class Unit:
    """A disk extent or terminal that somebody uses.

    Attributes:
        number: What the controller calls it in this life, None until identified.
        identity: What it told, None until identified the first time.
        problem: Why it cannot be used, empty if it can.
        parked: Requests that wait for its number.
    """

    number: int | None = None
    identity: UnitIdentity | None = None
    problem: str = ""
    parked: list[Request] = field(default_factory=list)


class QueuePair:
    """Requests of one hypervisor to one controller.

    Args:
        controller: Its name, for messages.
        bound: Most requests that wait before credits allow them out.

    Attributes:
        refused: Requests that ended without reaching the controller; `settle` tells their requesters.
        notes: Lines for the log, until somebody takes them.
    """

    def __init__(self, controller: str, bound: int = 4096) -> None:
        self.controller = controller
        self.connected = False
        self.units: dict[str, Unit] = {}
        self.submitted = 0
        self.completed = 0
        self.resubmitted = 0
        self.batches = 0
        self.interrupts = 0
        self.refused: list[tuple[Request, Status]] = []
        self.notes: list[str] = []
        self._bound = bound
        self._parked = 0
        self._credits = 0
        self._waiting: Fifo[Request] = Fifo(bound)
        self._in_flight: dict[RequestId, Request] = {}
        self._own_sequence = 0

    @property
    def in_flight(self) -> int:
        """Requests submitted and not completed."""
        return len(self._in_flight)

    def use(self, unit: str) -> Unit:
        """Say that a unit will be used; it is identified as soon as the controller is there."""
        known = self.units.get(unit)
        if known is None:
            known = self.units[unit] = Unit()
            self._identify(unit)
        return known

    @property
    def pending(self) -> bool:
        """Whether `take_batch` or `settle` may have something to do."""
        return bool(self.refused) or len(self._waiting) > 0

    def submit(self, request: Request) -> bool:
        """Queue a request; False when the bound is reached."""
        return len(self._waiting) + self._parked < self._bound and self._waiting.push(request)

    def refuse(self, request: Request, status: Status) -> None:
        """End a request that was not submitted; its requester hears of it from `settle`."""
        self.refused.append((request, status))

    def settle(self, now_ns: int) -> None:
        """Tell the requesters of refused requests."""
        refused, self.refused = self.refused, []
        for request, status in refused:
            request.on_complete(status, b"", now_ns)

    def opened(self, peer_credits: int, resumed: bool) -> None:
        """The controller is there; `resumed`: it still knows what was submitted."""
        self.connected = True
        self._credits = min(peer_credits, MAX_IN_FLIGHT)
        if resumed:
            return
        again = [request for request in self._in_flight.values() if request.id.guest != OWN]
        self._in_flight.clear()
        self._waiting.drop(OWN)
        self.resubmitted += len(again)
        for unit in self.units.values():
            unit.number, unit.problem = None, ""
            self._unpark(unit)
        self._waiting.push_front(again)
        for name in self.units:
            self._identify(name)

    def lost(self) -> None:
        """The controller is out of reach; requests wait."""
        self.connected = False

    def take_batch(self) -> tuple[Submit, list[Buffer]] | None:
        """Return the next batch to submit, None while there is nothing or no credit."""
        if not self.connected or not len(self._waiting):
            return None
        room = min(self._credits - len(self._in_flight), MAX_BATCH)
        if room <= 0:
            return None
        while len(self._waiting):
            commands, payload = self._start(self._waiting.take(room))
            if commands:
                self.submitted += len(commands)
                self.batches += 1
                return Submit(pack_commands(commands)), payload
        return None

    def complete(self, message: Complete, payload: list[Buffer], now_ns: int) -> None:
        """Take a batch of completions and tell each requester.

        Raises:
            DecodeError: The batch is malformed; nothing of it was taken.
        """
        completions = unpack_completions(message.completions, [len(frame) for frame in payload])
        self.interrupts = max(self.interrupts, message.interrupts)
        frames = iter(payload)
        for completion in completions:
            data: Buffer = next(frames) if completion.length else b""
            request = self._in_flight.pop(completion.id, None)
            if request is None:
                continue
            self.completed += 1
            if request.id.guest == OWN:
                self._identified(request.unit, completion, data)
            else:
                request.on_complete(completion.status, data, now_ns)

    def forget(self, guest: int) -> None:
        """Drop what a guest instance has waiting; what is in flight completes into nothing."""
        self._waiting.drop(guest)
        self.refused = [entry for entry in self.refused if entry[0].id.guest != guest]
        for unit in self.units.values():
            kept = [request for request in unit.parked if request.id.guest != guest]
            self._parked -= len(unit.parked) - len(kept)
            unit.parked = kept
        for id_, request in self._in_flight.items():
            if id_.guest == guest:
                self._in_flight[id_] = request._replace(on_complete=_nothing)

    def _identify(self, unit: str) -> None:
        self._own_sequence += 1
        id_ = RequestId(OWN, 0, self._own_sequence)
        name = unit.encode()
        self._waiting.push_front([Request(id_, Opcode.IDENTIFY, unit, 0, len(name), name, _nothing)])

    def _start(self, taken: list[Request]) -> tuple[list[Command], list[Buffer]]:
        """Make commands of requests, as many as one message carries; put back the others."""
        commands: list[Command] = []
        payload: list[Buffer] = []
        payload_bytes = 0
        for at, request in enumerate(taken):
            number = 0 if request.opcode is Opcode.IDENTIFY else self.units[request.unit].number
            if number is None:
                self._park(request)
                continue
            if request.opcode in WITH_DATA_OUT:
                payload_bytes += len(request.data)
                if payload_bytes > MAX_PAYLOAD_BYTES:
                    self._waiting.push_front(taken[at:])
                    break
                payload.append(request.data)
            commands.append(Command(request.id, request.opcode, number, request.offset, request.length))
            self._in_flight[request.id] = request
        return commands, payload

    def _park(self, request: Request) -> None:
        """Set a request aside until its unit is identified; a unit that has a problem takes none."""
        unit = self.units[request.unit]
        if unit.problem:
            self.refuse(request, Status.UNKNOWN_UNIT)
            return
        unit.parked.append(request)
        self._parked += 1

    def _unpark(self, unit: Unit) -> None:
        """Queue what was set aside, before everything else."""
        self._parked -= len(unit.parked)
        self._waiting.push_front(unit.parked)
        unit.parked = []

    def _identified(self, name: str, completion: Completion, data: Buffer) -> None:
        unit = self.units[name]
        known = unit.identity
        unit.problem = self._problem(name, completion.status, data)
        if not unit.problem:
            unit.number, unit.identity = completion.value & _UNIT_MASK, UnitIdentity.unpack(data)
            if known not in (None, unit.identity):
                self.notes.append(f"controller {self.controller}: unit '{name}' was {known}, is {unit.identity}")
        elif known is not None:
            self.notes.append(f"{unit.problem}; requests to it end with an error")
        self._unpark(unit)

    def _problem(self, name: str, status: Status, identity: Buffer) -> str:
        """What is wrong with the answer to IDENTIFY, empty for nothing."""
        if status is not Status.OK:
            return f"controller {self.controller} has no unit '{name}' ({status.name.lower()})"
        try:
            block_bytes = UnitIdentity.unpack(identity).block_bytes
        except DecodeError as error:
            return f"controller {self.controller} identifies '{name}' wrongly ({error})"
        return "" if block_bytes else f"controller {self.controller} identifies '{name}' wrongly (blocks of 0 bytes)"


def _nothing(status: Status, data: Buffer, now_ns: int) -> None:
    """Nobody waits for this completion any more."""
