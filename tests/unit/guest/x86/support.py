"""Test doubles for x86 CPUs: a bus that records, a bus of minimal PC devices for firmware, and image builders."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from iovirt_dist.errors import GuestFault
from iovirt_dist.guest.bus import IoPrivilege, WithoutSystemCalls
from iovirt_dist.guest.loader.image import ImageFormat, LoadedImage, Segment
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.vcpu import Exit, ExitReason
from iovirt_dist.guest.x86.vcpu import X86Cpu

MIB = 1 << 20
HALTED = Exit(ExitReason.HALTED)
SPIN = "ebfe ; jmp $"
RESET_EDX = 0x600


@dataclass
class RecordingBus(WithoutSystemCalls):
    """Answers IN with 1, 2, 3..., loads with ones, and records every access.

    Attributes:
        log: (operation, port or address, width, value or count).
        privileges: What was reported with each access.
        pending: Interrupt vectors that wait; INTR is asserted while there is one.
        protect: Raise #GP where an operating system would want it: above IOPL without the bitmap's permission.
        on_out: Called with every OUT's port.
        answer: What IN reads, if not empty, instead of counting.
    """

    log: list[tuple[str, int, int, object]] = field(default_factory=list)
    privileges: list[IoPrivilege] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    protect: bool = False
    on_out: Callable[[int], None] = lambda port: None
    answer: bytes = b""

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:
        """Record, check, and count upwards."""
        self._check(privilege)
        self.log.append(("in", port, width, count))
        return self.answer or bytes(number % 256 for number in range(1, width * count + 1))

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


class FirmwareBus(WithoutSystemCalls):
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


# A protected-mode machine: flat segments, a gate for every vector, a TSS, identity-mapped pages

GDT = 0x1_0000
TSS = 0x1_1000
TSS_LIMIT = 0x67 + 0x80
IDT = 0x1_2000
STUBS = 0x2_0000
PAGE_DIRECTORY = 0x3_0000
PAGE_TABLE = 0x3_1000
INNER_STACK = 0x8_0000
KERNEL_STACK = 0x9_0000
USER_STACK = 0x7_0000
KERNEL_CODE = 0x10_1000
USER_CODE = 0x10_2000
REPORT_PORT = 0xF4
KERNEL_CS, KERNEL_DS, USER_CS, USER_DS, TSS_SELECTOR = 0x08, 0x10, 0x1B, 0x23, 0x28

_PROLOGUE = """
    0f0115 000f0100     ; lgdt [10f00h]
    0f011d 080f0100     ; lidt [10f08h]
    ea 15001000 0800    ; jmp 8:100015h
    66b81000            ; mov ax, 10h
    8ed8                ; mov ds, ax
    8ec0                ; mov es, ax
    8ed0                ; mov ss, ax
    bc 00000900         ; mov esp, 90000h
    66b82800            ; mov ax, 28h
    0f00d8              ; ltr ax
"""
_ENABLE_PAGING = """
    b8 00000300         ; mov eax, 30000h
    0f22d8              ; mov cr3, eax
    0f20c0              ; mov eax, cr0
    0d 00000180         ; or eax, 80010000h (PG, WP)
    0f22c0              ; mov cr0, eax
"""
_ENTER_KERNEL = """
    b8 00101000         ; mov eax, 101000h
    ffe0                ; jmp eax
"""
_ENTER_USER = """
    66b82300            ; mov ax, 23h
    8ed8                ; mov ds, ax
    8ec0                ; mov es, ax
    6a23                ; push 23h
    68 00000700         ; push 70000h
    68 {eflags}         ; push eflags
    6a1b                ; push 1bh
    68 00201000         ; push 102000h
    cf                  ; iret
"""


def protected_cpu(
    code: str,
    bus: RecordingBus | None = None,
    *,
    user: bool = False,
    paging: bool = False,
    user_eflags: int = 0x202,
) -> X86Cpu:
    """A CPU about to run `code` at CPL 0 or 3.

    Every vector has an interrupt gate (INT 80h also from CPL 3) to a stub that writes the vector to `REPORT_PORT` and
    halts. With `paging`, 4 MiB are mapped one to one, writable for the user.
    """
    enter = _ENTER_USER.format(eflags=struct.pack("<I", user_eflags).hex()) if user else _ENTER_KERNEL
    cpu = make_cpu(kernel_image(_PROLOGUE + (_ENABLE_PAGING if paging else "") + enter), bus)
    flat = [0xFFFF | access << 40 | 0xCF << 48 for access in (0x9B, 0x93, 0xFB, 0xF3)]
    tss = TSS_LIMIT | TSS << 16 | 0x89 << 40
    table = b"".join(entry.to_bytes(8, "little") for entry in (0, *flat, tss))
    cpu.write_memory(GDT, table)
    cpu.write_memory(0x1_0F00, struct.pack("<HI", len(table) - 1, GDT))
    cpu.write_memory(0x1_0F08, struct.pack("<HI", 256 * 8 - 1, IDT))
    cpu.write_memory(TSS, struct.pack("<III", 0, INNER_STACK, KERNEL_DS))
    cpu.write_memory(TSS + 0x66, struct.pack("<H", 0x68) + b"\xff" * 0x80)
    for vector in range(256):
        set_gate(cpu, vector, STUBS + 16 * vector, dpl=3 if vector == 0x80 else 0)
        # mov al, vector; out f4h, al; hlt
        cpu.write_memory(STUBS + 16 * vector, bytes([0xB0, vector, 0xE6, REPORT_PORT, 0xF4]))
    cpu.write_memory(PAGE_DIRECTORY, struct.pack("<I", PAGE_TABLE | 7))
    cpu.write_memory(PAGE_TABLE, b"".join(struct.pack("<I", page << 12 | 7) for page in range(1024)))
    cpu.write_memory(USER_CODE if user else KERNEL_CODE, assemble(code))
    return cpu


def set_gate(cpu: X86Cpu, vector: int, address: int, *, dpl: int = 0, kind: int = 0xE, present: bool = True) -> None:
    """Write one gate of the interrupt descriptor table."""
    flags = kind | dpl << 5 | (0x80 if present else 0)
    gate = struct.pack("<HHBBH", address & 0xFFFF, KERNEL_CS, 0, flags, address >> 16)
    cpu.write_memory(IDT + 8 * vector, gate)


def set_page(cpu: X86Cpu, linear: int, flags: int) -> None:
    """Change the flags (P 1, W 2, U 4) of an identity-mapped page."""
    cpu.write_memory(PAGE_TABLE + 4 * (linear >> 12), struct.pack("<I", (linear & ~0xFFF) | flags))


def stack_words(cpu: X86Cpu, count: int) -> list[int]:
    """The doublewords that lie on top of the stack."""
    top = cpu.state().registers[4]
    return list(struct.unpack(f"<{count}I", cpu.read_memory(top, 4 * count)))


def reported(bus: RecordingBus) -> list[int]:
    """The vectors that arrived in the stubs, in their order."""
    return [data[0] for _, port, _, data in bus.log if port == REPORT_PORT and isinstance(data, bytes)]
