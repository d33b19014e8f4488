"""The seam between drivers and `mux.multiqueue`, the queue that decides whose request goes next."""

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
