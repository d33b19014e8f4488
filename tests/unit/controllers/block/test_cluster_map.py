"""The map of an overlay's clusters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iovirt_dist.controllers.block.cluster_map import BLOCK_BYTES, ClusterMap, Run, map_bytes

CLUSTERS = 70


def _map(*ranges: tuple[int, int]) -> ClusterMap:
    clusters = ClusterMap(CLUSTERS, bytes(map_bytes(CLUSTERS)))
    for first, last in ranges:
        clusters.apply(*clusters.with_range(first, last))
    return clusters


def test_runs_alternate_and_cover_the_range() -> None:
    """Also where they cross bytes and begin or end inside one."""
    clusters = _map((3, 5), (8, 8), (15, 40))

    assert list(clusters.runs(4, 42)) == [
        Run(4, 6, True),
        Run(6, 8, False),
        Run(8, 9, True),
        Run(9, 15, False),
        Run(15, 41, True),
        Run(41, 43, False),
    ]


@given(st.sets(st.integers(0, CLUSTERS - 1)), st.integers(0, CLUSTERS - 1), st.integers(0, CLUSTERS - 1))
def test_runs_and_all_own_are_as_the_single_bits(own: set[int], one: int, other: int) -> None:
    """For any content and range."""
    clusters = _map(*((n, n) for n in own))
    first, last = min(one, other), max(one, other)

    runs = list(clusters.runs(first, last))

    assert [n for run in runs if run.own for n in range(run.first, run.end)] == [
        n for n in range(first, last + 1) if n in own
    ]
    assert [run.first for run in runs] == [first, *(run.end for run in runs[:-1])]
    assert clusters.all_own(first, last) == own.issuperset(range(first, last + 1))
    assert clusters.own == len(own)


def test_with_range_changes_nothing_until_it_is_applied() -> None:
    """What is written to the file first is what the map becomes."""
    clusters = _map((0, 0))

    start, content = clusters.with_range(9, 16)

    assert (start, content) == (1, b"\xfe\x01")
    assert clusters.own == 1


@pytest.mark.parametrize(("first", "last", "blocks"), [(0, 0, [0]), (32767, 32768, [0, 1]), (70000, 70000, [2])])
def test_changed_blocks_are_those_that_were_touched_and_taken_once(first: int, last: int, blocks: list[int]) -> None:
    """A block holds the bits of 32768 clusters."""
    clusters = ClusterMap(100_000, bytes(map_bytes(100_000)))
    clusters.apply(*clusters.with_range(first, last))

    taken = clusters.take_changed()

    assert [start for start, _ in taken] == [number * BLOCK_BYTES for number in blocks]
    assert {len(content) for _, content in taken} == {BLOCK_BYTES}
    assert (clusters.changed, clusters.take_changed()) == (False, [])


def test_mark_changes_finds_the_blocks_that_differ() -> None:
    """Those that a former life has not made stable."""
    size = map_bytes(100_000)
    stable = bytearray(size)
    stable[5] = 1
    clusters = ClusterMap(100_000, bytes(size))

    clusters.mark_changes(bytes(stable))

    assert [start for start, _ in clusters.take_changed()] == [0]


@pytest.mark.parametrize(("clusters", "length"), [(1, 4096), (32768, 4096), (32769, 8192)])
def test_map_is_whole_blocks(clusters: int, length: int) -> None:
    """As they are written at once."""
    assert map_bytes(clusters) == length
