"""The seam between drivers and the queue that decides whose request goes next; `mux.multiqueue` is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Queued(Protocol):
    """What can wait in a queue."""

    @property
    def guest(self) -> int:
        """Instance number of the guest that it belongs to."""
        ...

    @property
    def length(self) -> int:
        """Bytes of the range that it is about; at least `data_bytes`."""
        ...

    @property
    def data_bytes(self) -> int:
        """Bytes of data that it moves, in or out."""
        ...


Q = TypeVar("Q", bound=Queued)
Q_contra = TypeVar("Q_contra", bound=Queued, contravariant=True)


class Entry(Protocol[Q_contra]):
    """Where a guest's requests go in.

    Attributes:
        in_flight: Requests that were taken and that are not over yet: whoever ends one takes it off.
    """

    in_flight: int

    def push(self, item: Q_contra) -> bool:
        """Queue an item; False and nothing queued where the bound is reached."""
        ...

    def push_many(self, items: Sequence[Q_contra]) -> int:
        """Queue as many items as there is room for, in order; returns how many that is."""
        ...


class RequestQueue(Protocol[Q]):
    """Requests of many guests, each guest's in order and within a bound of its own."""

    def __len__(self) -> int:
        """How many wait."""
        ...

    def __bool__(self) -> bool:
        """Whether anything waits."""
        ...

    def enroll(self, guest: int, name: str) -> None:
        """Say whose instance this is, before `entry`: all instances of one name share their place in the queue."""
        ...

    def entry(self, guest: int) -> Entry[Q]:
        """Return where requests of this guest instance go in."""
        ...

    def push_front(self, items: Sequence[Q]) -> None:
        """Put items back that were taken before, in order, whatever the bound: they are still in flight."""
        ...

    def arrived(self, now_ns: int) -> None:
        """Say when what was pushed since the last time has arrived; once in a step."""
        ...

    def window(self, now_ns: int) -> int:
        """Most requests that should be in flight now: the others wait here, where their order can still be chosen."""
        ...

    def take(self, most: int, now_ns: int) -> list[Q]:
        """Take up to `most` items, those that are served next; fewer where limits hold the others back."""
        ...

    def ready_ns(self) -> int | None:
        """When `take` will have more for the passing of time alone; None for never."""
        ...

    def drop(self, guest: int) -> list[Q]:
        """Take out all items of a guest instance, which will push no more, and return them."""
        ...
