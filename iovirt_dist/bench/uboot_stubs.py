"""U-Boot for x86 on plain Unicorn with its devices as local functions: the bare side of a boot.

The least that the firmware asks of a `pc`: 16550 at 3F8h, 8254, port 61h, CMOS memory size, PCI bridges; no disk. No
process but this one, no message, no privilege check, no interrupt.
"""

from __future__ import annotations

import time
from typing import Any

from unicorn.unicorn_const import UC_ARCH_X86, UC_HOOK_INSN, UC_MODE_16
from unicorn.unicorn_py3 import Uc
from unicorn.x86_const import UC_X86_INS_IN, UC_X86_INS_OUT, UC_X86_REG_CS

from iovirt_dist.errors import LocalError

PROMPT = b"\n=> "
STOP_AUTOBOOT = b"stop autoboot"
"""What U-Boot prints when a key keeps it at its prompt."""
WITHIN_S = 60

_MIB = 1 << 20
_ROM_SHADOW_BYTES = 128 << 10
_PIT_HZ = 1_193_182
_TRANSMITTER_EMPTY, _DATA_READY = 0x60, 0x01
_DIVISOR_LATCH = 0x80
_EXTENDED_MEMORY = {0x34: 0x00, 0x35: 0x03}
"""CMOS, in units of 64 KiB above 16 MiB: 48 MiB, 64 MiB in all."""
_BRIDGES = {
    0x0000: {0x00: 0x1237_8086, 0x08: 0x0600_0002},
    0x0008: {0x00: 0x7000_8086, 0x08: 0x0601_0000, 0x0C: 0x0080_0000},
}
"""PCI configuration of the 82441FX host bridge and the 82371SB ISA bridge, by bus/device/function."""


class LocalFirmware:
    """One boot.

    Args:
        rom: The ROM image, which ends at 4 GiB.
        memory_bytes: RAM; the CMOS tells 64 MiB.

    Attributes:
        console: What was printed.
        accesses: INs and OUTs.
    """

    def __init__(self, rom: bytes, memory_bytes: int = 64 * _MIB) -> None:
        self.console = bytearray()
        self.accesses = 0
        self._prompted = False
        self._key = b""
        self._cmos_index = 0
        self._pci_address = 0
        self._line_control = 0
        self._high_byte = False
        self._uc: Any = Uc(UC_ARCH_X86, UC_MODE_16)
        uc = self._uc
        uc.mem_map(0, memory_bytes)
        uc.mem_map((1 << 32) - len(rom), len(rom))
        uc.mem_write((1 << 32) - len(rom), rom)
        uc.mem_write(_MIB - _ROM_SHADOW_BYTES, rom[-_ROM_SHADOW_BYTES:])
        for apic in (0xFEC0_0000, 0xFEE0_0000):
            uc.mmio_map(apic, 0x1000, lambda *_: 0, None, lambda *_: None, None)
        uc.hook_add(UC_HOOK_INSN, self._in, None, 1, 0, UC_X86_INS_IN)
        uc.hook_add(UC_HOOK_INSN, self._out, None, 1, 0, UC_X86_INS_OUT)

    def boot_s(self) -> float:
        """Seconds from reset to the prompt.

        Raises:
            LocalError: It did not come within `WITHIN_S`.
        """
        started_ns = time.perf_counter_ns()
        self._uc.reg_write(UC_X86_REG_CS, 0xF000)
        self._uc.emu_start(0xFFFF0, 0, timeout=WITHIN_S * 1_000_000)
        if not self._prompted:
            raise LocalError(f"U-Boot on plain Unicorn did not come to its prompt within {WITHIN_S} s")
        return (time.perf_counter_ns() - started_ns) / 1e9

    def _in(self, _uc: Any, port: int, width: int, _data: object) -> int:
        self.accesses += 1
        return self._read(port) & (1 << 8 * width) - 1

    def _out(self, uc: Any, port: int, _width: int, value: int, _data: object) -> None:
        self.accesses += 1
        if port == 0x3F8:
            if not self._line_control & _DIVISOR_LATCH:
                self._printed(uc, value & 0xFF)
        elif port == 0x3FB:
            self._line_control = value
        elif port == 0x70:
            self._cmos_index = value & 0x7F
        elif port == 0xCF8:
            self._pci_address = value

    def _printed(self, uc: Any, byte: int) -> None:
        """Take a byte of the console; press a key when asked, stop at the prompt."""
        self.console.append(byte)
        if self.console.endswith(STOP_AUTOBOOT):
            self._key = b"\n"
        elif self.console.endswith(PROMPT):
            self._prompted = True
            uc.emu_stop()

    def _read(self, port: int) -> int:
        """Value of a register; the caller cuts it to the width."""
        if port == 0x3FD:
            return _TRANSMITTER_EMPTY | (_DATA_READY if self._key else 0)
        if port == 0x3F8:
            key, self._key = self._key, b""
            return key[0] if key else 0
        if port in (0x40, 0x42):
            self._high_byte = not self._high_byte
            count = -(time.monotonic_ns() * _PIT_HZ // 10**9)
            return count if self._high_byte else count >> 8
        if port == 0x61:
            return 0x20 if time.monotonic_ns() // 10**7 % 2 else 0
        if port == 0x71:
            return _EXTENDED_MEMORY.get(self._cmos_index, 0)
        if 0xCFC <= port <= 0xCFF:
            registers = _BRIDGES.get(self._pci_address >> 8 & 0xFFFF)
            value = 0xFFFF_FFFF if registers is None else registers.get(self._pci_address & 0xFC, 0)
            return value >> 8 * (port - 0xCFC)
        return 0 if 0x170 <= port <= 0x177 or port in (0x376, 0x511) else -1
