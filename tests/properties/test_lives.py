"""Lives of a guest and of its hypervisor: what an earlier one asked for never lands after what a later one did."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iovirt_dist.controllers.base import CommandsSubmitted, CompleteCommands, QueuePairClosed, QueuePairOpened
from iovirt_dist.controllers.block.core import (
    MAX_ACTIVE,
    AccessStorage,
    BlockController,
    BlockEvent,
    Outcome,
    StorageDone,
    SyncDone,
    SyncStorage,
)
from iovirt_dist.controllers.block.extents import Durability, Extent, ExtentTable
from iovirt_dist.controllers.block.operation import Operation
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.commands import Command, Opcode, Status
from tests.unit.drivers.support import DISK, Controller, Outcomes

SECTOR_BYTES = 512
SECTORS = 4

OLD, NEW = 1, 2
"""Instances, and first bytes of what they write."""


class Ring:
    """A block controller whose storage does things in any order, and its peer.

    Attributes:
        content: What is written in each sector: life and sequence.
        completed: Commands that the peer was told of.
    """

    def __init__(self, durability: Durability) -> None:
        self.core = BlockController(ExtentTable([Extent("all")], SECTORS * SECTOR_BYTES), durability)
        self.operations: deque[Operation] = deque()
        self.syncs = 0
        self.pair = 0
        self.content: list[tuple[int, int]] = [(0, 0)] * SECTORS
        self.completed: set[bytes] = set()
        self._commands: dict[int, tuple[int, int]] = {}
        self.open(epoch=1)

    def feed(self, event: BlockEvent) -> None:
        """Hand an event to the core; take what it gives."""
        for action in self.core.handle(event, 0):
            if isinstance(action, AccessStorage):
                self.operations += action.operations
            elif isinstance(action, SyncStorage):
                self.syncs += 1
            elif isinstance(action, CompleteCommands):
                self.completed |= {completion.id for completion in action.completions}

    def open(self, epoch: int) -> None:
        """The peer begins a life."""
        self.pair += 1
        self.feed(QueuePairOpened(self.pair, "hv", resumed=False, epoch=epoch))

    def write(self, life: int, sequence: int, sectors: tuple[int, int]) -> bytes:
        """A guest's life writes; returns the command's id."""
        first, count = sectors
        count = min(count, SECTORS - first)
        id_ = RequestId(life, 0, sequence).pack()
        data = bytes((life, sequence)).ljust(SECTOR_BYTES, b"\0") * count
        command = Command(id_, Opcode.WRITE, 0, first * SECTOR_BYTES, len(data))
        self.feed(CommandsSubmitted(self.pair, [command], [data]))
        return id_

    def read(self, count: int) -> None:
        """The first life reads, so that the storage has so many operations."""
        commands = [Command(RequestId(OLD, 1, n).pack(), Opcode.READ, 0, 0, SECTOR_BYTES) for n in range(count)]
        self.feed(CommandsSubmitted(self.pair, commands, []))

    def access(self, which: int) -> None:
        """The storage does one of the operations that it has."""
        if not self.operations:
            return
        self.operations.rotate(-which)
        operation = self.operations.popleft()
        if operation.opcode is Opcode.READ:
            self.feed(StorageDone([Outcome(operation.token, 0, bytes(operation.length))]))
            return
        first = operation.offset // SECTOR_BYTES
        for sector in range(first, first + operation.length // SECTOR_BYTES):
            self.content[sector] = (operation.data[0], operation.data[1])
        self.feed(StorageDone([Outcome(operation.token)]))

    def sync(self) -> None:
        """A sync ends."""
        if self.syncs:
            self.syncs -= 1
            self.feed(SyncDone(0))

    def finish(self) -> None:
        """Everything ends."""
        while self.operations or self.syncs:
            self.access(0)
            self.sync()


_RANGES = st.tuples(st.integers(0, SECTORS - 1), st.integers(1, SECTORS))
_CHOICES = st.lists(st.integers(0, 7), max_size=12)


@given(
    st.sampled_from([0, MAX_ACTIVE - 2, MAX_ACTIVE]),
    st.lists(_RANGES, min_size=1, max_size=20),
    _CHOICES,
    st.lists(st.tuples(_RANGES, _CHOICES), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from(list(Durability)),
)
def test_write_of_an_earlier_life_never_lands_after_a_later_ones(
    reads: int,
    old: list[tuple[int, int]],
    before: list[int],
    new: list[tuple[tuple[int, int], list[int]]],
    hypervisor_died: bool,
    durability: Durability,
) -> None:
    """The guest's life ended with that of its hypervisor (a new queue pair), or alone (the same one).

    Its writes are at the storage, wait there for each other, or wait for arbitration.
    """
    ring = Ring(durability)
    ring.read(reads)
    for sequence, sectors in enumerate(old):
        ring.write(OLD, sequence, sectors)
    for which in before:
        ring.access(which)

    if hypervisor_died:
        ring.feed(QueuePairClosed(ring.pair))
        ring.open(epoch=2)
    last: dict[int, tuple[int, int]] = {}
    for sequence, ((first, count), choices) in enumerate(new):
        ring.write(NEW, sequence, (first, count))
        last |= dict.fromkeys(range(first, min(first + count, SECTORS)), (NEW, sequence))
        for which in choices:
            ring.access(which)
    ring.finish()

    assert {sector: ring.content[sector] for sector in last} == last
    assert all(RequestId(NEW, 0, sequence).pack() in ring.completed for sequence in range(len(new)))


@pytest.mark.parametrize(("resumed", "submitted"), [(True, [b"3", b"4"]), (False, [b"1", b"3", b"4"])])
def test_write_in_flight_as_its_guest_dies_goes_before_the_next_lifes(resumed: bool, submitted: list[bytes]) -> None:
    """If the controller has restarted it gets it again, first; what had not left is dropped."""
    pair = QueuePair("disk0")
    pair.use("root")
    controller = Controller(pair, {"root": DISK}, credits=64)
    controller.open()
    outcomes = Outcomes()
    outcomes.offer(pair, 1, Opcode.WRITE, guest=OLD, data=b"1" * 512)
    controller.take()
    outcomes.offer(pair, 2, Opcode.WRITE, guest=OLD, data=b"2" * 512)

    pair.lost()
    pair.forget(OLD)
    outcomes.offer(pair, 3, Opcode.WRITE, guest=NEW, data=b"3" * 512)
    outcomes.offer(pair, 4, Opcode.WRITE, guest=NEW, data=b"4" * 512)
    controller.data.clear()
    controller.open(resumed=resumed)
    for command in list(controller.commands):
        controller.complete(command)

    assert [data[:1] for data in controller.data.values() if data != b"root"] == submitted
    assert outcomes.told == [(3, Status.OK, b""), (4, Status.OK, b"")]


def test_write_of_a_dead_guest_in_a_merged_command_that_failed_does_not_undo_the_next_lifes() -> None:
    """The parts of a merged command are tried again alone, but not over what is under way since."""
    pair = QueuePair("disk0", merge=True)
    pair.use("root")
    controller = Controller(pair, {"root": DISK}, credits=64)
    controller.open()
    outcomes = Outcomes()
    outcomes.offer(pair, 1, Opcode.WRITE, guest=OLD, data=b"1" * 512)
    outcomes.offer(pair, 2, Opcode.WRITE, guest=OLD, data=b"2" * 512)
    controller.take()
    (merged,) = controller.commands

    pair.forget(OLD)
    outcomes.offer(pair, 3, Opcode.WRITE, guest=NEW, data=b"3" * 512)
    controller.take()
    controller.complete(merged, Status.MEDIUM_ERROR)
    controller.take()

    assert [controller.data[command.id][:1] for command in controller.commands] == [b"3"]
