"""Guests that are Python coroutines: load generators and test doubles, and they say so.

A script stands where a guest's operating system stands: it has memory, registers behind traps, an interrupt line, and
virtio devices that it must negotiate with and give queues to, as a driver does.

    from iovirt_dist.guest.script import ScriptGuest, VirtioSlot, open_disk

    async def main(guest: ScriptGuest) -> None:
        disk = await open_disk(guest.virtio(VirtioSlot.DISK))
        guest.say(f"{disk.capacity} sectors; the first begins with {(await disk.read(0, 1))[:4].hex()}")

Nothing here touches a clock or a socket: `core.ScriptCore` runs a script between events,
`iovirt_dist.runtime.script_process` brings the events.
"""

from __future__ import annotations

from iovirt_dist.guest.script.console import Console, open_console
from iovirt_dist.guest.script.disk import BlockDone, BlockIo, Disk, DiskError, open_disk
from iovirt_dist.guest.script.entropy import Entropy, open_entropy
from iovirt_dist.guest.script.guest import ScriptGuest
from iovirt_dist.guest.script.tasks import Event, Task
from iovirt_dist.guest.script.transport import DeviceError, VirtioDevice
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.virtio.block import BlockRequest, BlockStatus

__all__ = [
    "BlockDone",
    "BlockIo",
    "BlockRequest",
    "BlockStatus",
    "Console",
    "DeviceError",
    "Disk",
    "DiskError",
    "Entropy",
    "Event",
    "ScriptGuest",
    "Task",
    "VirtioDevice",
    "VirtioSlot",
    "open_console",
    "open_disk",
    "open_entropy",
]
