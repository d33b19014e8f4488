"""A hypervisor's end of a controller's queue pair.

Theory of operation. Requests wait in the mux, are submitted in batches as far as the controller's credits go, and
stay in the in-flight table until their completion comes: the table lives here, with the requester. A controller that
goes away keeps nobody's requests: when it is back, units are identified again and everything in flight is submitted
again under the same ids, in the same order; a controller that was only out of reach recognises what it did already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from iovirt_dist.errors import DecodeError
from iovirt_dist.ids import RequestId
from iovirt_dist.mux.fifo import Fifo
from iovirt_dist.wire.codec import Buffer
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

OnComplete = Callable[[Status, Buffer, int], None]
"""Called once with the outcome of a request: status, data that came back, time in ns."""

OWN = 0
"""Guest instance number of the hypervisor's own commands."""


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
    """

    number: int | None = None
    identity: UnitIdentity | None = None
    problem: str = ""


class QueuePair:
    """Requests of one hypervisor to one controller.

    Args:
        controller: Its name, for messages.
        bound: Most requests that wait before credits allow them out.
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
            if self.connected:
                self._identify(unit)
        return known

    def submit(self, request: Request) -> bool:
        """Queue a request; False when the bound is reached."""
        return self._waiting.push(request)

    def opened(self, peer_credits: int, resumed: bool) -> None:
        """The controller is there; `resumed`: it still knows what was submitted."""
        self.connected = True
        self._credits = peer_credits
        if resumed:
            return
        again = [request for request in self._in_flight.values() if request.id.guest != OWN]
        self._in_flight.clear()
        self.resubmitted += len(again)
        self._waiting.push_front(again)
        for name, unit in self.units.items():
            unit.number = None
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
        commands: list[Command] = []
        payload: list[Buffer] = []
        not_ready: list[Request] = []
        for request in self._waiting.take(room):
            number = 0 if request.opcode is Opcode.IDENTIFY else self.units[request.unit].number
            if number is None:
                not_ready.append(request)
                continue
            commands.append(Command(request.id, request.opcode, number, request.offset, request.length))
            if request.opcode in WITH_DATA_OUT:
                payload.append(request.data)
            self._in_flight[request.id] = request
        self._waiting.push_front(not_ready)
        if not commands:
            return None
        self.submitted += len(commands)
        self.batches += 1
        return Submit(pack_commands(commands)), payload

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
        for id_, request in self._in_flight.items():
            if id_.guest == guest:
                self._in_flight[id_] = request._replace(on_complete=_nothing)

    def _identify(self, unit: str) -> None:
        self._own_sequence += 1
        id_ = RequestId(OWN, 0, self._own_sequence)
        name = unit.encode()
        self._waiting.push_front([Request(id_, Opcode.IDENTIFY, unit, 0, len(name), name, _nothing)])

    def _identified(self, name: str, completion: Completion, data: Buffer) -> None:
        unit = self.units[name]
        if completion.status is not Status.OK:
            unit.problem = f"controller {self.controller} has no unit '{name}' ({completion.status.name.lower()})"
            return
        try:
            identity = UnitIdentity.unpack(data)
        except DecodeError as error:
            unit.problem = f"controller {self.controller} identifies '{name}' wrongly ({error})"
            return
        unit.number, unit.identity, unit.problem = completion.value, identity, ""


def _nothing(status: Status, data: Buffer, now_ns: int) -> None:
    """Nobody waits for this completion any more."""
