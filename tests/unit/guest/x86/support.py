"""Test doubles for x86 CPUs: a bus that records, a bus of minimal PC devices for firmware, and image builders."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from iovirt_dist.errors import GuestFault
from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.loader.image import ImageFormat, LoadedImage, Segment
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.x86.vcpu import X86Cpu

MIB = 1 << 20


@dataclass
class RecordingBus:
    """Answers IN with 1, 2, 3..., loads with ones, and records every access.

    Attributes:
        log: (operation, port or address, width, value or count).
        privileges: What was reported with each access.
        pending: Interrupt vectors that wait; INTR is asserted while there is one.
        protect: Raise #GP where an operating system would want it: above IOPL without the bitmap's permission.
        on_out: Called with every OUT's port.
    """

    log: list[tuple[str, int, int, object]] = field(default_factory=list)
    privileges: list[IoPrivilege] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    protect: bool = False
    on_out: Callable[[int], None] = lambda port: None

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:
        """Record, check, and count upwards."""
        self._check(privilege)
        self.log.append(("in", port, width, count))
        return bytes(number % 256 for number in range(1, width * count + 1))

    def port_out(self, port: int, width: int, data: bytes, privilege: IoPrivilege) -> None:
        """Record and check."""
        self._check(privilege)
        self.log.append(("out", port, width, data))
        self.on_out(port)

    def load(self, address: int, width: int, privilege: IoPrivilege) -> int:
        """Record; nothing is there."""
        self.privileges.append(privilege)
        self.log.append(("load", address, width, 0))
        return (1 << 8 * width) - 1

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege) -> None:
        """Record."""
        self.privileges.append(privilege)
        self.log.append(("store", address, width, value))

    def acknowledge_interrupt(self) -> int:
        """Take the first pending vector."""
        return self.pending.pop(0)

    def lines(self) -> int:
        """INTR while a vector is pending."""
        return 1 if self.pending else 0

    def _check(self, privilege: IoPrivilege) -> None:
        self.privileges.append(privilege)
        if self.protect and privilege.level > privilege.iopl and not privilege.permitted:
            raise GuestFault(13, 0)


_PCI = {0: {0: 0x1237_8086, 8: 0x0600_0002}, 8: {0: 0x7000_8086, 8: 0x0601_0000, 12: 0x0080_0000}}
_CMOS_MEMORY = {0x34: 0x00, 0x35: 0x07}  # 64 KiB units above 16 MiB: 128 MiB in all
_TIMER_HZ = 1_193_182
_SERIAL_READY = 0x60


class FirmwareBus:
    """The least that U-Boot for QEMU's `pc` needs: 16550, 8254, CMOS memory size, PCI bridges; no disk.

    Attributes:
        console: What the guest printed.
        typed: What the guest has not read yet.
        traps: Port accesses.
        on_prompt: Called when the prompt appears.
    """

    def __init__(self) -> None:
        self.console = bytearray()
        self.typed = bytearray(b"\n\n\n")
        self.traps = 0
        self.on_prompt: Callable[[], None] = lambda: None
        self._cmos = 0
        self._pci = 0
        self._divisor_latch = False
        self._timer_high = False

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:
        """Read a register."""
        self.traps += 1
        return (self._read(port, width) & (1 << 8 * width) - 1).to_bytes(width, "little") * count

    def port_out(self, port: int, width: int, data: bytes, privilege: IoPrivilege) -> None:
        """Write a register."""
        self.traps += 1
        value = int.from_bytes(data[:width], "little")
        if port == 0x3F8 and not self._divisor_latch:
            self.console.append(value & 0xFF)
            if self.console.endswith(b"\n=> "):
                self.on_prompt()
        elif port == 0x3FB:
            self._divisor_latch = bool(value & 0x80)
        elif port == 0x70:
            self._cmos = value & 0x7F
        elif port == 0xCF8:
            self._pci = value

    def load(self, address: int, width: int, privilege: IoPrivilege) -> int:
        """Nothing there but the APICs, which read as 0."""
        return 0 if 0xFEC0_0000 <= address < 0xFEF0_0000 else (1 << 8 * width) - 1

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege) -> None:
        """Nothing there."""

    def acknowledge_interrupt(self) -> int:
        """Never asserted; the spurious vector."""
        return 7

    def lines(self) -> int:
        """Nothing asserted."""
        return 0

    def _read(self, port: int, width: int) -> int:
        if port in {0x40, 0x42}:
            self._timer_high = not self._timer_high
            ticks = time.monotonic_ns() * _TIMER_HZ // 10**9
            return -ticks >> (0 if self._timer_high else 8)
        if port == 0x61:
            return 0x20 if time.monotonic_ns() // 10**7 % 2 else 0
        if port == 0x3FD:
            return _SERIAL_READY | bool(self.typed)
        if port == 0x3F8:
            return self.typed.pop(0) if self.typed else 0
        if 0xCFC <= port <= 0xCFF:
            registers = _PCI.get(self._pci >> 8 & 0xFFFF)
            value = 0xFFFF_FFFF if registers is None else registers.get(self._pci & 0xFC, 0)
            return value >> 8 * (port - 0xCFC)
        fixed = {0x71: _CMOS_MEMORY.get(self._cmos, 0), 0x511: 0}
        if 0x170 <= port <= 0x177 or port == 0x376:
            return 0
        return fixed.get(port, -1)


def flat_image(code: str, address: int = 0x7C00) -> LoadedImage:
    """A boot sector from hexadecimal text; everything behind a semicolon is a comment."""
    return LoadedImage(ImageFormat.FLAT, (Segment(address, assemble(code)),), address)


def kernel_image(code: str, address: int = 0x10_0000) -> LoadedImage:
    """A multiboot kernel: 32-bit flat protected mode."""
    return LoadedImage(ImageFormat.MULTIBOOT, (Segment(address, assemble(code)),), address, {"eax": 0x2BADB002})


def assemble(code: str) -> bytes:
    """Hexadecimal text, one instruction a line, its mnemonic behind a semicolon."""
    return bytes.fromhex("".join(line.split(";")[0] for line in code.splitlines()))


def make_cpu(image: LoadedImage, bus: RecordingBus | FirmwareBus | None = None, ram_bytes: int = 4 * MIB) -> X86Cpu:
    """A CPU on Unicorn."""
    return X86Cpu(UnicornX86, bus or RecordingBus(), image, ram_bytes)
