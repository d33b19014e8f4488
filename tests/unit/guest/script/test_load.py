"""The load generator: its parameters, its pattern, and what it counts."""

from __future__ import annotations

from typing import Any

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.guest.script.load import MAX_WINDOWS, PLANNED, Windows, load_plan, main, planned_requests
from iovirt_dist.virtio.block import BlockRequest
from iovirt_dist.wire.commands import Status
from tests.unit.guest.script.board import MIB, Board

QUICK = {"seconds": 60, "warm_up_seconds": 0, "depth": 8}


def loaded(board: Board, **parameters: object) -> dict[str, Any]:
    """Results of a load on a board."""
    board.guest.parameters = QUICK | parameters
    board.run(main)
    return board.guest.results


LAYOUTS = [{}, {"packed": True}, {"interrupts": True}, {"batch": 8}, {"batch": 8, "doorbell": 4}]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_load_does_as_many_requests_as_asked_for(layout: dict[str, object]) -> None:
    """Each is counted once, and moved data is; time stands still here."""
    board = Board(bytes(MIB))
    results = loaded(board, requests=1001, block="8KiB", **layout)
    assert (results["requests"], results["failed"]) == (1001, 0)
    assert set(results) == {"requests", "seconds", "iops", "mib_per_s", "failed", "latency_us"}
    assert board.guest.memory is not None
    assert board.said[-1].startswith("requests=1001 ")


def test_load_of_flushes_moves_no_data() -> None:
    """Descriptors alone."""
    board = Board(bytes(MIB))
    results = loaded(board, request="flush", requests=64)
    assert board.disk is not None
    assert (board.disk.flushes, results["mib_per_s"]) == (64, 0.0)


def test_load_counts_failures() -> None:
    """A disk that fails does not end the load."""
    board = Board(bytes(MIB))
    assert board.disk is not None
    board.disk.fails = Status.MEDIUM_ERROR
    assert loaded(board, requests=20)["failed"] == 20


def test_load_of_writes_writes() -> None:
    """The disk's content changes, and all of it is the same block."""
    board = Board(bytes(64 * 1024))
    loaded(board, request="write", block="4KiB", pattern="sequential", requests=16)
    assert board.disk is not None
    content = bytes(board.disk.content)
    assert content == content[:4096] * 16
    assert content[:4096] != bytes(4096)


def test_pattern_random_is_repeatable_and_within_the_disk() -> None:
    """One seed, one pattern; another seed, another."""
    plan = load_plan({"block": "4KiB", "read_percent": 70})
    requests = planned_requests(plan, 1000)
    assert requests == planned_requests(plan, 1000)
    assert requests != planned_requests(load_plan({"read_percent": 70, "seed": 2}), 1000)
    assert len(requests) == PLANNED
    assert all(request.sector % 8 == 0 and request.sector + 8 <= 1000 for request in requests)
    reads = sum(request.type is BlockRequest.IN for request in requests)
    assert 0.65 < reads / PLANNED < 0.75


def test_pattern_sequential_goes_round() -> None:
    """From the start to the end, and again."""
    requests = planned_requests(load_plan({"pattern": "sequential", "block": 512}), 3)
    assert [request.sector for request in requests[:5]] == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dept": 1}, "parameters.dept: unknown parameter; did you mean 'depth'?"),
        ({"depth": "64"}, "parameters.depth: expected something like 64, got '64'"),
        ({"depth": True}, "parameters.depth: expected something like 64, got True"),
        ({"depth": 0}, "parameters.depth: expected 1 to 1024, got 0"),
        ({"block": "1KB"}, "parameters.block: expected a size such as"),
        ({"block": 100}, "parameters.block: expected whole sectors, at most 4MiB, got 100"),
        ({"batch": 65}, "parameters.batch: expected 1 to the depth, got 65"),
        ({"doorbell": 65}, "parameters.doorbell: expected 0 to the depth, got 65"),
        ({"request": "raed"}, 'parameters.request: expected "read", "write" or "flush", got \'raed\''),
        ({"window_seconds": 0.001}, "parameters.window_seconds: expected 0, or 0.01 or more, got 0.001"),
        ({"seconds": -1}, "parameters.seconds: expected 0 to 1000000, got -1"),
        ({"warm_up_seconds": float("inf")}, "parameters.warm_up_seconds: expected 0 to 1000000, got inf"),
        ({"window_seconds": float("nan")}, "parameters.window_seconds: expected 0, or 0.01 or more, got nan"),
        ({"packed": 1}, "parameters.packed: expected something like False, got 1"),
    ],
)
def test_parameters_wrong_are_one_line(parameters: dict[str, object], message: str) -> None:
    """The key, what it may be, and what it is."""
    with pytest.raises(ConfigError) as caught:
        load_plan(parameters)
    assert str(caught.value).startswith(message)


def test_block_larger_than_the_disk_is_refused() -> None:
    """There is no place for it."""
    with pytest.raises(ConfigError, match="a block of 4096 bytes on a disk of 7 sectors"):
        planned_requests(load_plan({}), 7)


def test_windows_are_whole_and_those_without_requests_are_zero() -> None:
    """The window in which the load begins is not counted; published is what is over."""
    published: list[dict[str, Any]] = []
    windows = Windows(100, 250, published.append)

    for count, now_ns in ((1, 260), (2, 300), (3, 399), (4, 400), (5, 710)):
        windows.add(count, now_ns)

    assert published[-1]["first"] == 3
    assert published[-1]["requests"] == [5, 4, 0, 0]


def test_windows_keep_the_last_ones() -> None:
    """However long the load runs, or waits."""
    published: list[dict[str, Any]] = []
    windows = Windows(10, 0, published.append)

    windows.add(1, 10)
    windows.add(2, 10 * (MAX_WINDOWS + 2))
    windows.add(3, 10**12)

    assert len(published[-1]["requests"]) == MAX_WINDOWS
    assert published[-1]["first"] == 10**11 - MAX_WINDOWS
    assert sum(published[-1]["requests"]) == 0


def test_load_publishes_windows_while_it_runs() -> None:
    """Of the load that counts; not of the warm-up."""
    board = Board(bytes(MIB))
    results = loaded(board, requests=100, window_seconds=1.0)
    assert "windows" not in results, "time stands still on the board"
    assert (results["requests"], results["failed"]) == (100, 0)
