"""A driver for the interrupt controller of the `virt` machine, from hart 0 in S mode.

RISC-V Platform-Level Interrupt Controller Specification 1.0.0: memory map in chapter 3, claim and completion in
chapters 8 and 9.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from iovirt_dist.guest.script.access import GuestAccess
from iovirt_dist.platform.virt import PLIC_BASE, SEIP

CONTEXT = 1
"""S mode of hart 0; context 0 is its M mode."""
_ENABLE = PLIC_BASE + 0x2000 + 0x80 * CONTEXT
_THRESHOLD = PLIC_BASE + 0x20_0000 + 0x1000 * CONTEXT
_CLAIM = _THRESHOLD + 4
_SPURIOUS = 0

Handler = Callable[[], Awaitable[None]]
"""Serves a source: makes its device lower the line."""


class Interrupts:
    """The interrupt controller, as this guest has programmed it.

    Args:
        guest: Whose.
    """

    def __init__(self, guest: GuestAccess) -> None:
        self._guest = guest
        self._enabled: dict[int, int] = {}
        self._handlers: dict[int, Handler] = {}

    def enable(self, source: int, priority: int = 1) -> None:
        """Let a source interrupt.

        Args:
            source: Number of the source, from 1.
            priority: 1 to 7, higher first.
        """
        word = source // 32
        self._enabled[word] = self._enabled.get(word, 0) | 1 << source % 32
        store = self._guest.store
        store(PLIC_BASE + 4 * source, 4, priority)
        store(_ENABLE + 4 * word, 4, self._enabled[word])
        store(_THRESHOLD, 4, 0)

    async def claim(self) -> int:
        """Return the source that is to be served, and begin its service; 0 if there is none."""
        return await self._guest.load(_CLAIM)

    def complete(self, source: int) -> None:
        """End the service of a source: it may interrupt again."""
        self._guest.store(_CLAIM, 4, source)

    def connect(self, source: int, handler: Handler) -> None:
        """Enable a source and have it served whenever it interrupts, from now on."""
        if not self._handlers:
            self._guest.spawn(self._serve())
        self._handlers[source] = handler
        self.enable(source)

    async def _serve(self) -> None:
        guest = self._guest
        while True:
            await guest.interrupt(SEIP)
            source = await self.claim()
            if source == _SPURIOUS:
                continue
            guest.interrupts_taken += 1
            handler = self._handlers.get(source)
            if handler is not None:
                await handler()
            self.complete(source)
