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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple

from iovirt_dist.controllers.arbitration import UNLIMITED, Arbiter
from iovirt_dist.controllers.peer_queues import CompletionBatch, OutstandingCommand, PeerQueues, Remembered
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import (
    WITH_DATA_OUT,
    Command,
    Completion,
    Opcode,
    Status,
)

MAX_CLOSED_PAIRS: Final = 64
"""Closed queue pairs whose state is kept; beyond it the one that opened first is forgotten."""

NO_LIMIT: Final = UNLIMITED
"""Room of a device that takes everything at once."""

CONTENDED_DEPTH: Final = 32
"""So many commands may be in a device in any case while peers with weights compete: a batch."""

_queues_of = attrgetter("queues")

_new = tuple.__new__
"""Makes a NamedTuple in a third of the time."""

_REMEMBERED: Final = frozenset(
    {
        Opcode.WRITE,
        Opcode.DISCARD,
        Opcode.WRITE_ZEROES,
        Opcode.CONSOLE_TRANSMIT,
        Opcode.CONSOLE_RECEIVE,
        Opcode.NET_TRANSMIT,
    }
)
"""Opcodes that must not be done twice. A console's receive is one of them: it takes input away. So does a network's,
but a frame may be lost."""


@dataclass(frozen=True, slots=True)
class QueuePairOpened:
    """A peer's session stands.

    Attributes:
        pair: Number by which the runtime knows the session; a peer may come back under another.
        peer: The peer's name.
        resumed: The peer lives the same life as before and this controller still holds its state.
        epoch: Which life.
    """

    pair: int
    peer: str
    resumed: bool
    epoch: int = 0


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
    """The deadline that the device core gave has come, or any earlier time."""


@dataclass(frozen=True, slots=True)
class CompleteCommands:
    """Send a batch of completions; the pair is open.

    Attributes:
        pair: Queue pair.
        completions: At most 1024, in order.
        payload: Frames with their data, together at most 16 MiB: see `wire.payload`.
    """

    pair: int
    completions: list[Completion]
    payload: list[Buffer]


PairEvent = QueuePairOpened | QueuePairClosed | CommandsSubmitted | TimerFired


@dataclass(slots=True)
class QueueCounts:
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


class PairShare(NamedTuple):
    """What a peer has had of the device.

    Attributes:
        weight: Its share.
        open: Whether its session stands.
        commands: Commands taken from its queue in this life.
        bytes: Bytes that they move.
        waiting: Commands that arbitration has not taken yet.
        in_flight: Commands not completed, with those that wait.
    """

    weight: int
    open: bool
    commands: int
    bytes: int
    waiting: int
    in_flight: int


