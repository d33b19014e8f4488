"""Which requests become one command, and which must not."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from iovirt_dist.mux.merge import LOOK_BACK, Limits, Merged, merge
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode

R, W, D, F = Opcode.READ, Opcode.WRITE, Opcode.DISCARD, Opcode.FLUSH
K = 1024


class Ask(NamedTuple):
    """A request."""

    opcode: Opcode
    offset: int = 0
    length: int = 4 * K
    queue: object = "disk"
    id: bytes = b""
    fill: bytes = b"."

    @property
    def data(self) -> bytes:
        """As long as it says."""
        return self.fill * self.length if self.opcode is W else b""


def ranges(commands: list[Merged[Ask]]) -> list[tuple[Opcode, int, int]]:
    """What each command does: opcode, offset and end in KiB."""
    return [(command.opcode, command.offset // K, command.end // K) for command in commands]


@pytest.mark.parametrize("opcode", [R, W, D])
@pytest.mark.parametrize("offsets", [(0, 4, 8), (8, 4, 0), (0, 8, 4)])
def test_requests_that_touch_are_one_command(opcode: Opcode, offsets: tuple[int, ...]) -> None:
    """Upwards and downwards; one that fills a gap joins one neighbour."""
    commands = merge([Ask(opcode, at * K) for at in offsets])

    assert sum(len(command.parts) for command in commands) == 3
    assert ranges(commands)[0][0] is opcode
    assert len(commands) == (2 if offsets == (0, 8, 4) else 1)


def test_requests_with_a_gap_stay_apart() -> None:
    """Nothing is read that nobody asked for."""
    assert ranges(merge([Ask(R, 0), Ask(R, 8 * K)])) == [(R, 0, 4), (R, 8, 12)]


def test_reads_that_overlap_are_one_command() -> None:
    """The same bytes are read once."""
    assert ranges(merge([Ask(R, 0, 8 * K), Ask(R, 4 * K, 8 * K), Ask(R, 0)])) == [(R, 0, 12)]


def test_write_over_a_write_has_the_later_bytes() -> None:
    """As if they had been done one after the other."""
    (command,) = merge([Ask(W, 0, 2 * K, fill=b"a"), Ask(W, K, 2 * K, fill=b"b"), Ask(W, K, K, fill=b"c")])

    assert bytes(command.data()) == b"a" * K + b"c" * K + b"b" * K


def test_writes_in_any_order_lie_by_their_offsets() -> None:
    """Joined without overlaps."""
    (command,) = merge([Ask(W, K, K, fill=b"b"), Ask(W, 0, K, fill=b"a")])

    assert command.data() == b"a" * K + b"b" * K


def test_flush_is_crossed_by_nothing() -> None:
    """Neither forwards nor backwards."""
    commands = merge([Ask(W, 0), Ask(F, 0, 0), Ask(W, 4 * K), Ask(F, 0, 0)])

    assert [command.opcode for command in commands] == [W, F, W, F]


@pytest.mark.parametrize(
    ("between", "joined"),
    [
        (Ask(W, 4 * K), False),  # writes what the read would then see too early
        (Ask(D, 4 * K), False),
        (Ask(R, 64 * K), True),
        (Ask(W, 64 * K), True),
        (Ask(W, 8 * K), True),
    ],
)
def test_read_passes_only_what_it_does_not_conflict_with(between: Ask, joined: bool) -> None:
    """An earlier write of what it reads, above all."""
    commands = merge([Ask(R, 0), between, Ask(R, 4 * K)])

    assert (len(commands[0].parts) > 1) == joined


def test_write_does_not_pass_a_read_of_what_it_changes() -> None:
    """The read would see the future."""
    commands = merge([Ask(W, 0), Ask(R, 4 * K), Ask(W, 4 * K)])

    assert [len(command.parts) for command in commands] == [1, 1, 1]


def test_queues_are_merged_each_by_itself() -> None:
    """Other guests' requests between them, a flush included, are none of their business."""
    asked = [Ask(R, 0, queue="a"), Ask(R, 4 * K, queue="b"), Ask(F, 0, 0, queue="b"), Ask(R, 4 * K, queue="a")]

    commands = merge(asked)

    assert [[part.queue for part in command.parts] for command in commands] == [["a", "a"], ["b"], ["b"]]


def test_command_is_no_larger_than_the_limits() -> None:
    """In bytes, in bytes discarded, in requests."""
    half = MAX_DATA_BYTES // 2
    limits = Limits(discard_bytes=8 * K, parts=3)

    reads = merge([Ask(R, at * half, half) for at in range(3)], limits)
    discards = merge([Ask(D, at * 4 * K) for at in range(3)], limits)
    writes = merge([Ask(W, at * K, K) for at in range(4)], limits)

    assert [len(command.parts) for command in reads] == [2, 1]
    assert [len(command.parts) for command in discards] == [2, 1]
    assert [len(command.parts) for command in writes] == [3, 1]


def test_large_writes_are_not_copied_together() -> None:
    """Each has a frame of its own."""
    assert len(merge([Ask(W, 0, 32 * K), Ask(W, 32 * K, 32 * K)])) == 2


@pytest.mark.parametrize(
    "wrong", [Ask(R, 4 * K, 0), Ask(R, 4 * K + 1), Ask(R, 4 * K, 100), Ask(W, 4 * K, 512, fill=b"too long")]
)
def test_request_that_is_an_error_stays_one(wrong: Ask) -> None:
    """A neighbour must not make whole sectors of it, nor fail with it."""
    commands = merge([Ask(wrong.opcode, 0), wrong, Ask(wrong.opcode, 4 * K)])

    assert [command.parts for command in commands if wrong in command.parts] == [[wrong]]


def test_request_that_is_to_stay_alone_does() -> None:
    """It failed as a part of a command before."""
    commands = merge([Ask(R, 0), Ask(R, 4 * K, id=b"x"), Ask(R, 8 * K)], apart=frozenset({b"x"}))

    assert [len(command.parts) for command in commands] == [1, 1, 1]


def test_look_back_is_bounded() -> None:
    """A request far behind its neighbour stays alone."""
    far = [Ask(R, at * 64 * K) for at in range(1, LOOK_BACK + 1)]

    near = merge([Ask(R, 0), *far[1:], Ask(R, 4 * K)])
    missed = merge([Ask(R, 0), *far, Ask(R, 4 * K)])

    assert len(near[0].parts) == 2
    assert len(missed[0].parts) == 1
