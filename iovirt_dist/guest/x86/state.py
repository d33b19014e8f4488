"""The architectural state of one x86 CPU as the delivery rules see it, and the engine that holds it.

Segment attributes are bits 8..23 of a descriptor's second doubleword, kept in place: bits 8..11 type, 12 S, 13..14 DPL,
15 P, 22 D/B, 23 G (Intel SDM volume 3, section 3.4.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from iovirt_dist.guest.engine import Engine, Stop

EAX: Final = 0
ECX: Final = 1
EDX: Final = 2
EBX: Final = 3
ESP: Final = 4
EBP: Final = 5
ESI: Final = 6
EDI: Final = 7

ES: Final = 0
CS: Final = 1
SS: Final = 2
DS: Final = 3
FS: Final = 4
GS: Final = 5

# EFLAGS (SDM volume 1, section 3.4.3)
TF: Final = 1 << 8
IF: Final = 1 << 9
DF: Final = 1 << 10
NT: Final = 1 << 14
RF: Final = 1 << 16
VM: Final = 1 << 17
AC: Final = 1 << 18

# Control registers (SDM volume 3, section 2.5)
CR0_PE: Final = 1 << 0
CR0_TS: Final = 1 << 3
CR0_WP: Final = 1 << 16
CR0_PG: Final = 1 << 31
CR4_PSE: Final = 1 << 4
CR4_PAE: Final = 1 << 5

# Segment attributes
ATTRIBUTE_CODE: Final = 1 << 11
ATTRIBUTE_CONFORMING: Final = 1 << 10
ATTRIBUTE_WRITABLE: Final = 1 << 9
ATTRIBUTE_READABLE: Final = 1 << 9  # of a code segment
ATTRIBUTE_ACCESSED: Final = 1 << 8
ATTRIBUTE_S: Final = 1 << 12
ATTRIBUTE_DPL_SHIFT: Final = 13
ATTRIBUTE_P: Final = 1 << 15
ATTRIBUTE_BIG: Final = 1 << 22
ATTRIBUTE_G: Final = 1 << 23


class Segment(NamedTuple):
    """A segment or table register with its hidden part; `limit` is in bytes, inclusive."""

    selector: int
    base: int
    limit: int
    attributes: int

    @property
    def dpl(self) -> int:
        """Descriptor privilege level, 0..3."""
        return self.attributes >> ATTRIBUTE_DPL_SHIFT & 3


@dataclass(slots=True)
class CpuState:
    """A copy of the CPU's state; changes take effect with `X86Engine.commit`.

    Attributes:
        registers: EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI.
        eip: Instruction pointer, relative to CS.
        eflags: All flags, architectural layout.
        cpl: Current privilege level; 0 in real mode, 3 in virtual-8086 mode.
        shadow: Interrupts are inhibited until the next instruction has completed (behind STI and MOV SS).
        segments: ES, CS, SS, DS, FS, GS.
        ldtr: Local descriptor table register.
        tr: Task register.
        gdtr: Global descriptor table register; base and limit only.
        idtr: Interrupt descriptor table register; base and limit only.
        cr0: Control register 0; not changed by `commit`.
        cr2: Page fault address.
        cr3: Page directory base; not changed by `commit`.
        cr4: Control register 4; not changed by `commit`.
    """

    registers: list[int]
    eip: int
    eflags: int
    cpl: int
    shadow: bool
    segments: list[Segment]
    ldtr: Segment
    tr: Segment
    gdtr: Segment
    idtr: Segment
    cr0: int
    cr2: int
    cr3: int
    cr4: int

    @property
    def protected(self) -> bool:
        """Protected mode, virtual-8086 mode included."""
        return bool(self.cr0 & CR0_PE)

    @property
    def virtual_8086(self) -> bool:
        """Virtual-8086 mode."""
        return bool(self.eflags & VM) and self.protected


class X86Engine(Engine, Protocol):
    """What the x86 rules need of an engine beyond `Engine`."""

    def capture(self) -> CpuState:
        """Return the CPU's state; exact between runs and inside the callbacks `port_in` and `port_out`."""
        ...

    def commit(self, state: CpuState) -> None:
        """Replace the CPU's state, at any privilege level; not from inside a callback."""
        ...

    def io_level(self) -> tuple[int, int, bool]:
        """Inside `port_in` and `port_out`: privilege level, IOPL and whether virtual-8086 mode is on."""
        ...

    def run_slice(self, pc: int, slice_us: int) -> Stop | None:
        """As `Engine.run`, but give up after about `slice_us` microseconds and return None; 0 is for ever."""
        ...

    def is_ram(self, address: int, length: int) -> bool:
        """Whether the whole physical range is RAM."""
        ...

    def map_io_gaps(self, limit: int) -> None:
        """Send all accesses below `limit` that hit neither RAM nor ROM to the callbacks `load` and `store`."""
        ...

    def clear_ram(self) -> None:
        """Zero all RAM."""
        ...

    def power_on(self) -> None:
        """Put all registers into the state after RESET (SDM volume 3, table 10-1)."""
        ...
