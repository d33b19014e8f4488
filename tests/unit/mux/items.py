"""Items of guests, for tests of the mux."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from iovirt_dist.mux.multiqueue import MultiQueue


class Item(NamedTuple):
    """Something of a guest's."""

    guest: int
    number: int = 0
    length: int = 4096
    moves_data: bool = True

    @property
    def data_bytes(self) -> int:
        """All of its range, if any."""
        return self.length if self.moves_data else 0


def items(guest: int, count: int, length: int = 4096, first: int = 0) -> list[Item]:
    """Numbered items of one guest."""
    return [Item(guest, number, length) for number in range(first, first + count)]


def fill(queue: MultiQueue[Item], guests: int, count: int, length: int = 4096) -> None:
    """Queue items of guests 1, 2, ..., who are called a, b, ...; all come at once."""
    for guest in range(1, guests + 1):
        queue.enroll(guest, chr(ord("a") + guest - 1))
        queue.entry(guest).push_many(items(guest, count, length))


def owners(taken: list[Item]) -> list[int]:
    """Whose they are, in order."""
    return [item.guest for item in taken]


def served(taken: list[Item]) -> dict[int, int]:
    """How many each guest has of them."""
    return dict(Counter(owners(taken)))
