"""Hypervisors with weights at one block controller: shares, and what a weight must not cost."""

from __future__ import annotations

from collections import deque

import pytest

from iovirt_dist.controllers.base import (
    CommandsSubmitted,
    CompleteCommands,
    QueuePairOpened,
    TimerFired,
)
from iovirt_dist.controllers.block.core import (
    AccessStorage,
    BlockAction,
    BlockController,
    BlockEvent,
    Outcome,
    StorageDone,
    SyncDone,
    SyncStorage,
)
from iovirt_dist.controllers.block.extents import Extent, ExtentTable
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.commands import Command, Opcode

DEPTH = 64
SIZE = 4096


class World:
    """A core, its storage, which answers at once, and hypervisors that submit again what completes.

    Args:
        opcode: What they do all the time.
        weights: Of hypervisors hv1, hv2, ...
    """

    def __init__(self, opcode: Opcode, *weights: int) -> None:
        self.core = BlockController(ExtentTable([Extent("disk", 0, 1 << 20)], 1 << 20))
        self.core.pairs.set_weights({f"hv{pair}": weight for pair, weight in enumerate(weights, 1)})
        self.done = dict.fromkeys(range(1, len(weights) + 1), 0)
        self.most = 0
        self.opcode = opcode
        self.messages: deque[CommandsSubmitted] = deque()
        self.syncing = False
        self._asked = 0
        for pair in self.done:
            self.do(QueuePairOpened(pair, f"hv{pair}", resumed=False))
            self.ask(pair, DEPTH)

    def ask(self, pair: int, count: int) -> None:
        """A hypervisor sends a batch; it is in the socket then."""
        commands = []
        for _ in range(count):
            self._asked += 1
            offset = self._asked % 256 * SIZE
            commands.append(Command(RequestId(1, 0, self._asked).pack(), self.opcode, 0, offset, SIZE))
        data = [bytes(SIZE)] * count if self.opcode is Opcode.WRITE else []
        self.messages.append(CommandsSubmitted(pair, commands, [*data]))

    def do(self, event: BlockEvent) -> None:
        """Hand in an event; what the storage does at once ends at once."""
        actions: list[BlockAction] = self.core.handle(event, 0)
        for action in actions:
            if isinstance(action, CompleteCommands):
                self.done[action.pair] += len(action.completions)
                self.ask(action.pair, len(action.completions))
            elif isinstance(action, SyncStorage):
                self.syncing = True
            elif isinstance(action, AccessStorage):
                self.most = max(self.most, len(action.operations))
                buffer = bytes(SIZE * len(action.operations))
                outcomes = [Outcome(o.token, 0, buffer, at * SIZE) for at, o in enumerate(action.operations)]
                self.do(StorageDone(outcomes))

    def turn(self) -> None:
        """A turn of the loop: receive all messages that are there, then the timer, then the end of a sync."""
        for _ in range(len(self.messages)):
            self.do(self.messages.popleft())
        due = self.core.deadline_ns()
        if due is not None:
            assert due <= 0
            self.do(TimerFired())
        elif self.syncing:
            self.syncing = False
            self.do(SyncDone(0))


@pytest.mark.parametrize("opcode", [Opcode.READ, Opcode.WRITE])
def test_backlogged_hypervisors_share_by_weight(opcode: Opcode) -> None:
    """Reads that need no waiting, and writes that wait for a sync together."""
    world = World(opcode, 1, 3)

    for _ in range(400):
        world.turn()

    assert world.done[1] > 500
    assert world.done[2] == pytest.approx(3 * world.done[1], rel=0.05)


def test_hypervisors_without_weights_fill_the_device() -> None:
    """Nothing is held back where nothing is at stake: all that is there is written before a sync."""
    world = World(Opcode.WRITE, 1, 1)

    for _ in range(10):
        world.turn()

    assert world.core.deadline_ns() is None
    assert world.most == DEPTH


def test_hypervisor_that_is_alone_waits_for_nobody() -> None:
    """A weight does not keep it from anything."""
    world = World(Opcode.WRITE, 3)

    world.do(world.messages.popleft())

    assert world.core.deadline_ns() is None
    assert world.most == DEPTH


def test_idle_hypervisor_leaves_its_share_to_others() -> None:
    """Commands wait for no one who has none."""
    world = World(Opcode.READ, 1, 255)
    world.messages.pop()  # hv2 has nothing to ask for

    for _ in range(10):
        world.turn()

    assert world.done == {1: 10 * DEPTH, 2: 0}
