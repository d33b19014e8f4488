"""Exceptions of a RISC-V guest: cause, PC, trap value, delegation and the stacks in mstatus."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.vcpu import ExitReason
from tests.unit.guest.riscv.support import (
    HOLE,
    MACHINE_HANDLER,
    SNIPPET,
    SUPERVISOR_HANDLER,
    SV39,
    USER_PAGE,
    M,
    RecordingBus,
    S,
    Setup,
    U,
    bench,
)

MIE, SIE, MPIE, SPIE, SPP = 1 << 3, 1 << 1, 1 << 7, 1 << 5, 1 << 8


@pytest.mark.parametrize("level", [U, S, M])
@pytest.mark.parametrize(
    ("instruction", "cause", "value"),
    [
        pytest.param("ffffffff", 2, 0xFFFF_FFFF, id="illegal"),
        pytest.param("0000", 2, 0, id="unimp"),
        pytest.param("732510c0", 2, 0xC010_2573, id="csrr a0, time"),
        pytest.param("73000000", 8, 0, id="ecall"),
        pytest.param("73001000", 3, SNIPPET, id="ebreak"),
        pytest.param("0290", 3, SNIPPET, id="c.ebreak"),
    ],
)
def test_exception_without_delegation_enters_machine_mode(level: int, instruction: str, cause: int, value: int) -> None:
    """Without delegation each exception of each level goes to mtvec, with the level in MPP."""
    cpu = bench(bytes.fromhex(instruction), Setup(level=level), RecordingBus())

    cpu.run()

    expected_cause = cause + level * (cause == 8)
    assert [cpu.read_register(name) for name in ("mcause", "mepc", "mtval")] == [expected_cause, SNIPPET, value]
    assert cpu.read_register("t0") == MACHINE_HANDLER + 4
    assert cpu.read_register("priv") == M
    assert cpu.read_register("mstatus") >> 11 & 3 == level
    assert cpu.counters().exceptions == 1


@pytest.mark.parametrize("level", [U, S])
@pytest.mark.parametrize(("instruction", "cause"), [("ffffffff", 2), ("73000000", 8), ("0290", 3)])
def test_delegated_exception_enters_supervisor_mode(level: int, instruction: str, cause: int) -> None:
    """A delegated exception from U or S goes to stvec and leaves the machine-level registers alone."""
    cpu = bench(bytes.fromhex(instruction), Setup(level=level, delegated=0xFFFF), RecordingBus())

    cpu.run()

    assert [cpu.read_register(name) for name in ("scause", "sepc")] == [cause + level * (cause == 8), SNIPPET]
    assert cpu.read_register("t0") == SUPERVISOR_HANDLER + 4
    assert cpu.read_register("priv") == S
    assert bool(cpu.read_register("mstatus") & SPP) == (level == S)
    assert cpu.read_register("mcause") == 0


def test_delegated_exception_in_machine_mode_stays_there() -> None:
    """Delegation never lowers the privilege: M mode's own exceptions stay in M mode."""
    cpu = bench(bytes.fromhex("ffffffff"), Setup(level=M, delegated=0xFFFF), RecordingBus())

    cpu.run()

    assert cpu.read_register("t0") == MACHINE_HANDLER + 4


def test_exception_pushes_the_machine_interrupt_enable() -> None:
    """MPIE takes MIE (here set by MRET from MPIE), and MIE is cleared."""
    cpu = bench(bytes.fromhex("73000000"), Setup(level=M, status=MPIE), RecordingBus())

    cpu.run()

    assert cpu.read_register("mstatus") & (MIE | MPIE) == MPIE


def test_delegated_exception_pushes_the_supervisor_interrupt_enable() -> None:
    """SPIE takes SIE, SIE is cleared, and MIE stays what it was."""
    cpu = bench(bytes.fromhex("73000000"), Setup(level=S, delegated=0xFFFF, status=SIE | MPIE), RecordingBus())

    cpu.run()

    assert cpu.read_register("mstatus") & (SIE | SPIE | MIE) == SPIE | MIE


def test_exception_ignores_vectored_mode() -> None:
    """Exceptions go to the base address even when mtvec says vectored."""
    cpu = bench(bytes.fromhex("ffffffff"), Setup(mtvec=MACHINE_HANDLER | 1), RecordingBus())

    cpu.run()

    assert cpu.read_register("t0") == MACHINE_HANDLER + 4


@pytest.mark.parametrize(
    ("code", "cause", "at", "value"),
    [
        pytest.param("03853500", 13, 0, HOLE + 3, id="lb a0, 3(a1)"),
        pytest.param("03b55500", 13, 0, HOLE + 5, id="ld a0, 5(a1)"),
        pytest.param("a3bba5fe", 15, 0, HOLE - 9, id="sd a0, -9(a1)"),
        pytest.param("8865", 13, 0, HOLE + 8, id="c.ld a0, 8(a1)"),
        pytest.param("2e812ae8", 15, 2, HOLE + 16, id="c.sdsp a0, 16(sp)"),
        pytest.param("2fa50510", 13, 0, HOLE, id="lr.w a0, (a1)"),
        pytest.param("2fa5c500", 15, 0, HOLE, id="amoadd.w a0, a2, (a1)"),
        pytest.param("8285", 12, HOLE - SNIPPET, HOLE, id="jr a1"),
    ],
)
def test_page_fault_reports_the_faulting_virtual_address(code: str, cause: int, at: int, value: int) -> None:
    """The trap value is the virtual address, sepc the instruction: loads, stores, atomics, fetches, short and long."""
    setup = Setup(level=S, delegated=0xFFFF, satp=SV39)
    cpu = bench(bytes.fromhex(code), setup, RecordingBus())

    cpu.run()

    assert [cpu.read_register(name) for name in ("scause", "sepc", "stval")] == [cause, SNIPPET + at, value]
    assert cpu.read_register("t0") == SUPERVISOR_HANDLER + 4


def test_load_across_a_page_boundary_reports_the_second_page() -> None:
    """When only the second page of a misaligned load is unmapped, stval points into that page."""
    # lui a1, 0x40001; ld a0, -4(a1)
    cpu = bench(
        bytes.fromhex("b715004003b5c5ff"), Setup(level=U, delegated=0xFFFF, satp=SV39, entry=USER_PAGE), RecordingBus()
    )

    cpu.run()

    assert [cpu.read_register(name) for name in ("scause", "sepc", "stval")] == [13, USER_PAGE + 4, USER_PAGE + 0x1000]


@pytest.mark.parametrize("instruction", ["73250030", "73002030", "73002010", "73005010", "73000012"])
def test_privileged_instruction_in_user_mode_is_illegal(instruction: str) -> None:
    """CSR access, mret, sret, wfi and sfence.vma trap by themselves in U mode, with the instruction word as value."""
    cpu = bench(bytes.fromhex(instruction), Setup(level=U), RecordingBus())

    cpu.run()

    word = int.from_bytes(bytes.fromhex(instruction), "little")
    assert [cpu.read_register(name) for name in ("mcause", "mtval")] == [2, word]


def test_endless_exceptions_still_answer_a_kick() -> None:
    """A guest whose handler faults for ever keeps only itself busy: `kick` gets through."""

    class KickingBus(RecordingBus):
        looks = 0

        def lines(self) -> int:
            self.looks += 1
            if self.looks == 50 and self.cpu is not None:
                self.cpu.kick()
            return 0

    cpu = bench(bytes.fromhex("ffffffff"), Setup(mtvec=0), KickingBus())

    outcome = cpu.run()

    assert outcome.reason is ExitReason.KICKED
    assert cpu.counters().exceptions > 10
