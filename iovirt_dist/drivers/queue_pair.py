"""A hypervisor's end of a controller's queue pair.

Theory of operation. Requests wait in the mux, are submitted in batches as far as the controller's credits go, and
stay in the in-flight table until their completion comes: the table lives here, with the requester. A controller that
goes away keeps nobody's requests: when it is back, units are identified again and everything in flight is submitted
again under the same ids, in the same order; a controller that was only out of reach recognises what it did already.
Only frames of a network are not: they end with ABORTED, as lost frames do no harm and frames sent twice may.
Requests for a unit that is not identified (again) yet wait beside the queue, so that they hold nobody else up. A unit
that the controller no longer has, or a full queue, ends a request with an error; it is told by `settle`, at the end of
the step and never from inside `submit`.
"""

from __future__ import annotations

from collections.abc import Sequence

from iovirt_dist.drivers.merging import Merging, unmerged
from iovirt_dist.drivers.request import NOBODY, DeviceQueue, Request, Requester, Unit, identification_problem
from iovirt_dist.ids import RequestId
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES, Buffer
from iovirt_dist.wire.commands import (
    LOST_WITH_CONTROLLER,
    MAX_BATCH,
    MAX_DATA_BYTES,
    WITH_DATA_OUT,
    CommandFields,
    Completion,
    Opcode,
    Status,
    UnitIdentity,
    completion_data,
    pack_commands,
    unpack_completions,
)
from iovirt_dist.wire.messages import Complete, Submit
from iovirt_dist.wire.payload import cut_payload, holds_whole, join_pieces

_UNIT_MASK = 0xFFFF_FFFF
"""Unit numbers are 32 bits wide in commands."""

OWN = 0
"""Guest instance number of the hypervisor's own commands."""

PARTS = 4
"""Of what may be in flight, a part must be free before more is submitted: messages cost more than requests."""

MAX_IN_FLIGHT = 2048
"""Most requests in flight whatever the credits: each may be a message, and the session's window is 4096 messages."""


