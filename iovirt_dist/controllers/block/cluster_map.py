"""Which clusters of an overlay are its own: one bit for each 4 KiB, in memory, and which blocks of bits have changed.

Bit n of the map is bit ``n & 7`` of byte ``n >> 3``. Bits are only ever set: what an overlay has taken from its base
stays taken. A block is the 4 KiB of the map that are written at once, the bits of 128 MiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

CLUSTER_BITS: Final = 12
CLUSTER_BYTES: Final = 1 << CLUSTER_BITS
"""A page of the page cache and a block of most file systems: a hole of one cluster gives space back."""

BLOCK_BYTES: Final = 4096
"""Bytes of the map that are written at once."""


class Run(NamedTuple):
    """Clusters in a row of which all or none are the overlay's own.

    Attributes:
        first: Number of the first cluster.
        end: Number of the cluster behind the last.
        own: Whether they are the overlay's.
    """

    first: int
    end: int
    own: bool


class ClusterMap:
    """A map of clusters.

    Args:
        clusters: How many there are.
        content: The map's bytes, `map_bytes(clusters)` of them; bits behind the last cluster mean nothing.
    """

    def __init__(self, clusters: int, content: bytes) -> None:
        self.clusters = clusters
        self.bits = bytearray(content)
        """The map. Whoever reads one bit needs nothing else: ``bits[n >> 3] >> (n & 7) & 1``."""
        self._changed: set[int] = set()

    @property
    def own(self) -> int:
        """How many clusters are the overlay's."""
        spare = len(self.bits) * 8 - self.clusters
        whole = int.from_bytes(self.bits, "little")
        return (whole & ((1 << len(self.bits) * 8 - spare) - 1)).bit_count()

    @property
    def changed(self) -> bool:
        """Whether a block differs from what `take_changed` gave last."""
        return bool(self._changed)

    def all_own(self, first: int, last: int) -> bool:
        """Whether every cluster from `first` to `last` is the overlay's."""
        bits = self.bits
        if first == last:
            return bool(bits[first >> 3] >> (first & 7) & 1)
        return self._window(first, last) == (1 << last - first + 1) - 1

    def runs(self, first: int, last: int) -> Iterator[Run]:
        """Give the runs from cluster `first` to `last`, in their order."""
        window, left = self._window(first, last), last - first + 1
        while left:
            own = bool(window & 1)
            rest = window ^ ((1 << left) - 1) if own else window
            length = (rest & -rest).bit_length() - 1 if rest else left
            yield Run(first, first + length, own)
            first, left, window = first + length, left - length, window >> length

    def with_range(self, first: int, last: int) -> tuple[int, bytes]:
        """Return what the map becomes once clusters `first` to `last` are the overlay's.

        Returns:
            The first byte that is touched, and all that are, as they will be.
        """
        start, end = first >> 3, (last >> 3) + 1
        mask = ((1 << last - first + 1) - 1) << (first & 7)
        value = int.from_bytes(self.bits[start:end], "little") | mask
        return start, value.to_bytes(end - start, "little")

    def apply(self, start: int, content: bytes) -> None:
        """Put bytes of `with_range` into the map."""
        self.bits[start : start + len(content)] = content
        self._changed.update(range(start // BLOCK_BYTES, (start + len(content) - 1) // BLOCK_BYTES + 1))

    def mark_changes(self, stable: bytes) -> None:
        """Count the blocks in which `stable`, a map of this size, differs as changed."""
        for start in range(0, len(self.bits), BLOCK_BYTES):
            if self.bits[start : start + BLOCK_BYTES] != stable[start : start + BLOCK_BYTES]:
                self._changed.add(start // BLOCK_BYTES)

    def take_changed(self) -> list[tuple[int, bytes]]:
        """Return the blocks that have changed, each as its first byte in the map and its content."""
        starts = [number * BLOCK_BYTES for number in sorted(self._changed)]
        self._changed.clear()
        return [(start, bytes(self.bits[start : start + BLOCK_BYTES])) for start in starts]

    def _window(self, first: int, last: int) -> int:
        """Return the bits from `first` to `last`, the first one lowest."""
        value = int.from_bytes(self.bits[first >> 3 : (last >> 3) + 1], "little") >> (first & 7)
        return value & ((1 << last - first + 1) - 1)


def map_bytes(clusters: int) -> int:
    """Return the length of a map in whole blocks."""
    return -(-clusters // (8 * BLOCK_BYTES)) * BLOCK_BYTES
