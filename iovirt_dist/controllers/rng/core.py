"""The entropy controller's core: commands of many queue pairs become draws from one source.

Theory of operation. One draw is under way at a time. It is for the commands that arbitration gave since the last one:
queue pairs take turns by weight and by what they ask for (see `controllers.arbitration`), so a peer that asks for much
at once waits longer and nobody else does. A command gets what it asks for, up to
`MAX_GET_BYTES`; where the source gave less than was drawn, the last ones get less, but at least one byte, or fail.

Behind a draw comes a pause, until the `deadline_ns` that the core then gives, which is at once: messages that came
meanwhile are received by then and take part in the next one. Else a peer with much in its queue would be served to its
end before anybody else was heard.

Bytes are given out once. A command that is submitted again after its completion was lost gets fresh ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from iovirt_dist.controllers.base import (
    CommandsSubmitted,
    CompleteCommands,
    PairEvent,
    QueuePairClosed,
    QueuePairOpened,
    QueuePairs,
)
from iovirt_dist.controllers.peer_queues import OutstandingCommand
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status, UnitIdentity

MAX_GET_BYTES: Final = 65536
"""Most that one command gets; one that asks for more gets this much."""

DRAW_BYTES: Final = 256 << 10
"""A draw is no longer than this and one command: less than a millisecond of the kernel's generator."""

DRAW_COMMANDS: Final = 256
"""Most commands that share a draw."""

QUEUE_CREDITS: Final = 64
"""Depth of a queue pair: 4 MiB of the largest requests, some ten milliseconds that a small one may find before it."""

UNIT: Final = 0
_NAMES: Final = frozenset({b"", b"entropy"})
_IDENTITY: Final = UnitIdentity(0, 1, False, "entropy").pack()


@dataclass(frozen=True, slots=True)
class DrawEntropy:
    """Get so many random bytes; answered by `EntropyDrawn`. One at a time."""

    length: int


@dataclass(frozen=True, slots=True)
class EntropyDrawn:
    """The draw ended.

    Attributes:
        data: Random bytes, as many as were asked for or fewer.
        error: errno value, 0 for success.
    """

    data: Buffer
    error: int = 0


RngEvent = PairEvent | EntropyDrawn
RngAction = CompleteCommands | DrawEntropy


class RngController:
    """Sans-IO core of an entropy controller.

    Args:
        queue_credits: Commands that one queue pair may have in flight.
        burst: Commands taken from one queue pair before the next has its turn.

    Attributes:
        bytes_given: Random bytes that left in completions.
        errors: Commands completed with MEDIUM_ERROR.
    """

    def __init__(self, queue_credits: int = QUEUE_CREDITS, burst: int = 8) -> None:
        self.pairs = QueuePairs(queue_credits, burst)
        self.bytes_given = 0
        self.errors = 0
        self._handlers: dict[type, Callable[[Any], None]] = {
            QueuePairOpened: self.pairs.opened,
            QueuePairClosed: self.pairs.closed,
            CommandsSubmitted: self.pairs.submit,
            EntropyDrawn: self._drawn,
        }
        self._drawing: list[OutstandingCommand] = []
        self._now_ns = 0

    def handle(self, event: RngEvent, now_ns: int) -> list[RngAction]:
        """Take an event; return completions first, then a draw."""
        self._now_ns = now_ns
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        draw: list[RngAction] = []
        pause = type(event) is EntropyDrawn
        while not self._drawing and not pause and (taken := self.pairs.take(DRAW_COMMANDS, DRAW_BYTES)):
            self._drawing = [command for command in taken if self._accepts(command)]
            if self._drawing:
                draw.append(DrawEntropy(sum(map(_asked, self._drawing))))
        return [*self.pairs.collect(), *draw]

    def deadline_ns(self) -> int | None:
        """At once, while commands wait and no draw is under way."""
        return self._now_ns if self.pairs.waiting and not self._drawing else None

    def _accepts(self, command: OutstandingCommand) -> bool:
        """Whether a command takes part in the draw; otherwise it is ended."""
        if command.opcode is Opcode.IDENTIFY:
            if bytes(command.data) in _NAMES:
                self.pairs.complete(command, Status.OK, _IDENTITY, UNIT)
            else:
                self.pairs.complete(command, Status.UNKNOWN_UNIT)
        elif command.opcode is not Opcode.ENTROPY_GET:
            self.pairs.complete(command, Status.UNKNOWN_OPCODE)
        elif command.unit != UNIT:
            self.pairs.complete(command, Status.UNKNOWN_UNIT)
        elif not command.length:
            self.pairs.complete(command, Status.BAD_LENGTH)
        else:
            return True
        return False

    def _drawn(self, event: EntropyDrawn) -> None:
        drawing, self._drawing = self._drawing, []
        data = memoryview(b"" if event.error else event.data)
        for command in drawing:
            piece, data = data[: _asked(command)], data[_asked(command) :]
            if piece:
                self.bytes_given += len(piece)
                self.pairs.complete(command, Status.OK, piece)
            else:
                self.errors += 1
                self.pairs.complete(command, Status.MEDIUM_ERROR)


def _asked(command: OutstandingCommand) -> int:
    return min(command.length, MAX_GET_BYTES)
