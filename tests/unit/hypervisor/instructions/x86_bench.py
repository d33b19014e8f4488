"""Runs one x86 instruction of the table and reports what happened in the table's own words."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from iovirt_dist.errors import GuestFault
from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.vcpu import ExitReason
from iovirt_dist.guest.x86.state import CpuState
from iovirt_dist.guest.x86.vcpu import X86Cpu
from iovirt_dist.hypervisor.instructions import Effect, Grant, Instruction, Outcome
from iovirt_dist.hypervisor.privilege import ALLOWED, refusal
from iovirt_dist.wire.messages import Trap, TrapKind
from tests.unit.guest.x86.support import (
    IDT,
    KERNEL_CODE,
    PAGE_TABLE,
    REPORT_PORT,
    TSS,
    USER_CODE,
    RecordingBus,
    assemble,
    protected_cpu,
    reported,
    stack_words,
)

DEVICE_PAGE, DONE_PAGE = 0x3E_0000, 0x3F_0000
"""Linear; mapped to `DEVICE`, for the system unless granted, and to `DONE`, where every code ends, for everybody."""
DEVICE, DONE = 0xFEB0_0000, 0xFEB0_1000
MEMORY = 0x6_0000
USER_EFLAGS, IOPL_3 = 0x202, 0x3000
WITH_ERROR_CODE = (13, 14)

SETUP = """
    ba50010000          ; mov edx, 150h
    be00010600          ; mov esi, 60100h
    bf00000600          ; mov edi, 60000h
    bb00020600          ; mov ebx, 60200h
    bd00003e00          ; mov ebp, 3e0000h
    b904000000          ; mov ecx, 4
    b800000080          ; mov eax, 80000000h
"""
ENABLE_INTERRUPTS = "fb 90 ; sti; nop"
FINISH = """
    c705 00003f00 00000000  ; mov dword [3f0000h], 0
    ebfe                    ; jmp $
"""


@dataclass
class TrapBus(RecordingBus):
    """The hypervisor's privilege check behind a recording bus.

    Attributes:
        traps: Kinds of the traps that came.
        cpu: Kicked when the code has come to its end.
    """

    traps: list[TrapKind] = field(default_factory=list)
    cpu: X86Cpu | None = None

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:
        """Trap, and answer or refuse as the hypervisor does."""
        self._trap(TrapKind.PORT_IN, port, width, count, privilege)
        return b"\x5a" * (width * count)

    def port_out(self, port: int, width: int, data: bytes, privilege: IoPrivilege) -> None:
        """Trap, except for the report of a handler."""
        if port == REPORT_PORT:
            super().port_out(port, width, data, privilege)
        else:
            self._trap(TrapKind.PORT_OUT, port, width, len(data) // width, privilege)

    def load(self, address: int, width: int, privilege: IoPrivilege) -> int:
        """Trap and answer."""
        self._trap(TrapKind.MMIO_LOAD, address, width, 1, privilege)
        return 0x5A

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege) -> None:
        """Trap, or end the run."""
        if address == DONE:
            assert self.cpu is not None
            self.cpu.kick()
        else:
            self._trap(TrapKind.MMIO_STORE, address, width, 1, privilege)

    def _trap(self, kind: TrapKind, address: int, width: int, count: int, privilege: IoPrivilege) -> None:
        self.traps.append(kind)
        vector = refusal(Trap(len(self.traps), kind, address, width, count, 0, *privilege))
        if vector != ALLOWED:
            raise GuestFault(vector)


@dataclass(frozen=True)
class Run:
    """One run: how it ended and the machine's state then."""

    halted: bool
    traps: tuple[TrapKind, ...]
    vectors: list[int]
    fault_eip: int
    state: CpuState
    memory: bytes

    def witness(self, name: str) -> object:
        """The state in which an instruction shows."""
        state = self.state
        return {
            "": None,
            "eax": state.registers[0],
            "esp": state.registers[4],
            "if": state.eflags >> 9 & 1,
            "zf": state.eflags >> 6 & 1,
            "cr0": state.cr0,
            "gdtr": state.gdtr,
            "idtr": state.idtr,
            "memory": self.memory,
        }[name]


def observe(row: Instruction, *, user: bool, grant: Grant | None = None) -> tuple[Outcome, bool]:
    """Run an instruction at one level.

    Returns:
        What happened, and whether the exception, if any, was raised by the instruction itself.
    """
    prefix = assemble(SETUP + ("" if user else ENABLE_INTERRUPTS)) + row.before
    run = _run(prefix + row.code, user, grant)
    if run.vectors:
        start = (USER_CODE if user else KERNEL_CODE) + len(prefix)
        at_instruction = run.vectors[0] not in WITH_ERROR_CODE or run.fault_eip == start
        return Outcome(Effect.FAULTED, run.traps, run.vectors[0]), at_instruction and len(run.vectors) == 1
    effect = Effect.DONE
    if run.halted:
        effect = Effect.HALTED
    elif row.witness and run.witness(row.witness) == _run(prefix, user, grant).witness(row.witness):
        effect = Effect.IGNORED
    return Outcome(effect, run.traps), True


def _run(code: bytes, user: bool, grant: Grant | None) -> Run:
    bus = TrapBus()
    eflags = USER_EFLAGS | (IOPL_3 if grant is Grant.IOPL else 0)
    cpu = bus.cpu = protected_cpu(code.hex() + FINISH, bus, user=user, paging=True, user_eflags=eflags)
    _prepare_memory(cpu, grant)
    outcome = cpu.run()
    assert outcome.reason in (ExitReason.HALTED, ExitReason.KICKED), outcome
    vectors = reported(bus)
    eip = stack_words(cpu, 2)[1] if vectors else 0
    halted = outcome.reason is ExitReason.HALTED
    return Run(halted, tuple(bus.traps), vectors, eip, cpu.state(), cpu.read_memory(MEMORY, 64))


def _prepare_memory(cpu: X86Cpu, grant: Grant | None) -> None:
    """Map the two pages, fill the operand of LGDT and LIDT, and permit ports."""
    user_flag = 4 if grant is Grant.USER_PAGE else 0
    for linear, physical, flags in ((DEVICE_PAGE, DEVICE, 3 | user_flag), (DONE_PAGE, DONE, 7)):
        cpu.write_memory(PAGE_TABLE + 4 * (linear >> 12), struct.pack("<I", physical | flags))
    cpu.write_memory(MEMORY + 0x200, struct.pack("<HI", 0x7F7, IDT))
    if grant is Grant.BITMAP:
        cpu.write_memory(TSS + 0x68, bytes(0x80))
