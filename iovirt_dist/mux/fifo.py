"""First come, first served, with a bound."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Fifo(Generic[T]):
    """A bounded queue in order of arrival.

    Args:
        bound: Most items that wait at a time.
    """

    def __init__(self, bound: int) -> None:
        self._items: deque[T] = deque()
        self._bound = bound

    def __len__(self) -> int:
        return len(self._items)

    def push(self, item: T) -> bool:
        """Queue an item; False and nothing queued where the bound is reached."""
        if len(self._items) >= self._bound:
            return False
        self._items.append(item)
        return True

    def push_front(self, items: list[T]) -> None:
        """Put items back that were taken before, in order, whatever the bound: they were counted once."""
        self._items.extendleft(reversed(items))

    def take(self, most: int) -> list[T]:
        """Take up to `most` items in order."""
        take = self._items.popleft
        return [take() for _ in range(min(most, len(self._items)))]

    def drop(self, guest: int) -> list[T]:
        """Take out all items of a guest instance (by their ``id.guest``) and return them."""
        dropped = [item for item in self._items if item.id.guest == guest]  # type: ignore[attr-defined]  # items are requests
        if dropped:
            kept = [item for item in self._items if item.id.guest != guest]  # type: ignore[attr-defined]  # items are requests
            self._items = deque(kept)
        return dropped
