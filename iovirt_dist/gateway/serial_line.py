"""The serial console of a foreign VMM, on a virtio console of the hypervisor's machine."""

from __future__ import annotations

from collections.abc import Callable

from iovirt_dist.guest.script.access import GuestAccess
from iovirt_dist.guest.script.console import BUFFER_BYTES, Console, open_console
from iovirt_dist.guest.script.transport import VirtioDevice
from iovirt_dist.platform import vm
from iovirt_dist.platform.slots import VirtioSlot

MAX_WAITING_BYTES = 64 << 10
"""Printed bytes that wait for the hypervisor; above, no more should be read from the VMM."""


class SerialLine:
    """A serial line.

    Args:
        type_in: Takes what was typed at the terminal.

    Attributes:
        waiting: What the VMM has printed and the terminal has not taken yet. It outlives the hypervisor.
    """

    def __init__(self, type_in: Callable[[bytes], None]) -> None:
        self.waiting = bytearray()
        self._type_in = type_in
        self._wake: Callable[[], None] = lambda: None

    @property
    def full(self) -> bool:
        """Whether no more should be printed for now."""
        return len(self.waiting) >= MAX_WAITING_BYTES

    def printed(self, data: bytes) -> None:
        """The VMM has printed."""
        self.waiting += data
        self._wake()

    async def serve(self, guest: GuestAccess) -> None:
        """Carry bytes both ways, for one life of the machine."""
        printed = guest.event()
        self._wake = printed.set
        slot = VirtioSlot.SERIAL
        console = await open_console(VirtioDevice(guest, vm.window(slot), slot))
        guest.spawn(self._read(console))
        while True:
            while self.waiting:
                data = bytes(self.waiting[:BUFFER_BYTES])  # what the terminal gets twice if the hypervisor dies now
                await console.write(data)
                del self.waiting[: len(data)]
            await printed

    async def _read(self, console: Console) -> None:
        while True:
            self._type_in(await console.read())
