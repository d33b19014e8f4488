"""What every controller core shares: queue pairs, arbitration, and requests that take effect once.

Theory of operation. A queue pair is the way of one peer (a hypervisor or driver domain) to the controller. Commands
wait in its submission queue until arbitration takes them, are in flight until `QueuePairs.complete`, and their
completions leave as one batch per handled event.

Exactly once. A request id that is in flight is ignored when it comes again: its completion is still to come. The
completions of commands that change something are remembered, the last `credits` of each pair, and sent again when
their ids come again; commands that only look (READ, IDENTIFY, FLUSH) are simply done again. The window suffices
because a peer has at most `credits` requests in flight and gets completions in the order they were sent, so what it
has not seen is a suffix of them that is no longer than its credits.

A pair that closes keeps its state, and completions that fall due wait for it; when the peer comes back in the same
life they are sent, when it comes back in a new one (``resumed=False``) everything of the old life is dropped.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from iovirt_dist.ids import RequestId
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES, Buffer
from iovirt_dist.wire.commands import MAX_BATCH, MAX_DATA_BYTES, WITH_DATA_OUT, Command, Completion, Opcode, Status

MAX_CLOSED_PAIRS: Final = 64
"""Closed queue pairs whose state is kept; beyond it the one that opened first is forgotten."""

NO_LIMIT: Final = 1 << 62

_REMEMBERED: Final = frozenset({Opcode.WRITE, Opcode.DISCARD, Opcode.CONSOLE_TRANSMIT, Opcode.CONSOLE_RECEIVE})
"""Opcodes that must not be done twice. A receive is one of them: it takes input away."""


@dataclass(frozen=True, slots=True)
class QueuePairOpened:
    """A peer's session stands.

    Attributes:
        pair: Number by which the runtime knows the session; a peer may come back under another.
        peer: The peer's name.
        resumed: The peer lives the same life as before and this controller still holds its state.
    """

    pair: int
    peer: str
    resumed: bool


@dataclass(frozen=True, slots=True)
class QueuePairClosed:
    """A peer is gone or out of reach."""

    pair: int


@dataclass(frozen=True, slots=True)
class CommandsSubmitted:
    """A batch of commands came in.

    Attributes:
        pair: Queue pair.
        commands: In order of submission.
        payload: One buffer for each command that carries data out, in their order.
    """

    pair: int
    commands: list[Command]
    payload: list[Buffer]


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A deadline passed; the controllers of this package set none."""


@dataclass(frozen=True, slots=True)
class CompleteCommands:
    """Send a batch of completions; the pair is open.

    Attributes:
        pair: Queue pair.
        completions: At most 1024, in order.
        payload: One buffer for each completion of nonzero length, together at most 16 MiB.
    """

    pair: int
    completions: list[Completion]
    payload: list[Buffer]


PairEvent = QueuePairOpened | QueuePairClosed | CommandsSubmitted | TimerFired


@dataclass(slots=True)
class Counts:
    """What happened at the queue pairs since the start.

    Attributes:
        commands: Commands accepted.
        completions: Completions sent or kept for a closed pair.
        repeated_in_flight: Commands ignored because they were in flight already.
        repeated_done: Commands answered from memory.
        queue_full: Commands refused because the pair had its credits in flight.
        strays: Commands of pairs that are not open, ignored.
    """

    commands: int = 0
    completions: int = 0
    repeated_in_flight: int = 0
    repeated_done: int = 0
    queue_full: int = 0
    strays: int = 0


@dataclass(slots=True, eq=False)
class QueuePair:
    """State of one peer.

    Attributes:
        peer: Its name.
        number: Number of the open session, None while closed.
        abandoned: The peer's next life has begun; nothing of this one is sent any more.
        in_flight: Accepted and not completed.
        queue: Accepted and not taken by arbitration.
        scheduled: Whether arbitration has the pair in its circle.
        remembered: Completions to send again, oldest first.
        completions: To be sent with the next batch.
        payload: Data of `completions`.
        payload_bytes: Sum of `payload`.
    """

    peer: str
    number: int | None = None
    abandoned: bool = False
    in_flight: dict[RequestId, Request] = field(default_factory=dict)
    queue: deque[Request] = field(default_factory=deque)
    scheduled: bool = False
    remembered: OrderedDict[RequestId, tuple[Completion, Buffer]] = field(default_factory=OrderedDict)
    completions: list[Completion] = field(default_factory=list)
    payload: list[Buffer] = field(default_factory=list)
    payload_bytes: int = 0


@dataclass(slots=True, eq=False)
class Request:
    """A command in flight.

    Attributes:
        command: As submitted.
        data: Its payload, empty for opcodes without.
        pair: Where it came from and where its completion goes.
    """

    command: Command
    data: Buffer
    pair: QueuePair


