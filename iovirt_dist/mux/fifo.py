"""First come, first served, with a bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic

from iovirt_dist.mux.queue import Q


class Fifo(Generic[Q]):
    """A bounded queue in order of arrival (contract: `mux.queue.RequestQueue`).

    Args:
        bound: Most items that wait at a time.
    """

    def __init__(self, bound: int) -> None:
        self._items: deque[Q] = deque()
        self._bound = bound

    def __len__(self) -> int:
        return len(self._items)

    def push(self, item: Q) -> bool:
        """Queue an item; False and nothing queued where the bound is reached."""
        if len(self._items) >= self._bound:
            return False
        self._items.append(item)
        return True

    def push_front(self, items: Sequence[Q]) -> None:
        """Put items back that were taken before, in order, whatever the bound: they were counted once."""
        self._items.extendleft(reversed(items))

    def take(self, most: int) -> list[Q]:
        """Take up to `most` items in order."""
        items = self._items
        if most >= len(items):
            taken = list(items)
            items.clear()
            return taken
        take = items.popleft
        return [take() for _ in range(most)]

    def drop(self, guest: int) -> list[Q]:
        """Take out all items of a guest instance and return them."""
        dropped = [item for item in self._items if item.guest == guest]
        if dropped:
            self._items = deque(item for item in self._items if item.guest != guest)
        return dropped
