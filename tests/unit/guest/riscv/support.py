"""Test doubles and a test bench for RISC-V CPUs.

The bench enters a snippet through a fixed preamble that loads the trap registers from a table and executes MRET. Every
entry of a trap handler is a jump that leaves the address behind itself in t0, to a store to the DONE register of the
recording bus, which kicks the CPU. Behind a snippet the CPU loops for ever.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from iovirt_dist.errors import GuestFault
from iovirt_dist.guest.bus import IoPrivilege, WithoutSystemCalls
from iovirt_dist.guest.loader.image import ImageFormat, LoadedImage, Segment
from iovirt_dist.guest.riscv.vcpu import RiscvCpu
from iovirt_dist.guest.unicorn.riscv import UnicornRiscv

RAM = 0x8000_0000
RAM_BYTES = 8 << 20
DEVICE = 0x1000_0000
MACHINE_HANDLER = RAM + 0x100
SUPERVISOR_HANDLER = RAM + 0x200
FINISH = RAM + 0x300
SNIPPET = RAM + 0x400
TABLE = RAM + 0x1000
TABLE_PAGES = RAM + 0x2000
HOLE = 0x7000_0000
"""A virtual address that the page table does not map; a1 holds it at entry, a5 holds DEVICE."""
USER_PAGE = 0x4000_0000
"""Virtual address of a page that is mapped for U mode; the page behind it is not mapped."""
USER_FRAME = RAM + 0x10_0000
SV39 = 8 << 60 | TABLE_PAGES >> 12

PREAMBLE = bytes.fromhex(
    "97120000"  # 00  auipc t0, 1
    "03b30200"  # 04  ld t1, 0(t0)
    "73102330"  # 08  csrw medeleg, t1
    "03b38200"  # 0c  ld t1, 8(t0)
    "73103330"  # 10  csrw mideleg, t1
    "03b30201"  # 14  ld t1, 16(t0)
    "73104330"  # 18  csrw mie, t1
    "03b38201"  # 1c  ld t1, 24(t0)
    "73100318"  # 20  csrw satp, t1
    "03b30202"  # 24  ld t1, 32(t0)
    "73105330"  # 28  csrw mtvec, t1
    "03b38202"  # 2c  ld t1, 40(t0)
    "73105310"  # 30  csrw stvec, t1
    "03b30203"  # 34  ld t1, 48(t0)
    "73204334"  # 38  csrs mip, t1
    "03b38203"  # 3c  ld t1, 56(t0)
    "73101334"  # 40  csrw mepc, t1
    "b7070010"  # 44  lui a5, 65536
    "9d45"  # 48  li a1, 7  (HOLE >> 28)
    "f205"  # 4a  slli a1, a1, 28
    "03b30204"  # 4c  ld t1, 64(t0)
    "73100330"  # 50  csrw mstatus, t1
    "73002030"  # 54  mret
)
DONE = bytes.fromhex("23a0070001a0")  # sw zero, 0(a5); j .

M, S, U = 3, 1, 0


@dataclass
class RecordingBus(WithoutSystemCalls):
    """Answers loads from a table, records every access, and kicks the CPU when DONE is written.

    Attributes:
        values: Load values by address; absent ones read as the address.
        lines_value: The interrupt inputs.
        refused: Addresses whose accesses raise an access fault.
    """

    values: dict[int, int] = field(default_factory=dict)
    lines_value: int = 0
    refused: set[int] = field(default_factory=set)
    loads: list[tuple[int, int]] = field(default_factory=list)
    stores: list[tuple[int, int, int]] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    error: BaseException | None = None
    cpu: RiscvCpu | None = None

    def load(self, address: int, width: int, privilege: IoPrivilege) -> int:
        """Record and answer."""
        if self.error is not None:
            raise self.error
        if address in self.refused:
            raise GuestFault(5)
        self.loads.append((address, width))
        self.levels.append(privilege.level)
        return self.values.get(address, address) & ((1 << 8 * width) - 1)

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege) -> None:
        """Record, or end the test."""
        if address in self.refused:
            raise GuestFault(7)
        if address == DEVICE:
            assert self.cpu is not None
            self.cpu.kick()
            return
        self.stores.append((address, width, value))
        self.levels.append(privilege.level)

    def lines(self) -> int:
        """Return the interrupt inputs."""
        return self.lines_value

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:
        """RISC-V has no ports."""
        raise AssertionError

    def port_out(self, port: int, width: int, data: bytes, privilege: IoPrivilege) -> None:
        """RISC-V has no ports."""
        raise AssertionError

    def acknowledge_interrupt(self) -> int:
        """RISC-V has no INTA cycle."""
        raise AssertionError


@dataclass
class Setup:
    """What the preamble loads before it enters the snippet.

    Attributes:
        level: Privilege of the snippet.
        delegated: medeleg.
        interrupts_delegated: mideleg.
        enabled: mie.
        satp: satp.
        mtvec: mtvec.
        stvec: stvec.
        mip: Written by the preamble (software bits).
        status: mstatus besides MPP.
    """

    level: int = M
    delegated: int = 0
    interrupts_delegated: int = 0
    enabled: int = 0
    satp: int = 0
    mtvec: int = MACHINE_HANDLER
    stvec: int = SUPERVISOR_HANDLER
    mip: int = 0
    status: int = 0
    entry: int = SNIPPET


def bench(snippet: bytes, setup: Setup, bus: RecordingBus) -> RiscvCpu:
    """Build a CPU that will run the preamble and then the snippet."""
    table = struct.pack(
        "<9Q",
        setup.delegated,
        setup.interrupts_delegated,
        setup.enabled,
        setup.satp,
        setup.mtvec,
        setup.stvec,
        setup.mip,
        setup.entry,
        setup.status | setup.level << 11,
    )
    segments = (
        Segment(RAM, PREAMBLE),
        Segment(MACHINE_HANDLER, handler(MACHINE_HANDLER)),
        Segment(SUPERVISOR_HANDLER, handler(SUPERVISOR_HANDLER)),
        Segment(FINISH, DONE),
        Segment(SNIPPET, snippet + DONE[-2:]),
        Segment(TABLE, table),
        Segment(TABLE_PAGES, page_tables()),
        Segment(USER_FRAME, snippet),
    )
    cpu = RiscvCpu(UnicornRiscv, bus, (LoadedImage(ImageFormat.FLAT, segments, RAM),), RAM_BYTES)
    bus.cpu = cpu
    return cpu


def handler(address: int) -> bytes:
    """Return 16 vectors, each ``jal t0, FINISH``."""
    entries = bytearray()
    for index in range(16):
        offset = FINISH - (address + 4 * index)
        word = (offset >> 1 & 0x3FF) << 21 | (offset >> 11 & 1) << 20 | 5 << 7 | 0x6F
        entries += struct.pack("<I", word)
    return bytes(entries)


def page_tables() -> bytes:
    """Sv39 tables: devices and RAM identity-mapped for S; one page at USER_PAGE for U."""
    valid, read, write, execute, user, accessed, dirty = (1 << bit for bit in (0, 1, 2, 3, 4, 6, 7))
    rights = valid | read | write | execute | accessed | dirty
    root, middle, leaf = bytearray(4096), bytearray(4096), bytearray(4096)

    def put(table: bytearray, index: int, address: int, flags: int) -> None:
        struct.pack_into("<Q", table, 8 * index, address >> 12 << 10 | flags)

    put(root, 0, 0, rights)
    put(root, USER_PAGE >> 30, TABLE_PAGES + 0x1000, valid)
    put(root, RAM >> 30, RAM, rights)
    put(middle, 0, TABLE_PAGES + 0x2000, valid)
    put(leaf, 0, USER_FRAME, rights | user)
    return bytes(root + middle + leaf)
