"""Merging changes nothing that anybody sees: contents, outcomes, data; with flushes, overlaps, restarts, errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import DeviceQueue, Request
from iovirt_dist.mux.merge import Limits, merge
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Command, Opcode, Status, UnitIdentity
from tests.unit.drivers.support import Controller

SECTOR = 512
SECTORS = 24
UNITS = {"a": UnitIdentity(SECTORS * SECTOR, SECTOR, False, ""), "b": UnitIdentity(SECTORS * SECTOR, SECTOR, False, "")}
CHANGES = frozenset({Opcode.WRITE, Opcode.DISCARD})


class Ask(NamedTuple):
    """A guest asks for something."""

    unit: str
    opcode: Opcode
    sector: int
    sectors: int


class Work(NamedTuple):
    """The controller takes what waits, and carries out so many commands."""

    commands: int


class Crash(NamedTuple):
    """The controller carries out so many commands, is killed before anybody hears of it, and is started again."""

    commands: int


ASKS = st.builds(
    Ask,
    st.sampled_from("aaab"),
    st.sampled_from([Opcode.READ, Opcode.READ, Opcode.WRITE, Opcode.WRITE, Opcode.DISCARD, Opcode.FLUSH]),
    st.integers(0, SECTORS - 4),
    st.integers(1, 4),
)
WORK = st.builds(Work, st.integers(0, 12))
CRASH = st.builds(Crash, st.integers(0, 12))


def _flat(rounds: Sequence[tuple[list[Ask], Work | Crash]]) -> list[Ask | Work | Crash]:
    return [step for asks, then in rounds for step in (*asks, then)]


BATCH = st.lists(ASKS, min_size=1, max_size=12)
STEADY = st.lists(st.tuples(BATCH, WORK), max_size=6).map(_flat)
CRASHING = st.lists(st.tuples(BATCH, WORK | CRASH), max_size=6).map(_flat)


class Told(NamedTuple):
    """How a request ended."""

    status: Status
    data: bytes


class Bench:
    """Two guests, each with a disk of its own, at one controller that does commands in order.

    Args:
        merging: Whether the queue pair merges.
        bad: Sectors of both disks that cannot be read or written.
    """

    def __init__(self, merging: bool, bad: frozenset[int] = frozenset()) -> None:
        self.pair = QueuePair("disk0", MultiQueue(depth=0), merge=merging)
        self.disks = {unit: bytearray(SECTORS * SECTOR) for unit in UNITS}
        self.told: dict[int, list[Told]] = {}
        self.asked: list[Ask] = []
        self.commands = 0
        self.bad = bad
        self._queues: dict[str, DeviceQueue] = {}
        for guest, unit in enumerate(UNITS, 1):
            self.pair.use(unit)
            self._queues[unit] = self.pair.device_queue(unit, guest, 0, self)
        self._start()

    def completed(self, request: Request, status: Status, data: Buffer, now_ns: int) -> None:
        """Keep it."""
        self.told.setdefault(request.tag, []).append(Told(status, bytes(data)))

    def run(self, steps: list[Ask | Work | Crash]) -> None:
        """Do all steps, and everything that is left behind them."""
        for step in steps:
            if isinstance(step, Ask):
                self._ask(step)
            elif isinstance(step, Work):
                self.controller.take()
                self._work(step.commands)
            else:
                self._crash(step.commands)
        while self.controller.take() or self.controller.commands:
            self._work(1 << 20)

    def _start(self) -> None:
        self.controller = Controller(self.pair, UNITS, 64)
        self.controller.open()

    def _ask(self, ask: Ask) -> None:
        tag = len(self.asked)
        self.asked.append(ask)
        offset, length = (0, 0) if ask.opcode is Opcode.FLUSH else (ask.sector * SECTOR, ask.sectors * SECTOR)
        data = content(tag) * ask.sectors if ask.opcode is Opcode.WRITE else b""
        self._queues[ask.unit].submit(tag, ask.opcode, offset, length, data)

    def _work(self, count: int) -> None:
        for command in self.controller.commands[:count]:
            status, data = self._carry_out(command)
            self.controller.complete(command, status, data)

    def _crash(self, count: int) -> None:
        self.controller.take()
        for command in self.controller.commands[:count]:
            self._carry_out(command)
        self.pair.lost()
        self._start()

    def _carry_out(self, command: Command) -> tuple[Status, bytes]:
        """What a controller does."""
        self.commands += 1
        disk = self.disks[list(UNITS)[command.unit]]
        begin, end = command.offset, command.offset + command.length
        if not self.bad.isdisjoint(range(begin // SECTOR, end // SECTOR)):
            return Status.MEDIUM_ERROR, b""
        if command.opcode is Opcode.WRITE:
            disk[begin:end] = self.controller.data[command.id]
        elif command.opcode is Opcode.DISCARD:
            disk[begin:end] = bytes(end - begin)
        return Status.OK, bytes(disk[begin:end]) if command.opcode is Opcode.READ else b""


def content(tag: int) -> bytes:
    """A sector that only this request writes."""
    return (tag + 1).to_bytes(2, "little") * (SECTOR // 2)


def both(steps: list[Ask | Work | Crash], bad: frozenset[int] = frozenset()) -> tuple[Bench, Bench]:
    """Run the steps with and without merging."""
    merged, plain = Bench(True, bad), Bench(False, bad)
    merged.run(steps)
    plain.run(steps)
    return merged, plain


@given(steps=STEADY)
@settings(max_examples=60, deadline=None)
def test_merged_and_plain_requests_have_the_same_effects_and_outcomes(steps: list[Ask | Work | Crash]) -> None:
    """Every byte on the disks, every status, every byte read; and no more commands."""
    merged, plain = both(steps)

    assert merged.disks == plain.disks
    assert merged.told == plain.told
    assert merged.commands == plain.commands - merged.pair.merged
    assert merged.pair.queue.entry(1).in_flight == merged.pair.in_flight == 0


@given(steps=CRASHING)
@settings(max_examples=60, deadline=None)
def test_restarted_controllers_do_merged_requests_in_order(steps: list[Ask | Work | Crash]) -> None:
    """What was done and not told is done again, without harm; each request ends once."""
    merged, plain = both(steps)

    assert merged.disks == plain.disks
    assert merged.told.keys() == plain.told.keys() == set(range(len(merged.asked)))
    assert all([outcome.status for outcome in told] == [Status.OK] for told in merged.told.values())


@given(steps=STEADY, bad=st.frozensets(st.integers(0, SECTORS - 1), max_size=3))
@settings(max_examples=60, deadline=None)
def test_bad_sector_fails_only_what_touches_it(steps: list[Ask | Work | Crash], bad: frozenset[int]) -> None:
    """Or what a later write was going to undo anyway. The disks hold what was said to be there."""
    bench = Bench(True, bad)
    bench.run(steps)

    expected = {unit: bytearray(SECTORS * SECTOR) for unit in UNITS}
    for tag, ask in enumerate(bench.asked):
        (outcome,) = bench.told[tag]
        if outcome.status is Status.OK:
            assert ask.opcode is Opcode.FLUSH or bad.isdisjoint(touched(ask))
            change(expected[ask.unit], tag, ask)
        else:
            assert not bad.isdisjoint(touched(ask)) or overtaken(bench.asked, tag)
    assert bench.disks == expected


def touched(ask: Ask) -> range:
    """Its sectors."""
    return range(ask.sector, ask.sector + ask.sectors)


def change(disk: bytearray, tag: int, ask: Ask) -> None:
    """Do a request to a model of the disk."""
    begin, end = ask.sector * SECTOR, (ask.sector + ask.sectors) * SECTOR
    if ask.opcode is Opcode.WRITE:
        disk[begin:end] = content(tag) * ask.sectors
    elif ask.opcode is Opcode.DISCARD:
        disk[begin:end] = bytes(end - begin)


def overtaken(asked: list[Ask], tag: int) -> bool:
    """Whether a request changes what a later one of its guest changes, too."""
    ask = asked[tag]
    return ask.opcode in CHANGES and any(
        later.unit == ask.unit and later.opcode in CHANGES and not set(touched(later)).isdisjoint(touched(ask))
        for later in asked[tag + 1 :]
    )


@given(asks=st.lists(ASKS, max_size=80), parts=st.integers(1, 5), kib=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_commands_keep_limits_order_and_every_request(asks: list[Ask], parts: int, kib: int) -> None:
    """Each request is in one command; a queue's flushes stay between what was before and behind them."""
    queues = Bench(True)._queues
    requests = [
        Request(queues[ask.unit], tag, tag.to_bytes(16), ask.opcode, *_range(ask), _data(tag, ask))
        for tag, ask in enumerate(asks)
    ]

    limits = Limits(data_bytes=kib << 10, discard_bytes=kib << 10, parts=parts)
    commands = merge(requests, limits)

    placed = {part.tag: at for at, command in enumerate(commands) for part in command.parts}
    assert Counter(part.tag for command in commands for part in command.parts) == Counter(range(len(asks)))
    for command in commands:
        assert len(command.parts) == 1 or (len(command.parts) <= parts and command.length <= kib << 10)
        assert len({(part.queue.guest, part.opcode) for part in command.parts}) == 1
    for tag, ask in enumerate(asks):
        for other in range(tag):
            ordered = Opcode.FLUSH in (ask.opcode, asks[other].opcode)
            assert not (ordered and ask.unit == asks[other].unit) or placed[other] < placed[tag]


def _range(ask: Ask) -> tuple[int, int]:
    return (0, 0) if ask.opcode is Opcode.FLUSH else (ask.sector * SECTOR, ask.sectors * SECTOR)


def _data(tag: int, ask: Ask) -> bytes:
    return content(tag) * ask.sectors if ask.opcode is Opcode.WRITE else b""