class QueuePairs:
    """The queue pairs of one controller.

    Args:
        queue_credits: Most commands that a pair may have in flight; more are completed with QUEUE_FULL.
        burst: Most commands taken from one pair before the next has its turn (see `arbitration`).
        weights: Shares of the peers, 1..255 by name; a peer without has 1.
    """

    def __init__(self, queue_credits: int, burst: int, weights: Mapping[str, int] | None = None) -> None:
        self.counts = QueueCounts()
        self.queue_credits = queue_credits
        self._arbiter = Arbiter(burst)
        self._arbiter.set_weights(weights or {})
        self._paced = False
        self._peers: dict[str, PeerQueues] = {}
        self._open: dict[int, PeerQueues] = {}
        self._answering: list[PeerQueues] = []

    def remembers(self, peer: str) -> bool:
        """Whether state of this peer is held, so that its session can be resumed."""
        return peer in self._peers

    def knows(self, pair: int, id_: bytes) -> bool:
        """Whether a command of this id is in flight at an open pair, or its completion is remembered there."""
        queues = self._open.get(pair)
        return queues is not None and (id_ in queues.outstanding or id_ in queues.remembered)

    def set_weights(self, weights: Mapping[str, int]) -> None:
        """Set the peers' shares from now on, as `weights` of the constructor."""
        self._arbiter.set_weights(weights)
        self._set_pace()

    def shares(self) -> dict[str, PairShare]:
        """What each known peer has had of the device."""
        return {
            queues.peer: PairShare(
                self._arbiter.weight(queues.peer),
                queues.number is not None,
                queues.taken_commands,
                queues.taken_bytes,
                len(queues.submission),
                len(queues.outstanding),
            )
            for queues in self._peers.values()
        }

    def opened(self, event: QueuePairOpened) -> None:
        """Take up the peer's state, or start afresh."""
        self.closed(QueuePairClosed(event.pair))
        queues = self._peers.pop(event.peer, None)
        if queues is not None and queues.number is not None:
            del self._open[queues.number]
        if queues is None or not event.resumed:
            old, queues = queues, PeerQueues(event.peer, event.epoch)
            if old is not None:
                old.abandon()
                queues.account = old.account
        queues.number = event.pair
        self._peers[event.peer] = self._open[event.pair] = queues
        self._set_pace()
        if queues.completion:
            self._answering.append(queues)

    def closed(self, event: QueuePairClosed) -> None:
        """Keep the state of the pair; what is in flight goes on."""
        queues = self._open.pop(event.pair, None)
        if queues is None:
            return
        queues.number = None
        self._set_pace()
        if len(self._peers) - len(self._open) > MAX_CLOSED_PAIRS:
            oldest = next(peer for peer, known in self._peers.items() if known.number is None)
            self._peers.pop(oldest).abandon()

    def submit(self, event: CommandsSubmitted) -> None:
        """Queue what is new; answer or ignore what is known."""
        queues = self._open.get(event.pair)
        if queues is None:
            self.counts.strays += len(event.commands)
            return
        new = [OutstandingCommand(*command, b"", queues) for command in event.commands]
        if event.payload:
            data = iter(event.payload)
            for command in new:
                if command.opcode in WITH_DATA_OUT:
                    command.data = next(data, b"")
        by_id = {command.id: command for command in new}
        outstanding = queues.outstanding
        if (
            len(by_id) != len(new)
            or len(outstanding) + len(new) > self.queue_credits
            or not outstanding.keys().isdisjoint(by_id)
            or not queues.remembered.keys().isdisjoint(by_id)
        ):
            new = [command for command in new if self._accepts(queues, command)]
        else:
            outstanding.update(by_id)
        self.counts.commands += len(new)
        queues.submission.extend(new)
        if queues.submission and not queues.scheduled:
            self._arbiter.enter(queues)

    @property
    def waiting(self) -> bool:
        """Whether there is something to `take`."""
        return bool(self._arbiter)

    @property
    def paced(self) -> bool:
        """Whether shares may be at stake: peers of different weights are there.

        What a device has taken can be arbitrated no more, and what is in the socket not yet. So a device that could
        take everything as it comes should then wait, so that weights have an effect, until all messages that are there
        were received, and that is when the `deadline_ns` comes that it gives; and take no more than `room`.
        """
        return self._paced

    def room(self, most: int) -> int:
        """How many of `most` commands a device may take.

        Where peers compete by weight, so few that nobody's share is more than three quarters of what he has in flight:
        the rest waits where it can be arbitrated.
        """
        if not self.paced:
            return most
        busy = [queues for queues in self._peers.values() if queues.outstanding]
        if len(busy) < 2:
            return most
        weight = self._arbiter.weight
        total = sum([weight(queues.peer) for queues in busy])
        fair = min([len(queues.outstanding) * total // weight(queues.peer) for queues in busy]) * 3 // 4
        inside = sum([len(queues.outstanding) - len(queues.submission) for queues in busy])
        return max(min(max(fair, CONTENDED_DEPTH) - inside, most), 0)

    def take(self, room: int, room_bytes: int = NO_LIMIT) -> list[OutstandingCommand]:
        """Take commands by weighted round robin between the pairs, a burst from each.

        Args:
            room: Most commands to take.
            room_bytes: Stop once the commands taken move this many bytes; the last one may exceed it.
        """
        return self._arbiter.take(room, room_bytes)

    def complete(self, command: OutstandingCommand, status: Status, data: Buffer = b"", value: int = 0) -> None:
        """End a command; its completion leaves with the next `collect`."""
        id_, queues = command.id, command.queues
        queues.outstanding.pop(id_, None)
        completion = _new(Completion, (id_, status, len(data), value))
        if command.opcode in _REMEMBERED and status is not Status.QUEUE_FULL:
            queues.remembered[id_] = Remembered(completion, data)
            if len(queues.remembered) > self.queue_credits:
                queues.remembered.popitem(last=False)
        self._send(queues, completion, data)

    def complete_reads(self, commands: list[OutstandingCommand], buffer: Buffer, end: int) -> None:
        """End READs of one peer that succeeded.

        Args:
            commands: The commands, one or more, and no more than one message completes.
            buffer: Holds their data in a row, and maybe others'; nobody changes it any more.
            end: Where the data of the last one ends.
        """
        queues = commands[0].queues
        outstanding = queues.outstanding
        completions = [_new(Completion, (command.id, Status.OK, command.length, 0)) for command in commands]
        for command in commands:
            outstanding.pop(command.id, None)
        if queues.abandoned:
            return
        length = sum([command.length for command in commands])
        self.counts.completions += len(completions)
        self._batch(queues, len(completions), length).add(completions, buffer, end - length, end)

    def complete_plain(self, commands: Sequence[OutstandingCommand]) -> None:
        """End commands that succeeded, bring nothing back, and may be done again when their ids come again.

        Args:
            commands: At most as many as one message completes.
        """
        for queues, group in groupby(commands, _queues_of):
            row = list(group)
            for command in row:
                queues.outstanding.pop(command.id, None)
            if not queues.abandoned:
                self.counts.completions += len(row)
                completions = [_new(Completion, (command.id, Status.OK, 0, 0)) for command in row]
                self._batch(queues, len(row), 0).add(completions, b"", 0, 0)

    def collect(self) -> list[CompleteCommands]:
        """Return what is to be sent, one batch per open pair (more where a batch would exceed the wire's bounds)."""
        actions: list[CompleteCommands] = []
        for queues in self._answering:
            if queues.number is None:
                continue
            number = queues.number
            actions += [CompleteCommands(number, batch.completions, batch.frames()) for batch in queues.completion]
            queues.completion = []
        self._answering.clear()
        return actions

    def _set_pace(self) -> None:
        self._paced = len({self._arbiter.weight(queues.peer) for queues in self._open.values()}) > 1

    def _accepts(self, queues: PeerQueues, command: OutstandingCommand) -> bool:
        """Whether a command is new and has room; otherwise answer it, or ignore it."""
        if command.id in queues.outstanding:
            self.counts.repeated_in_flight += 1
        elif command.id in queues.remembered:
            self.counts.repeated_done += 1
            self._send(queues, *queues.remembered[command.id])
        elif len(queues.outstanding) >= self.queue_credits:
            self.counts.queue_full += 1
            self._send(queues, Completion(command.id, Status.QUEUE_FULL), b"")
        else:
            queues.outstanding[command.id] = command
            return True
        return False

    def _send(self, queues: PeerQueues, completion: Completion, data: Buffer) -> None:
        if queues.abandoned:
            return
        self.counts.completions += 1
        self._batch(queues, 1, completion.length).add([completion], data, 0, completion.length)

    def _batch(self, queues: PeerQueues, count: int, length: int) -> CompletionBatch:
        """The batch that takes so many completions with so much data, a new one if the last one has no room."""
        batches = queues.completion
        if not batches:
            self._answering.append(queues)
            batches.append(CompletionBatch())
        elif batches[-1].full_for(count, length):
            batches.append(CompletionBatch())
        return batches[-1]
