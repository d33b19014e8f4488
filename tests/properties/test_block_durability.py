"""What was acknowledged survives every crash: the promise of the block controller.

A history of commands is driven through the core over `MemoryStorage`; when accesses are done and when syncs begin
and end is drawn as well. Then the power is cut, and every image that could be left is compared with what was promised.
"""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.controllers.base import CommandsSubmitted, CompleteCommands, QueuePairClosed, QueuePairOpened
from iovirt_dist.controllers.block.core import (
    AccessStorage,
    BlockAction,
    BlockController,
    BlockEvent,
    Outcome,
    StorageDone,
    SyncDone,
)
from iovirt_dist.controllers.block.extents import Durability, Extent, ExtentTable
from iovirt_dist.controllers.block.operation import Operation
from iovirt_dist.ids import RequestId
from iovirt_dist.testing.storage import SECTOR_BYTES, Kind, MemoryStorage
from iovirt_dist.wire.commands import Command, Opcode, Status

SECTORS = 4
IMAGE_BYTES = SECTORS * SECTOR_BYTES


class _Machine:
    """A core, its storage, and what its peer knows.

    Attributes:
        taken: For each sector, the stamps of the changes that the storage was asked for, in order; 0 is new.
        promised: For each sector, the least place in `taken` that must survive.
        completed: For each sector, the furthest place in `taken` that was acknowledged.
        flushing: What each flush in flight must make stable.
        submissions: How often each command was sent.
        answers: How often each was completed.
        read: For each read that the storage has done, the stamps of its sectors (their low bytes).
    """

    def __init__(self, durability: Durability) -> None:
        self.storage = MemoryStorage(IMAGE_BYTES)
        self.core = BlockController(ExtentTable([Extent("disk")], IMAGE_BYTES), durability)
        self.write_through = durability is Durability.WRITE_THROUGH
        self.commands: dict[RequestId, Command] = {}
        self.completions: dict[RequestId, Status] = {}
        self.taken: list[list[int]] = [[0] for _ in range(SECTORS)]
        self.promised = [0] * SECTORS
        self.completed = [0] * SECTORS
        self.flushing: dict[RequestId, list[int]] = {}
        self.operations: deque[Operation] = deque()
        self.sync_marks: deque[int] = deque()
        self.syncs_due = 0
        self.read: dict[RequestId, list[int]] = {}
        self.submissions: Counter[RequestId] = Counter()
        self.answers: Counter[RequestId] = Counter()
        self.pair = 0
        self.connected = False
        self.connect(resumed=False)

    def connect(self, *, resumed: bool) -> None:
        """Open the queue pair under a new number."""
        self.pair += 1
        self.connected = True
        self.feed(QueuePairOpened(self.pair, "hv", resumed))

    def submit(self, opcode: Opcode, place: tuple[int, int]) -> None:
        """Submit a command; a write carries its number as a stamp in every sector."""
        sector, sectors = place
        stamp = len(self.commands) + 1
        id_ = RequestId(1, 0, stamp)
        length = 0 if opcode is Opcode.FLUSH else min(sectors, SECTORS - sector) * SECTOR_BYTES
        self.commands[id_] = Command(id_.pack(), opcode, 0, sector * SECTOR_BYTES, length)
        if opcode is Opcode.FLUSH:
            self.flushing[id_] = list(self.completed)
        self.resubmit(id_)

    def resubmit(self, id_: RequestId) -> None:
        """Submit a command, the first time or again; while the session is lost it waits."""
        if not self.connected:
            return
        self.submissions[id_] += 1
        command = self.commands[id_]
        payload = [_stamped(id_.sequence, command.length)] if command.opcode is Opcode.WRITE else []
        self.feed(CommandsSubmitted(self.pair, [command], [*payload]))

    def feed(self, event: BlockEvent) -> None:
        """Hand an event to the core and take its actions."""
        self.take(self.core.handle(event, 0))

    def take(self, actions: list[BlockAction]) -> None:
        """Remember I/O for later, check completions now."""
        for action in actions:
            if isinstance(action, CompleteCommands):
                for completion in action.completions:
                    self.complete(RequestId.unpack(completion[0]), completion[1])
            elif isinstance(action, AccessStorage):
                self.operations.extend(action.operations)
            else:
                self.sync_marks.append(self.storage.begin_sync())

    def complete(self, id_: RequestId, status: Status) -> None:
        """Note what a completion promises."""
        self.completions[id_] = status
        self.answers[id_] += 1
        command = self.commands[id_]
        if status is not Status.OK:
            return
        if command.opcode is Opcode.FLUSH:
            self.promised = [max(pair) for pair in zip(self.promised, self.flushing[id_], strict=True)]
        elif command.opcode is not Opcode.READ:
            for sector in _sectors(command.offset, command.length):
                place = self.taken[sector].index(id_.sequence)
                self.completed[sector] = max(self.completed[sector], place)
                if self.write_through:
                    self.promised[sector] = max(self.promised[sector], place)

    def access(self, which: int, error: bool) -> None:
        """Do one of the operations that are due; they may be done in any order."""
        if not self.operations:
            return
        self.operations.rotate(-which)
        operation = self.operations.popleft()
        token, opcode, offset, length = operation.token, operation.opcode, operation.offset, operation.length
        if opcode is Opcode.READ:
            content = bytes(self.storage.read_at(offset, length))
            self.read[RequestId.unpack(self.core._active[token].id)] = list(content[::SECTOR_BYTES])
            self.feed(StorageDone([Outcome(token, 0, content)]))
            return
        if error:
            self.storage.fail(_KINDS[opcode], done_bytes=length // 2)
        command = self.core._active[token]  # the only place that joins an operation to its command
        for sector in _sectors(offset, length):
            self.taken[sector].append(RequestId.unpack(command.id).sequence)
        try:
            if opcode is Opcode.WRITE:
                self.storage.write_at(offset, operation.data)
            elif opcode is Opcode.WRITE_ZEROES:
                self.storage.write_zeroes(offset, length)
            else:
                self.storage.discard(offset, length)
            failure = 0
        except OSError as raised:
            failure = raised.errno or 5
        self.feed(StorageDone([Outcome(token, failure)]))

    def end_sync(self, error: bool) -> None:
        """End the running sync."""
        if not self.sync_marks:
            return
        if error:
            self.storage.fail("sync")
        try:
            self.storage.end_sync(self.sync_marks.popleft())
            failure = 0
        except OSError as raised:
            failure = raised.errno or 5
        self.feed(SyncDone(failure))

    def lose(self) -> None:
        """Lose the session."""
        self.connected = False
        self.feed(QueuePairClosed(self.pair))

    def resume(self, again: bool) -> None:
        """Come back in the same life, submitting what was never sent; and if `again` everything else as well."""
        if not self.connected:
            self.connect(resumed=True)
        for id_ in self.commands:
            if again or not self.submissions[id_]:
                self.resubmit(id_)

    def drain(self) -> None:
        """Do everything that is due: a command needs one access and at most two syncs."""
        self.resume(again=False)
        for _ in range(3 * len(self.commands)):
            self.access(0, error=False)
            self.end_sync(error=False)

    def broken_promises(self) -> list[tuple[int, int]]:
        """Return (sector, stamp) of each content that a power cut may leave and must not."""
        broken = []
        for image in self.storage.crash_states(limit=256):
            for sector in range(SECTORS):
                stamp = int.from_bytes(image[sector * SECTOR_BYTES : sector * SECTOR_BYTES + 4], "little")
                allowed = self.taken[sector][self.promised[sector] :]
                contents = {0 if self._is_clearing(s) else s for s in allowed}
                if stamp not in contents:
                    broken.append((sector, stamp))
        return broken

    def _is_clearing(self, stamp: int) -> bool:
        return stamp == 0 or self.commands[RequestId(1, 0, stamp)].opcode is not Opcode.WRITE


def _stamped(stamp: int, length: int) -> bytes:
    """Return sectors that all begin with the stamp."""
    return (stamp.to_bytes(4, "little") + bytes(SECTOR_BYTES - 4)) * (length // SECTOR_BYTES)


def _sectors(offset: int, length: int) -> range:
    return range(offset // SECTOR_BYTES, (offset + length) // SECTOR_BYTES)


_KINDS: dict[Opcode, Kind] = {Opcode.WRITE: "write", Opcode.DISCARD: "discard", Opcode.WRITE_ZEROES: "zero"}
"""What a storage calls an access that changes something."""
_FEW_SECTORS = st.tuples(st.integers(0, SECTORS - 1), st.integers(1, SECTORS))
_STEPS = st.one_of(
    st.tuples(
        st.just("submit"),
        st.sampled_from([Opcode.WRITE, Opcode.READ, Opcode.DISCARD, Opcode.WRITE_ZEROES]),
        _FEW_SECTORS,
    ),
    st.tuples(st.just("submit"), st.just(Opcode.WRITE), _FEW_SECTORS),
    st.tuples(st.just("submit"), st.just(Opcode.FLUSH), st.just((0, 0))),
    st.tuples(st.just("access"), st.integers(0, 7), st.sampled_from([False] * 9 + [True])),
    st.tuples(st.just("access"), st.integers(0, 1), st.just(False)),
    st.tuples(st.just("end_sync"), st.sampled_from([False, False, False, True])),
    st.tuples(st.just("lose")),
    st.tuples(st.just("resume"), st.booleans()),
)
_HISTORIES = st.lists(_STEPS, min_size=5, max_size=40)


def _run(durability: Durability, steps: list[tuple[object, ...]]) -> _Machine:
    machine = _Machine(durability)
    for name, *arguments in steps:
        getattr(machine, str(name))(*arguments)
    return machine


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from(Durability), _HISTORIES)
def test_acknowledged_data_is_in_every_crash_state(durability: Durability, steps: list[tuple[object, ...]]) -> None:
    """Write-through: every acknowledged write. Write-back: everything completed before an acknowledged flush."""
    machine = _run(durability, steps)

    assert machine.broken_promises() == []


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(Durability), _HISTORIES)
def test_every_command_completes_and_takes_effect_once(durability: Durability, steps: list[tuple[object, ...]]) -> None:
    """Whatever the interleaving, errors and reconnections: all are completed, none reaches the storage twice."""
    machine = _run(durability, steps)
    machine.drain()

    assert set(machine.completions) == set(machine.commands)
    assert [id_ for id_ in machine.commands if machine.answers[id_] > machine.submissions[id_]] == []
    assert [stamps for stamps in machine.taken if len(stamps) != len(set(stamps))] == []
    assert machine.broken_promises() == []


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(st.sampled_from([Opcode.WRITE, Opcode.READ]), st.integers(0, SECTORS - 1), st.integers(1, SECTORS)),
        max_size=12,
    ),
    st.lists(st.integers(0, 7), min_size=12, max_size=12),
)
def test_overlapping_accesses_behave_as_done_in_their_order_of_arrival(
    accesses: list[tuple[Opcode, int, int]], order: list[int]
) -> None:
    """However the storage reorders what it is given, reads see earlier writes and no later one."""
    machine = _Machine(Durability.WRITE_BACK)
    image = [0] * SECTORS
    expected: dict[RequestId, list[int]] = {}
    for stamp, (opcode, sector, sectors) in enumerate(accesses, 1):
        machine.submit(opcode, (sector, sectors))
        touched = range(sector, min(sector + sectors, SECTORS))
        expected |= {RequestId(1, 0, stamp): [image[n] for n in touched]} if opcode is Opcode.READ else {}
        image = [stamp if opcode is Opcode.WRITE and n in touched else was for n, was in enumerate(image)]
    for which in order:
        machine.access(which, error=False)

    assert machine.read == expected
    assert list(bytes(machine.storage.read_at(0, IMAGE_BYTES))[::SECTOR_BYTES]) == image
