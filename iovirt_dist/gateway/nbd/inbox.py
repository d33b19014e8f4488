"""What a connection has received and not looked at yet, in one buffer that the socket fills directly."""

from __future__ import annotations

_LEAST_ROOM = 64 << 10
"""A socket is read into at least so much, or what is there moves to the front first."""


class Inbox:
    """A buffer that is filled at its end and emptied at its front.

    Args:
        size_bytes: Most that can wait in it, above 64 KiB.

    Attributes:
        view: All of it.
        start: Where what is there begins; whoever takes something moves it on.
        end: Where it ends.
    """

    __slots__ = ("end", "start", "view")

    def __init__(self, size_bytes: int) -> None:
        self.view = memoryview(bytearray(size_bytes))
        self.start = 0
        self.end = 0

    @property
    def full(self) -> bool:
        """Whether nothing more can be received before something is taken."""
        return self.end - self.start >= len(self.view)

    def room(self) -> memoryview:
        """Return where the next bytes go, not empty unless `full`. Views of what is there are void after that."""
        start, end = self.start, self.end
        if start == end:
            self.start = self.end = 0
        elif start and len(self.view) - end < _LEAST_ROOM:
            self.view[: end - start] = self.view[start:end]
            self.start, self.end = 0, end - start
        return self.view[self.end :]

    def received(self, count: int) -> None:
        """Note that so many bytes were put where `room` said."""
        self.end += count
