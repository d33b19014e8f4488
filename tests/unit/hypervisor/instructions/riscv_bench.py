"""Runs one RISC-V instruction of the table and reports what happened in the table's own words."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.riscv.vcpu import RiscvCpu
from iovirt_dist.guest.vcpu import ExitReason
from iovirt_dist.hypervisor.instructions import Effect, Grant, Instruction, Outcome
from iovirt_dist.hypervisor.privilege import ALLOWED, refusal
from iovirt_dist.wire.messages import Trap, TrapKind
from tests.unit.guest.riscv.support import (
    DEVICE,
    MACHINE_HANDLER,
    SNIPPET,
    SV39,
    TABLE_PAGES,
    USER_PAGE,
    M,
    RecordingBus,
    Setup,
    U,
    bench,
)

LEAVES = TABLE_PAGES + 0x2000
"""Page table whose first entry maps `USER_PAGE`; the two behind it are filled here."""
REGISTER = 0x1000_1000
VALID_DATA_PAGE, USER = 0xC7, 0x10  # V, R, W, A, D; U

MSTATUS_SUM = 1 << 18
"""S mode may use user pages, for the end of the code."""
FINISH = bytes.fromhex("23200700 6f000000")  # sw zero, (a4); j .


@dataclass
class TrapBus(RecordingBus):
    """The hypervisor's privilege check behind a recording bus.

    Attributes:
        traps: Kinds of the traps that came.
    """

    traps: list[TrapKind] = field(default_factory=list)

    def load(self, address: int, width: int, privilege: IoPrivilege) -> int:
        """Trap and answer."""
        self._trap(TrapKind.MMIO_LOAD, address, width, privilege)
        return 0x5A

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege) -> None:
        """Trap, or end the run."""
        if address != DEVICE:
            self._trap(TrapKind.MMIO_STORE, address, width, privilege)
        super().store(address, width, value, privilege)

    def _trap(self, kind: TrapKind, address: int, width: int, privilege: IoPrivilege) -> None:
        self.traps.append(kind)
        assert refusal(Trap(len(self.traps), kind, address, width, 1, 0, *privilege)) == ALLOWED


def observe(row: Instruction, *, level: int, grant: Grant | None = None) -> tuple[Outcome, bool]:
    """Run an instruction at one level.

    Returns:
        What happened, and whether the exception, if any, was raised by the instruction itself.
    """
    prefix = _prologue(level) + row.before
    cpu, bus, halted = _run(prefix + row.code, level, grant)
    traps = tuple(bus.traps)
    if MACHINE_HANDLER < cpu.read_register("pc") < SNIPPET:
        at_instruction = cpu.read_register("mepc") == (USER_PAGE if level == U else SNIPPET) + len(prefix)
        return Outcome(Effect.FAULTED, traps, cpu.read_register("mcause")), at_instruction
    effect = Effect.DONE
    if halted:
        effect = Effect.HALTED
    elif row.witness:
        without, _, _ = _run(prefix, level, grant)
        if cpu.read_register(row.witness) == without.read_register(row.witness):
            effect = Effect.IGNORED
    return Outcome(effect, traps), True


def _prologue(level: int) -> bytes:
    """Set a0 to the device's register, a4 to where the code ends, a2 to 888h; the second time go straight to the end.

    The second time is after SRET and MRET, which return to the start in U mode.
    """
    device, done = (REGISTER, DEVICE) if level == M else (USER_PAGE + 0x1000, USER_PAGE + 0x2000)
    words = (
        device | 0x537,  # lui a0, device
        done | 0x737,  # lui a4, done
        0x0004_0663,  # beqz s0, +12
        0x0007_2023,  # sw zero, (a4)
        0x0000_006F,  # j .
        0x0010_0413,  # li s0, 1
        0x0000_1637,  # lui a2, 1
        0x8886_0613,  # addi a2, a2, -1912
    )
    return struct.pack("<8I", *words)


def _run(code: bytes, level: int, grant: Grant | None) -> tuple[RiscvCpu, TrapBus, bool]:
    """Run code that ends with a store to the DONE register, an exception or WFI; whether it was WFI."""
    bus = TrapBus()
    entry = USER_PAGE if level == U else SNIPPET
    setup = Setup(level=level, satp=0 if level == M else SV39, status=MSTATUS_SUM, entry=entry)
    cpu = bench(code + FINISH, setup, bus)
    user = USER if grant is Grant.USER_PAGE else 0
    cpu.write_memory(LEAVES + 8, struct.pack("<Q", REGISTER >> 2 | VALID_DATA_PAGE | user))
    cpu.write_memory(LEAVES + 16, struct.pack("<Q", DEVICE >> 2 | VALID_DATA_PAGE | USER))
    cpu._engine.write_register("sepc", SNIPPET if level == M else USER_PAGE)
    outcome = cpu.run()
    assert outcome.reason in (ExitReason.HALTED, ExitReason.KICKED), outcome
    return cpu, bus, outcome.reason is ExitReason.HALTED