class QueuePair:
    """Requests of one hypervisor to one controller.

    Args:
        controller: Its name, for messages.
        queue: Where requests wait, which decides whose goes first; if None, guests take turns as far as credits go.
        merge: Whether requests of a guest's device queue that touch or overlap become one command.

    Attributes:
        queue: That queue.
        refused: Requests that ended without reaching the controller; `settle` tells their requesters.
        notes: Lines for the log, until somebody takes them.
        ended: Instances whose requests ended, `OWN` if units were identified, until somebody takes them.
    """

    def __init__(self, controller: str, queue: MultiQueue[Request] | None = None, *, merge: bool = False) -> None:
        self.controller = controller
        self.queue: MultiQueue[Request] = MultiQueue(depth=0) if queue is None else queue
        self.connected = False
        self.units: dict[str, Unit] = {}
        self.submitted = 0
        self.completed = 0
        self.resubmitted = 0
        self.batches = 0
        self.interrupts = 0
        self.refused: list[tuple[Request, Status]] = []
        self.notes: list[str] = []
        self.ended: set[int] = set()
        self._credits = 0
        self._in_flight: dict[bytes, Request] = {}
        self._merging = Merging(self.queue, self._in_flight) if merge else None
        self._queues: list[DeviceQueue] = []
        self._own_sequence = 0
        self._to_identify: list[str] = []
        self._identifying: dict[bytes, str] = {}

    @property
    def in_flight(self) -> int:
        """Commands submitted and not completed."""
        return len(self._in_flight) + len(self._identifying)

    @property
    def credits(self) -> int:
        """Commands that the controller lets be in flight; 0 before it was there the first time."""
        return self._credits

    @property
    def merged(self) -> int:
        """Requests that left as a part of another's command."""
        return self._merging.merged if self._merging is not None else 0

    def use(self, unit: str) -> Unit:
        """Say that a unit will be used; it is identified as soon as the controller is there."""
        known = self._unit(unit)
        if not known.used:
            known.used = True
            self._to_identify.append(unit)
        return known

    def device_queue(self, unit: str, guest: int, number: int, requester: Requester) -> DeviceQueue:
        """Make a queue for the requests of a guest's device.

        Args:
            unit: Name of the extent or terminal behind it.
            guest: Instance number of the guest; above 0.
            number: Number of the queue within the guest; its requests' ids begin with these two.
            requester: Who hears how they end.
        """
        queue = DeviceQueue(guest, number, self._unit(unit), requester, self.queue.entry(guest), self._refuse)
        self._queues.append(queue)
        return queue

    @property
    def pending(self) -> bool:
        """Whether `take_batch` or `settle` may have something to do."""
        return bool(self.queue or self.refused or self._to_identify)

    def settle(self, now_ns: int) -> None:
        """Tell the requesters of refused requests."""
        refused, self.refused = self.refused, []
        for request, status in refused:
            self.ended.add(request.queue.guest)
            request.queue.requester.completed(request, status, b"", now_ns)

    def opened(self, peer_credits: int, resumed: bool) -> None:
        """The controller is there; `resumed`: it still knows what was submitted."""
        self.connected = True
        self._credits = min(peer_credits, MAX_IN_FLIGHT)
        if resumed:
            return
        again = [request for request in self._in_flight.values() if request.opcode not in LOST_WITH_CONTROLLER]
        again = unmerged(again)
        for request in self._in_flight.values():
            if request.opcode in LOST_WITH_CONTROLLER:
                self._end(request, Status.ABORTED)
        self._in_flight.clear()
        self._identifying.clear()
        self.resubmitted += len(again)
        for unit in self.units.values():
            unit.number, unit.problem = None, ""
            self._unpark(unit)
        self.queue.push_front(again)
        self._to_identify = [name for name, unit in self.units.items() if unit.used]

    def lost(self) -> None:
        """The controller is out of reach; requests wait."""
        self.connected = False

    def ready_ns(self) -> int | None:
        """When `take_batch` will have more for the passing of time alone; None for never."""
        return self.queue.ready_ns() if self.connected else None

    def take_batch(self, now_ns: int) -> tuple[Submit, list[Buffer]] | None:
        """Return the next batch to submit, None while there is nothing, or nothing that may go now."""
        if not self.connected:
            return None
        queue = self.queue
        queue.arrived(now_ns)
        limit = min(self._credits, queue.window(now_ns))
        room = min(limit - self.in_flight, MAX_BATCH)
        if queue.depth and limit > PARTS and not self._to_identify:  # where commands are parked none may end for long
            room -= room % (limit // PARTS)
        if room <= 0:
            return None
        commands: list[CommandFields] = []
        data: list[Buffer] = []
        if self._to_identify:
            self._identify(room, commands, data)
        asked = len(commands)
        while len(commands) == asked < room and (taken := queue.take(room - asked, now_ns)):
            self._start(taken, commands, data)  # again if all of them were set aside
        if not commands:
            return None
        self.submitted += len(commands)
        self.batches += 1
        return Submit(pack_commands(commands)), join_pieces(data)

    def complete(self, message: Complete, payload: Sequence[Buffer], now_ns: int) -> None:
        """Take a batch of completions and tell each requester.

        Raises:
            DecodeError: The batch is malformed; nothing of it was taken.
        """
        completions = unpack_completions(message.completions)
        if self._complete_at_once(completions, payload, now_ns):
            self.interrupts = max(self.interrupts, message.interrupts)
            return
        pieces = completion_data(completions, payload)
        self.interrupts = max(self.interrupts, message.interrupts)
        take = self._in_flight.pop
        for completion, data in zip(completions, pieces, strict=True):
            request = take(completion[0], None)
            if request is None:
                self._identified(completion, data)
            else:
                self.completed += 1
                queue = request.queue
                queue.entry.in_flight -= 1
                self.ended.add(queue.guest)
                queue.requester.completed(request, completion[1], data, now_ns)

    def _complete_at_once(self, completions: list[Completion], payload: Sequence[Buffer], now_ns: int) -> bool:
        """Take a batch as one for each requester in a row; if not all of it is good, do nothing and return False."""
        known, good = self._in_flight, Status.OK
        requests: dict[bytes, Request] = {}
        lengths: list[int] = []
        rows: list[tuple[DeviceQueue, int]] = []
        queue: DeviceQueue | None = None
        for id_, status, length, _ in completions:
            request = known.get(id_)
            if request is None or status is not good:
                return False
            if request.queue is not queue:
                queue = request.queue
                if queue.batches is None:
                    return False
                rows.append((queue, len(lengths)))
            requests[id_] = request
            lengths.append(length)
        if len(requests) < len(lengths) or not holds_whole(payload, lengths):
            return False
        for id_ in requests:
            del known[id_]
        self.completed += len(requests)
        self._succeeded(rows, list(requests.values()), lengths, payload, now_ns)
        return True

    def _succeeded(
        self,
        rows: list[tuple[DeviceQueue, int]],
        requests: list[Request],
        lengths: list[int],
        payload: Sequence[Buffer],
        now_ns: int,
    ) -> None:
        """Tell requesters, each of a row of requests; `rows` says whose they are, from which one on."""
        if len(rows) == 1:
            self._row_succeeded(rows[0][0], requests, lengths, payload, now_ns)
            return
        starts = [start for _, start in rows]
        spans = list(zip(starts, [*starts[1:], len(requests)], strict=True))
        parts = cut_payload(payload, [sum(lengths[start:end]) for start, end in spans])
        for (queue, _), (start, end), frames in zip(rows, spans, parts, strict=True):
            self._row_succeeded(queue, requests[start:end], lengths[start:end], frames, now_ns)

    def _row_succeeded(
        self,
        queue: DeviceQueue,
        requests: list[Request],
        lengths: list[int],
        payload: Sequence[Buffer],
        now_ns: int,
    ) -> None:
        queue.entry.in_flight -= len(requests)
        self.ended.add(queue.guest)
        if queue.batches is not None:
            queue.batches.succeeded_many(requests, lengths, payload, now_ns)

    def forget(self, guest: int) -> None:
        """Drop what a guest instance has waiting; what is in flight completes into nothing."""
        for queue in self._queues:
            if queue.guest == guest:
                queue.requester, queue.batches = NOBODY, None
        self._queues = [queue for queue in self._queues if queue.guest != guest]
        self.queue.drop(guest)
        if self._merging is not None:
            self._merging.forget(guest)
        self.refused = [entry for entry in self.refused if entry[0].guest != guest]
        for unit in self.units.values():
            for request in unit.parked:
                request.queue.entry.in_flight -= request.guest == guest
            unit.parked = [request for request in unit.parked if request.guest != guest]

    def hold(self, unit: str) -> None:
        """Say that a guest has a unit."""
        self._unit(unit).holders += 1

    def let_go(self, unit: str) -> None:
        """Say that a guest is gone for good; what no other has is forgotten, once its requests were (`forget`)."""
        known = self._unit(unit)
        known.holders -= 1
        if known.holders <= 0:
            del self.units[unit]
            # What is in flight may be submitted to another life of the controller, where the number may be another's.
            known.number, known.problem = None, f"unit '{unit}' has no guest any more"
            self._to_identify = [name for name in self._to_identify if name != unit]

    def ask_again(self, unit: str) -> None:
        """Ask once more for a unit that the controller did not have: it may have it by now."""
        if self._unit(unit).problem and unit not in self._to_identify and unit not in self._identifying.values():
            self._to_identify.append(unit)

    def ask_all_again(self) -> None:
        """Ask once more for all units that are known: the controller says that one has changed."""
        asking = {*self._to_identify, *self._identifying.values()}
        self._to_identify += [name for name, unit in self.units.items() if unit.identity and name not in asking]

    def _unit(self, name: str) -> Unit:
        unit = self.units.get(name)
        if unit is None:
            unit = self.units[name] = Unit()
        return unit

    def _refuse(self, request: Request, status: Status) -> None:
        """End a request that was not queued; its requester hears of it from `settle`."""
        self.refused.append((request, status))

    def _end(self, request: Request, status: Status) -> None:
        """End a request that was taken from the queue and was not submitted, or is void; else as `_refuse`."""
        request.queue.entry.in_flight -= 1
        self.refused.append((request, status))

    def _identify(self, room: int, commands: list[CommandFields], data: list[Buffer]) -> None:
        """Ask for units, before everything else."""
        names, self._to_identify = self._to_identify[:room], self._to_identify[room:]
        for unit in names:
            self._own_sequence += 1
            id_ = RequestId(OWN, 0, self._own_sequence).pack()
            name = unit.encode()
            commands.append((id_, Opcode.IDENTIFY, 0, 0, len(name)))
            data.append(name)
            self._identifying[id_] = unit

    def _start(self, taken: list[Request], commands: list[CommandFields], data: list[Buffer]) -> None:
        """Make commands of requests, as many as one message carries; put back the others."""
        if self._merging is not None:
            taken = self._merging.commands(taken)
        in_flight = self._in_flight
        room_bytes = MAX_PAYLOAD_BYTES - sum(map(len, data))
        for at, request in enumerate(taken):
            id_, opcode, length = request.id, request.opcode, request.length
            number = request.queue.unit.number
            if number is None:
                self._park(request)
                continue
            if opcode in WITH_DATA_OUT:
                length = len(request.data)
                if length > MAX_DATA_BYTES:
                    self._end(request, Status.BAD_LENGTH)
                    continue
                room_bytes -= length
                if room_bytes < 0:
                    self.queue.push_front(unmerged(taken[at:]))
                    return
                data.append(request.data)
            commands.append((id_, opcode, number, request.offset, length))
            in_flight[id_] = request

    def _park(self, request: Request) -> None:
        """Set a request aside until its unit is identified; a unit that has a problem takes none."""
        unit = request.queue.unit
        if unit.problem:
            self._end(request, Status.UNKNOWN_UNIT)
        elif request.queue.parked >= self.queue.bound:
            self._end(request, Status.QUEUE_FULL)
        else:
            request.queue.parked += 1
            unit.parked.append(request)

    def _unpark(self, unit: Unit) -> None:
        """Queue what was set aside, before everything else."""
        for request in unit.parked:
            request.queue.parked = 0
        self.queue.push_front(unit.parked)
        unit.parked = []

    def _identified(self, completion: Completion, data: Buffer) -> None:
        """Take what the controller tells of a unit; a completion of anything else answers nothing that was asked."""
        name = self._identifying.pop(completion.id, None)
        if name is None:
            return
        self.completed += 1
        self.ended.add(OWN)
        unit = self.units.get(name)
        if unit is None:
            return
        known = unit.identity
        unit.problem = identification_problem(self.controller, name, completion.status, data)
        if not unit.problem:
            unit.number, unit.identity = completion.value & _UNIT_MASK, UnitIdentity.unpack(data)
            if known not in (None, unit.identity):
                self.notes.append(f"controller {self.controller}: unit '{name}' was {known}, is {unit.identity}")
        elif known is not None:
            self.notes.append(f"{unit.problem}; requests to it end with an error")
        self._unpark(unit)
