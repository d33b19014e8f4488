"""One ATA channel as the host sees it: a disk as device 0, no device 1, or nothing at all.

The registers of ATA/ATAPI-6 (T13 1410D), section 7; commands and transfers are in `ata_device`, the phases in
`ata_protocol`. On a PC the primary channel has its command block at 1F0h-1F7h, its control block at 3F6h and IRQ 14.

What the standard leaves open: registers are not written, and commands are ignored, while BSY or DRQ is set; the data
port without DRQ reads all ones and ignores writes; a byte access to the data port moves a word and carries its low
byte.
"""

from __future__ import annotations

from iovirt_dist.drivers.backend import DiskBackend
from iovirt_dist.errors import ConfigError
from iovirt_dist.hypervisor.vdev.ata_device import AtaDevice
from iovirt_dist.hypervisor.vdev.ata_identify import SECTOR_BYTES
from iovirt_dist.hypervisor.vdev.ata_protocol import Phase
from iovirt_dist.hypervisor.vdev.ata_taskfile import EXECUTE_DEVICE_DIAGNOSTIC, TaskFile
from iovirt_dist.hypervisor.vdev.device import IrqLine, Quiet, State
from iovirt_dist.wire.commands import Status

_DATA, _ERROR, _STATUS = 0, 1, 7
"""Offsets in the command block as read; 1 is written as Features and 7 as Command."""
_NIEN, _SRST, _HOB = 0x02, 0x04, 0x80
"""Device Control register (clause 7)."""


class AtaChannel(Quiet):
    """A channel's command block (eight ports); `control` is its control block. A `PrefetchDevice` and `Disk`.

    Args:
        irq: INTRQ.
        disk: Device 0, None for a channel with nothing attached: then every register reads 0, which no driver
            takes for a busy device.

    Attributes:
        control: The one-port control block, a `Device` that carries no state of its own.

    Raises:
        ConfigError: The disk cannot be addressed in sectors of 512 bytes.
    """

    max_width = 4

    def __init__(self, irq: IrqLine, disk: DiskBackend | None) -> None:
        if disk is not None and SECTOR_BYTES % disk.block_bytes:
            raise ConfigError(f"an ATA disk needs blocks that divide 512 bytes, not {disk.block_bytes}", disk.serial)
        self._irq = irq
        self._level = False
        self._device_control = 0
        self._task = TaskFile()
        self._task.sign()
        self._device = AtaDevice(disk, self._task, self._drive) if disk is not None else None
        self.control = AtaControlBlock(self)

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read a register; offset 0 is the data port, wider accesses elsewhere read byte registers in turn."""
        if offset == _DATA:
            return int.from_bytes(self.read_string(_DATA, width, 1, now_ns), "little")
        if width > 1:
            return sum(self.read(offset + at, 1, now_ns) << 8 * at for at in range(width))
        if self._device is None:
            return 0
        if offset == _STATUS:
            return self._read_status(self._device)
        if offset > _STATUS:
            return 0xFF
        return self._device.error if offset == _ERROR else self._task.read(offset, bool(self._device_control & _HOB))

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write a register; offset 0 is the data port, wider accesses elsewhere write byte registers in turn."""
        if offset == _DATA:
            self.write_string(_DATA, width, (value & (1 << 8 * width) - 1).to_bytes(width, "little"), now_ns)
        elif width > 1:
            for at in range(width):
                self.write(offset + at, 1, value >> 8 * at & 0xFF, now_ns)
        elif self._device is not None and offset <= _STATUS:
            self._write_register(self._device, offset, value & 0xFF)

    def read_string(self, offset: int, width: int, count: int, now_ns: int) -> bytes:
        """Read a register `count` times; on the data port all of a DRQ block moves at once."""
        if offset:
            return b"".join(self.read(offset, width, now_ns).to_bytes(width, "little") for _ in range(count))
        if self._device is None:
            return bytes(width * count)
        return self._device.take(2 * count)[::2] if width == 1 else self._device.take(width * count)

    def peek(self, offset: int, width: int) -> bytes:
        """What reads of the data port give up to the last element of the DRQ block, which moves the device on."""
        return self._device.peek(width) if offset == _DATA and width > 1 and self._device is not None else b""

    def write_string(self, offset: int, width: int, data: bytes | bytearray | memoryview, now_ns: int) -> None:
        """Write a register repeatedly; on the data port all of a DRQ block moves at once."""
        if offset:
            for at in range(0, len(data) - width + 1, width):
                self.write(offset, width, int.from_bytes(data[at : at + width], "little"), now_ns)
        elif self._device is None:
            return
        elif width == 1:
            words = bytearray(2 * len(data))
            words[::2] = data
            self._device.put(words)
        else:
            self._device.put(data)

    def complete(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Take the outcome of the request with this tag; one that is not outstanding (reset since) is ignored."""
        if self._device is not None:
            self._device.complete(tag, status, data)

    def alternate_status(self) -> int:
        """Status without clearing INTRQ (clause 7); 0 for device 1, which is not there (section 9.16.1)."""
        return 0 if self._device is None or self._task.is_device_one else self._device.status

    def write_control(self, value: int) -> None:
        """Write Device Control: HOB, SRST, nIEN (clause 7)."""
        changed = value ^ self._device_control
        self._device_control = value & (_HOB | _SRST | _NIEN)
        if self._device is None:
            return
        if changed & _SRST:
            self._device.assert_reset() if value & _SRST else self._device.release_reset()
        self._drive()

    def _read_status(self, device: AtaDevice) -> int:
        """Status; reading it clears INTRQ, unless the absent device 1 is asked."""
        if self._task.is_device_one:
            return 0
        device.acknowledge()
        return device.status

    def _write_register(self, device: AtaDevice, offset: int, value: int) -> None:
        """Write Command or a register of the task file, which also ends HOB (section 6.2.2)."""
        self._device_control &= ~_HOB
        if offset != _STATUS:
            if device.phase is Phase.IDLE:
                self._task.write(offset, value)
                self._drive()
        elif not self._task.is_device_one or value == EXECUTE_DEVICE_DIAGNOSTIC:
            device.command(value)

    def _drive(self) -> None:
        """Drive INTRQ: released while nIEN is set or device 1 is selected (section 5.2.9 and clause 7)."""
        pending = self._device is not None and self._device.intrq
        level = pending and not self._device_control & _NIEN and not self._task.is_device_one
        if level != self._level:
            self._level = level
            self._irq(level)

    def state(self) -> State:
        """Registers and device."""
        return {
            "task": self._task.state(),
            "device_control": self._device_control,
            "device": self._device.state() if self._device is not None else None,
        }

    def restore(self, state: State) -> None:
        """Take over a state and drive INTRQ accordingly."""
        self._task.restore(state["task"])
        self._device_control = state["device_control"]
        if self._device is not None:
            self._device.restore(state["device"])
        self._drive()
        self._irq(self._level)


class AtaControlBlock(Quiet):
    """Alternate Status and Device Control: one port, which shares the channel's state."""

    max_width = 1

    def __init__(self, channel: AtaChannel) -> None:
        self._channel = channel

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Alternate Status."""
        return self._channel.alternate_status()

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Device Control."""
        self._channel.write_control(value & 0xFF)

    def state(self) -> State:
        """Nothing: the channel carries it all."""
        return {}

    def restore(self, state: State) -> None:
        """Nothing to take over."""
