"""The load that checks: it finds what devices lose, and nothing where they lose nothing."""

from __future__ import annotations

from typing import Any

import pytest

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.errors import ConfigError
from iovirt_dist.guest.script.disk import BlockDone
from iovirt_dist.guest.script.verify import BlockModel, main, verify_plan
from iovirt_dist.virtio.block import BlockRequest, BlockStatus
from iovirt_dist.wire.commands import Opcode, Status
from tests.unit.guest.script.board import MIB, Board, MemoryDisk

QUICK = {"seconds": 60, "requests": 600, "blocks": 32, "depth": 8}
STEP_NS = 1_000_000


class FaultyDisk(MemoryDisk):
    """A disk of one MiB that acknowledges the 100th write without doing it, or brings the 100th read wrong."""

    def __init__(self, fault: Opcode) -> None:
        super().__init__(bytes(MIB))
        self._fault = fault
        self._left = 100

    def perform(self, request: DiskRequest) -> tuple[Status, bytes]:
        """Do it, but for one request."""
        self._left -= request.opcode is self._fault
        if self._left or request.opcode is not self._fault:
            return super().perform(request)
        self._left = -1
        return Status.OK, bytes(request.length) if self._fault is Opcode.READ else b""


def verified(board: Board, **parameters: object) -> dict[str, Any]:
    """Results of a run in which each step takes a millisecond."""
    board.guest.parameters = QUICK | parameters
    task = board.scheduler.spawn(main(board.guest))
    try:
        while not task.done:
            board.step()
            board.serve()
            board.now_ns += STEP_NS
    finally:
        board.scheduler.cancel()
    return board.guest.results


def faulty(fault: Opcode) -> Board:
    """A board with a faulty disk."""
    board = Board(bytes(MIB))
    disk = board.disk
    assert disk is not None
    disk.perform = FaultyDisk(fault).perform  # type: ignore[method-assign]  # the machine knows the other one already
    return board


def test_good_disk_loses_nothing_and_every_block_is_read_at_the_end() -> None:
    """What was asked for was done, and each of the 32 blocks is checked once more."""
    board = Board(bytes(MIB))
    found = verified(board)
    assert (found["wrong"], found["failed"], found["lines"], found["draws"]) == (0, 0, 0, 0)
    assert found["writes"] + found["checked"] == found["requests"] >= 600 + 32
    assert found["checked"] > 100 + 32
    assert board.said[-1].startswith("requests=")


@pytest.mark.parametrize("fault", [Opcode.WRITE, Opcode.READ])
def test_disk_that_loses_a_write_or_garbles_a_read_is_found_out(fault: Opcode) -> None:
    """One is enough, if the block is not written again before it is read: at the end at the latest it is."""
    found = verified(faulty(fault), read_percent=90, requests=3000)
    assert found["wrong"] >= 1
    assert found["failed"] == 0


def test_failures_are_counted_and_are_no_wrong_data() -> None:
    """What a failed write left is not known, so it is not read."""
    board = Board(bytes(MIB))
    assert board.disk is not None
    board.disk.fails = Status.MEDIUM_ERROR
    found = verified(board, requests=20)
    assert found["failed"] == found["requests"] + 1 > 20  # and the flush at the end
    assert (found["wrong"], found["writes"]) == (0, 0)


def test_entropy_that_comes_twice_is_counted() -> None:
    """This board's entropy is a count of bytes: the fifth draw of 64 begins as the first."""
    found = verified(Board(), devices=["rng"], seconds=1.0, requests=0, interval=0.1)
    assert found["draws"] >= 5
    assert found["repeats"] == found["draws"] - 4


def test_console_prints_numbered_lines_until_stop_is_typed() -> None:
    """Other lines change nothing; the pause is that of the slowest write."""
    board = Board()
    board.guest.parameters = QUICK | {"devices": ["console"], "interval": 0.01}
    task = board.scheduler.spawn(main(board.guest))
    typed = {50: b"go on\r", 100: b"stop\r"}
    for step in range(130):
        board.step()
        board.serve()
        board.type(typed.get(step, b""))
        board.now_ns += STEP_NS
    assert task.done
    board.scheduler.cancel()
    lines = board.guest.results["lines"]
    assert 8 <= lines <= 12
    shown = [f"line {n} requests 0 draws 0" for n in range(1, lines + 1)]
    assert board.terminal.shown.decode().split("\r\n")[:-1] == shown


def test_rest_comes_between_completions_and_the_next_requests() -> None:
    """A hundredth of a second each, and there are at least 600 requests of at most 8 at a time."""
    board = Board(bytes(MIB))
    found = verified(board, rest=0.01)
    assert found["requests"] >= 600
    assert board.now_ns >= 600 / 8 * 0.01e9


def test_pause_is_the_longest_wait_for_the_disk() -> None:
    """The disk rests for 50 steps once."""
    board = Board(bytes(MIB))
    board.guest.parameters = QUICK
    task = board.scheduler.spawn(main(board.guest))
    step = 0
    while not task.done:
        board.step()
        if not 20 <= step < 70:
            board.serve()
        board.now_ns += STEP_NS
        step += 1
    assert 50 <= board.guest.results["pause_ms"]["disk"] <= 52


def test_model_never_has_two_requests_for_a_block_and_no_content_comes_twice() -> None:
    """Otherwise it would not be certain what a read must bring."""
    model = BlockModel(blocks=16, block_bytes=512, read_percent=50, seed=3)
    begun = [model.next() for _ in range(16)]
    assert len({block for block, _ in begun}) == 16
    written = set()
    for _ in range(200):
        block, request = begun.pop(0)
        written.add(bytes(request.data))
        data = memoryview(model.content(block, model._versions.get(block, 0)))
        model.done(block, BlockDone(0, BlockStatus.OK, data))
        begun.append(model.next())
    assert len(written - {b""}) == model.writes
    assert model.wrong == 0


def test_model_reads_only_what_was_acknowledged() -> None:
    """The first request for each block is a write."""
    model = BlockModel(blocks=4, block_bytes=512, read_percent=100, seed=1)
    kinds = [model.next()[1].type for _ in range(4)]
    assert kinds == [BlockRequest.OUT] * 4
    assert model.known == []


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"blokcs": 1}, "parameters.blokcs: unknown parameter; did you mean 'blocks'?"),
        ({"depth": 200, "blocks": 256}, "parameters.depth: expected 1 to 1024, at most half the blocks, got 200"),
        ({"devices": ["net"]}, "parameters.devices: expected some of disk, rng, console, got ['net']"),
        ({"devices": []}, "parameters.devices: expected some of disk, rng, console, got []"),
        ({"block": "100"}, "parameters.block: expected whole sectors, at most 4MiB, got '100'"),
        ({"block": "x"}, "parameters.block"),
        ({"seconds": True}, "parameters.seconds: expected something like 5.0, got True"),
        ({"interval": 0}, "parameters.interval: expected seconds, at most 60, got 0"),
        ({"rest": -1.0}, "parameters.rest: expected seconds, at most 60, got -1.0"),
    ],
)
def test_plan_refuses_what_cannot_be(parameters: dict[str, Any], message: str) -> None:
    """The error names the parameter."""
    with pytest.raises(ConfigError) as caught:
        verify_plan(parameters)
    assert message in str(caught.value)


def test_disk_that_is_too_small_for_the_depth_ends_the_script() -> None:
    """Blocks would run out."""
    with pytest.raises(ConfigError, match="8 blocks of 4096 bytes on a disk of 64 sectors"):
        verified(Board(bytes(32768)))
