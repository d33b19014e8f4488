"""Requests in flight, and what is known of them after a death at any point."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.gateway.vhost_user.inflight import (
    InflightError,
    InflightRegion,
    QueueLog,
    create_region,
    queue_bytes,
    take_region,
)
from iovirt_dist.gateway.vhost_user.memory import MappingError
from iovirt_dist.gateway.vhost_user.messages import Inflight
from tests.unit.gateway.vhost_user.front_end import BAD_FD, FakeMapper

SIZE = 8


class Crash(Exception):  # noqa: N818 - it is none
    """The process dies."""


class DyingMemory:
    """A view to which only so many writes get through.

    Args:
        view: The memory.
        budget: Writes that are left; one number for all views of the memory.
    """

    def __init__(self, view: memoryview, budget: list[int]) -> None:
        self._view = view
        self._budget = budget

    def __getitem__(self, at: int) -> int:
        return int(self._view[at])

    def __setitem__(self, at: int, value: int) -> None:
        if not self._budget[0]:
            raise Crash
        self._budget[0] -= 1
        self._view[at] = value


def let_die(log: QueueLog, writes: int) -> list[int]:
    """Let only so many writes of a list get through; return their number, which others may count down, too."""
    budget = [writes]
    for name in ("_flags", "_links", "_counters"):
        setattr(log, name, DyingMemory(getattr(log, name), budget))
    return budget


class Life:
    """One back end, with a used ring, which dies after some writes.

    Args:
        memory: The list's, which outlives it.
        used: The used ring's index, which does, too.
        writes: How many.
    """

    def __init__(self, memory: bytearray, used: list[int], writes: int) -> None:
        self.used = used
        self.log = QueueLog(memoryview(memory))
        self.log.resume(used[0], SIZE)
        self.budget = let_die(self.log, writes)

    def complete(self, heads: list[int]) -> None:
        """Publish a batch."""
        self.log.batch(heads)
        if not self.budget[0]:
            raise Crash
        self.budget[0] -= 1
        self.used[0] = (self.used[0] + len(heads)) & 0xFFFF
        self.log.published(self.used[0], heads)


def live(writes: int, start: int) -> tuple[list[int], list[int], list[int]]:
    """Live through a history until so many writes.

    Returns:
        Heads that were surely in flight when it died, in order; those that may be, too, because they were being taken;
        and those that the next back end finds.
    """
    memory, used = bytearray(queue_bytes(SIZE)), [start]
    in_flight: list[int] = []
    perhaps: list[int] = []
    life = Life(memory, used, writes)
    history: list[tuple[str, list[int]]] = [
        ("take", [3, 1, 4]),
        ("done", [1]),
        ("take", [5, 1]),
        ("done", [4, 5]),
        ("take", [0]),
        ("done", [0, 1, 3]),
        ("take", [7, 6, 2]),
        ("done", [2, 7]),
    ]
    try:
        for what, heads in history:
            if what == "take":
                perhaps = heads
                life.log.taken(heads)
                in_flight, perhaps = in_flight + heads, []
            else:
                before = used[0]
                try:
                    life.complete(heads)
                finally:
                    if used[0] != before:
                        in_flight = [head for head in in_flight if head not in heads]
    except Crash:
        pass
    return in_flight, perhaps, QueueLog(memoryview(memory)).resume(used[0], SIZE)


@pytest.mark.parametrize("start", [0, 0xFFFE])
@pytest.mark.parametrize("writes", range(64))
def test_log_after_a_death_at_any_write_has_exactly_what_is_in_flight(writes: int, start: int) -> None:
    """In order; of a batch that was being taken, the first ones may be there."""
    in_flight, perhaps, found = live(writes, start)

    assert found[: len(in_flight)] == in_flight
    assert found[len(in_flight) :] == perhaps[: len(found) - len(in_flight)]


def test_log_after_the_whole_history_has_the_rest() -> None:
    """The history above takes fewer writes than are tried."""
    assert live(63, 0) == live(1000, 0) == ([6], [], [6])


def test_log_resumes_again_and_again() -> None:
    """Each back end may die before it has done anything."""
    memory = memoryview(bytearray(queue_bytes(SIZE)))
    log = QueueLog(memory)
    log.resume(9, SIZE)
    log.taken([2, 0, 7])

    assert [QueueLog(memory).resume(9, SIZE) for _ in range(3)] == [[2, 0, 7]] * 3


def test_log_that_dies_while_it_resumes_keeps_the_order() -> None:
    """Counters are written anew, from the lowest."""
    orders = []
    for writes in range(9):
        memory = memoryview(bytearray(queue_bytes(SIZE)))
        first = QueueLog(memory)
        first.resume(0, SIZE)
        first.taken([2])
        first.taken([6, 5, 0])
        second = QueueLog(memory)
        let_die(second, writes)
        with pytest.raises(Crash):
            second.resume(0, SIZE)
        orders.append(QueueLog(memory).resume(0, SIZE))

    assert orders == [[2, 6, 5, 0]] * 9


def test_log_of_a_new_buffer_is_empty_and_described() -> None:
    """Version 1, and as many entries as the queue has."""
    memory = memoryview(bytearray(queue_bytes(SIZE)))

    assert QueueLog(memory).resume(0x1234, SIZE) == []
    assert struct.unpack_from("=QHHHH", memory) == (0, 1, SIZE, 0, 0x1234)


def test_log_has_the_layout_of_the_specification() -> None:
    """Entries of 16 bytes behind a header of 16: in flight, next, counter."""
    memory = memoryview(bytearray(queue_bytes(SIZE)))
    log = QueueLog(memory)
    log.resume(0, SIZE)
    log.taken([3, 2])
    log.batch([3, 2])

    assert struct.unpack_from("=B5xHQ", memory, 16 + 16 * 3) == (1, 0, 0)
    assert struct.unpack_from("=B5xHQ", memory, 16 + 16 * 2) == (1, 3, 1)
    assert struct.unpack_from("=QHHHH", memory) == (0, 1, SIZE, 2, 0)
    log.published(2, [3, 2])
    assert struct.unpack_from("=QHHHH", memory) == (0, 1, SIZE, 2, 2)
    assert memory[16 + 16 * 3] == memory[16 + 16 * 2] == 0


@pytest.mark.parametrize(
    "header",
    [
        (0, 0, SIZE, 0, 0),
        (0, 2, SIZE, 0, 0),
        (0, 1, SIZE + 1, 0, 0),
        (0, 1, 0, 0, 0),
        (0, 1, SIZE, 0, 0xFFFF - SIZE),
    ],
)
def test_log_that_is_none_of_this_ring_is_begun_anew(header: tuple[int, ...]) -> None:
    """Another version, size, or a used index that no batch leads to."""
    memory = memoryview(bytearray(b"\x01" * queue_bytes(SIZE)))
    struct.pack_into("=QHHHH", memory, 0, *header)

    assert QueueLog(memory).resume(0, SIZE) == []
    assert bytes(memory) == struct.pack("=QHHHH", 0, 1, SIZE, 0, 0).ljust(queue_bytes(SIZE), b"\0")


def test_log_with_a_batch_that_leads_nowhere_is_harmless() -> None:
    """Heads out of range end it; a circle is as long as the batch."""
    memory = memoryview(bytearray(b"\xff" * queue_bytes(SIZE)))
    for head in range(SIZE):
        memory[16 + 16 * head] = 1
    struct.pack_into("=QHHHH", memory, 0, 0, 1, SIZE, 0xFFFF, 0)
    first = QueueLog(memory).resume(3, SIZE)
    struct.pack_into("=QHHHH", memory, 0, 0, 1, SIZE, 5, 0)
    struct.pack_into("=H", memory, 16 + 16 * 5 + 6, 5)
    second = QueueLog(memory).resume(SIZE, SIZE)

    assert sorted(first) == list(range(SIZE))
    assert sorted(second) == [0, 1, 2, 3, 4, 6, 7]


def test_log_with_the_highest_counter_goes_on() -> None:
    """Counters start over when it resumes."""
    memory = memoryview(bytearray(queue_bytes(SIZE)))
    QueueLog(memory).resume(0, SIZE)
    struct.pack_into("=B5xHQ", memory, 16, 1, 0, (1 << 64) - 1)
    log = QueueLog(memory)

    assert log.resume(0, SIZE) == [0]
    log.taken([1, 2])
    assert QueueLog(memory).resume(0, SIZE) == [0, 1, 2]


def test_local_log_is_one_like_any_other() -> None:
    """It has room for its queue, of every size."""
    log = QueueLog.local(1)
    assert log.resume(0, 1) == []
    log.taken([0])
    log.batch([0])
    log.published(1, [0])
    assert log.resume(1, 1) == []


def test_region_has_a_log_for_each_queue() -> None:
    """They do not overlap; smaller queues fit into larger lists."""
    data = bytearray(2 * queue_bytes(SIZE))
    region = InflightRegion(memoryview(data), 2, SIZE)
    first, second = region.log(0, SIZE), region.log(1, 2)

    assert first is not None
    assert second is not None
    first.resume(0, SIZE)
    first.taken([7])
    second.resume(0, 2)
    second.taken([1])
    assert first.resume(0, SIZE) == [7]
    assert second.resume(0, 2) == [1]
    assert region.log(2, SIZE) is None
    assert region.log(0, 2 * SIZE) is None


@pytest.mark.parametrize(
    ("length", "queues", "size", "reason"),
    [
        (192, 0, 8, "inflight-queues"),
        (192, 1, 0, "inflight-size"),
        (192, 1, 0xFFFF, "inflight-size"),
        (191, 1, 8, "inflight-size"),
        (192, 2, 8, "inflight-size"),
    ],
)
def test_region_that_does_not_fit_is_refused(length: int, queues: int, size: int, reason: str) -> None:
    """None, or too large."""
    with pytest.raises(InflightError) as caught:
        InflightRegion(memoryview(bytearray(length)), queues, size)
    assert caught.value.reason == reason


def test_region_created_can_be_taken() -> None:
    """As the front end gives it back."""
    mapper = FakeMapper()

    fd, made = create_region(mapper, Inflight(0, 77, 2, SIZE, 24))

    assert (fd, made) == (1000, Inflight(2 * queue_bytes(SIZE), 0, 2, SIZE, 24))
    assert take_region(mapper, fd, made).queues == 2


def test_region_in_no_file_is_refused() -> None:
    """Before and behind the mapping."""
    with pytest.raises(MappingError):
        take_region(FakeMapper(), BAD_FD, Inflight(192, 0, 1, SIZE, 24))
    with pytest.raises(InflightError):
        take_region(FakeMapper(), 100, Inflight(191, 0, 1, SIZE, 24))
    with pytest.raises(InflightError):
        create_region(FakeMapper(), Inflight(0, 0, 0, SIZE, 24))
