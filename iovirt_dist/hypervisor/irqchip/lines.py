"""The interrupt inputs of one guest's CPU, as monotone counts.

A level is not sent as a level: each change adds one to the line's count, and the count crosses the wire. Odd means
asserted. A message that comes late, twice or not at all can therefore neither invent nor lose an interrupt: the
highest count seen is the truth. Changes between two looks are coalesced.
"""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.device import IrqLine


class InterruptLines:
    """Counts of all lines, and which of them changed since the last look."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._changed: set[int] = set()

    def line(self, number: int) -> IrqLine:
        """Return the output that an interrupt controller drives for this line."""
        self._counts.setdefault(number, 0)

        def set_level(level: bool) -> None:
            self.set(number, level)

        return set_level

    def set(self, number: int, level: bool) -> None:
        """Drive a line; a level that it has already changes nothing."""
        count = self._counts.get(number, 0)
        if (count & 1) != level:
            self._counts[number] = count + 1
            self._changed.add(number)

    @property
    def changed(self) -> bool:
        """Whether `take_changes` has anything to return."""
        return bool(self._changed)

    def take_changes(self) -> tuple[int, ...]:
        """Return changed lines as pairs ``line, count`` in one flat tuple, and forget that they changed."""
        if not self._changed:
            return ()
        pairs = tuple(x for line in sorted(self._changed) for x in (line, self._counts[line]))
        self._changed.clear()
        return pairs

    def raised(self) -> int:
        """How often any line rose, over all lines."""
        return sum((count + 1) // 2 for count in self._counts.values())