class QueuePairs:
    """The queue pairs of one controller.

    Args:
        queue_credits: Most commands that a pair may have in flight; more are completed with QUEUE_FULL.
        burst: Most commands taken from one pair before the next has its turn: Arbitration Burst (NVM Express Base
            Specification 2.0, section 3.4.4.1, "Round Robin Arbitration").
    """

    def __init__(self, queue_credits: int, burst: int) -> None:
        self.counts = Counts()
        self.queue_credits = queue_credits
        self._burst = burst
        self._peers: dict[str, QueuePair] = {}
        self._open: dict[int, QueuePair] = {}
        self._ready: deque[QueuePair] = deque()
        self._answering: list[QueuePair] = []

    def remembers(self, peer: str) -> bool:
        """Whether state of this peer is held, so that its session can be resumed."""
        return peer in self._peers

    def opened(self, event: QueuePairOpened) -> None:
        """Take up the peer's state, or start afresh."""
        self.closed(QueuePairClosed(event.pair))
        pair = self._peers.pop(event.peer, None)
        if pair is not None and pair.number is not None:
            del self._open[pair.number]
        if pair is None or not event.resumed:
            if pair is not None:
                _abandon(pair)
            pair = QueuePair(event.peer)
        pair.number = event.pair
        self._peers[event.peer] = self._open[event.pair] = pair
        if pair.completions:
            self._answering.append(pair)

    def closed(self, event: QueuePairClosed) -> None:
        """Keep the state of the pair; what is in flight goes on."""
        pair = self._open.pop(event.pair, None)
        if pair is None:
            return
        pair.number = None
        if len(self._peers) - len(self._open) > MAX_CLOSED_PAIRS:
            oldest = next(peer for peer, known in self._peers.items() if known.number is None)
            _abandon(self._peers.pop(oldest))

    def submit(self, event: CommandsSubmitted) -> None:
        """Queue what is new; answer or ignore what is known."""
        pair = self._open.get(event.pair)
        if pair is None:
            self.counts.strays += len(event.commands)
            return
        payload = iter(event.payload)
        in_flight = pair.in_flight
        for command in event.commands:
            data = next(payload, b"") if command.opcode in WITH_DATA_OUT else b""
            if command.id in in_flight:
                self.counts.repeated_in_flight += 1
            elif command.id in pair.remembered:
                self.counts.repeated_done += 1
                self._send(pair, *pair.remembered[command.id])
            elif len(in_flight) >= self.queue_credits:
                self.counts.queue_full += 1
                self._send(pair, Completion(command.id, Status.QUEUE_FULL), b"")
            else:
                self.counts.commands += 1
                request = in_flight[command.id] = Request(command, data, pair)
                pair.queue.append(request)
        if pair.queue and not pair.scheduled:
            pair.scheduled = True
            self._ready.append(pair)

    def take(self, room: int, room_bytes: int = NO_LIMIT) -> list[Request]:
        """Take commands by round robin between the pairs, a burst from each.

        Args:
            room: Most commands to take.
            room_bytes: Stop once the commands taken move this many bytes; the last one may exceed it.
        """
        taken: list[Request] = []
        ready = self._ready
        while ready and room > 0 and room_bytes > 0:
            pair = ready.popleft()
            queue = pair.queue
            turn = min(self._burst, room, len(queue))
            while turn > 0 and room_bytes > 0:
                request = queue.popleft()
                taken.append(request)
                turn -= 1
                room -= 1
                room_bytes -= min(request.command.length, MAX_DATA_BYTES)
            if queue:
                ready.append(pair)
            else:
                pair.scheduled = False
        return taken

    def complete(self, request: Request, status: Status, data: Buffer = b"", value: int = 0) -> None:
        """End a request; its completion leaves with the next `collect`."""
        command, pair = request.command, request.pair
        pair.in_flight.pop(command.id, None)
        completion = Completion(command.id, status, len(data), value)
        if command.opcode in _REMEMBERED and status is not Status.QUEUE_FULL:
            pair.remembered[command.id] = (completion, data)
            if len(pair.remembered) > self.queue_credits:
                pair.remembered.popitem(last=False)
        self._send(pair, completion, data)

    def collect(self) -> list[CompleteCommands]:
        """Return what is to be sent, one batch per open pair (more where a batch would exceed the wire's bounds)."""
        actions: list[CompleteCommands] = []
        for pair in self._answering:
            if pair.number is None or not pair.completions:
                continue
            if len(pair.completions) <= MAX_BATCH and pair.payload_bytes <= MAX_PAYLOAD_BYTES:
                actions.append(CompleteCommands(pair.number, pair.completions, pair.payload))
            else:
                actions += _split(pair.number, pair.completions, pair.payload)
            pair.completions, pair.payload, pair.payload_bytes = [], [], 0
        self._answering.clear()
        return actions

    def _send(self, pair: QueuePair, completion: Completion, data: Buffer) -> None:
        if pair.abandoned:
            return
        self.counts.completions += 1
        if not pair.completions:
            self._answering.append(pair)
        pair.completions.append(completion)
        if completion.length:
            pair.payload.append(data)
            pair.payload_bytes += completion.length


def _abandon(pair: QueuePair) -> None:
    """Drop everything of a life that is over; what runs at the medium ends into nothing."""
    pair.abandoned = True
    pair.number = None
    for stale in (pair.queue, pair.in_flight, pair.remembered, pair.completions, pair.payload):
        stale.clear()


def _split(number: int, completions: list[Completion], payload: list[Buffer]) -> Iterator[CompleteCommands]:
    """Cut one pair's completions into batches within `MAX_BATCH` and `MAX_PAYLOAD_BYTES`."""
    frames = iter(payload)
    batch: list[Completion] = []
    data: list[Buffer] = []
    room_bytes = MAX_PAYLOAD_BYTES
    for completion in completions:
        if len(batch) == MAX_BATCH or completion.length > room_bytes:
            yield CompleteCommands(number, batch, data)
            batch, data, room_bytes = [], [], MAX_PAYLOAD_BYTES
        batch.append(completion)
        if completion.length:
            data.append(next(frames))
            room_bytes -= completion.length
    yield CompleteCommands(number, batch, data)
