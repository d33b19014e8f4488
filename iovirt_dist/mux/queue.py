"""The seam between drivers and the queue that decides whose request goes next.

`mux.fifo.Fifo` is one; schedulers with a queue per guest have the same face.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Queued(Protocol):
    """What can wait in a queue."""

    @property
    def guest(self) -> int:
        """Instance number of the guest that it belongs to."""
        ...


Q = TypeVar("Q", bound=Queued)


class RequestQueue(Protocol[Q]):
    """A bounded queue of many guests' requests."""

    def __len__(self) -> int:
        """How many wait."""
        ...

    def push(self, item: Q) -> bool:
        """Queue an item; False and nothing queued where the bound is reached."""
        ...

    def push_front(self, items: Sequence[Q]) -> None:
        """Put items back that were taken before, in order, whatever the bound: they were counted once."""
        ...

    def take(self, most: int) -> list[Q]:
        """Take up to `most` items, those that are served next."""
        ...

    def drop(self, guest: int) -> list[Q]:
        """Take out all items of a guest instance and return them."""
        ...
