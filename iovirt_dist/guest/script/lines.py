"""Interrupts of a machine without an interrupt controller: each device has an input of the CPU."""

from __future__ import annotations

from iovirt_dist.guest.script.access import GuestAccess
from iovirt_dist.guest.script.interrupts import Handler, Interrupts


class LineInterrupts(Interrupts):
    """Interrupts whose sources are the CPU's inputs.

    Args:
        guest: Whose.
    """

    def __init__(self, guest: GuestAccess) -> None:
        super().__init__(guest)
        self._served: set[int] = set()

    def connect(self, source: int, handler: Handler) -> None:
        """Have an input served whenever it is asserted; the first handler stays."""
        if source not in self._served:
            self._served.add(source)
            self._guest.spawn(self._serve_line(source, handler))

    async def _serve_line(self, source: int, handler: Handler) -> None:
        guest = self._guest
        while True:
            await guest.interrupt(source)
            guest.interrupts_taken += 1
            await handler()
