"""Interrupts of a RISC-V guest: enabling, delegation, vectors, priority, WFI."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.vcpu import ExitReason
from tests.unit.guest.riscv.support import (
    MACHINE_HANDLER,
    SNIPPET,
    SUPERVISOR_HANDLER,
    M,
    RecordingBus,
    S,
    Setup,
    U,
    bench,
)

INTERRUPT = 1 << 63
SSI, MSI, STI, MTI, SEI, MEI = 1, 3, 5, 7, 9, 11
MPIE, SIE, MIE = 1 << 7, 1 << 1, 1 << 3

ENABLE = bytes.fromhex(
    "0545"  # 00  li a0, 1
    "73600430"  # 02  csrsi mstatus, 8
    "0945"  # 06  li a0, 2
    "23a00700"  # 08  sw zero, 0(a5)
)
READ_MIP = bytes.fromhex(
    "73254034"  # 00  csrr a0, mip
    "23a00700"  # 04  sw zero, 0(a5)
)
WAIT = bytes.fromhex(
    "73005010"  # 00  wfi
    "0545"  # 04  li a0, 1
    "73005010"  # 06  wfi
    "0945"  # 0a  li a0, 2
    "23a00700"  # 0c  sw zero, 0(a5)
)
LOOP = bytes.fromhex(
    "0505"  # 00  addi a0, a0, 1
    "fdbf"  # 02  j 0x0
)
CLEAR_MIP = bytes.fromhex(
    "73254034"  # 00  csrr a0, mip
    "73704134"  # 04  csrci mip, 2
    "73264034"  # 08  csrr a2, mip
    "23a00700"  # 0c  sw zero, 0(a5)
)
MASK_EXTERNAL = bytes.fromhex(
    "13030008"  # 00  li t1, 128
    "73104330"  # 04  csrw mie, t1
    "01a0"  # 08  j 0x8
)


@pytest.mark.parametrize("line", [MSI, MTI, MEI])
@pytest.mark.parametrize(("level", "status"), [(M, MPIE), (S, 0), (U, 0)])
@pytest.mark.parametrize("vectored", [0, 1])
def test_machine_interrupt_is_taken_where_it_is_enabled(line: int, level: int, status: int, vectored: int) -> None:
    """M mode needs MIE, lower modes nothing; the vector is the base, or base + 4 * cause; the snippet has not begun."""
    bus = RecordingBus(lines_value=1 << line)
    cpu = bench(LOOP, Setup(level=level, enabled=1 << line, status=status, mtvec=MACHINE_HANDLER | vectored), bus)

    cpu.run()

    assert [cpu.read_register(name) for name in ("mcause", "mepc", "a0")] == [INTERRUPT | line, SNIPPET, 0]
    assert cpu.read_register("t0") == MACHINE_HANDLER + 4 + 4 * line * vectored
    assert cpu.read_register("mstatus") >> 11 & 3 == level
    assert cpu.counters().interrupts == 1


@pytest.mark.parametrize("vectored", [0, 1])
@pytest.mark.parametrize(("level", "status"), [(S, SIE), (U, 0)])
def test_delegated_external_interrupt_enters_supervisor_mode(level: int, status: int, vectored: int) -> None:
    """The SEIP line with mideleg goes to stvec, direct or vectored."""
    bus = RecordingBus(lines_value=1 << SEI)
    setup = Setup(
        level=level,
        interrupts_delegated=1 << SEI,
        enabled=1 << SEI,
        status=status,
        stvec=SUPERVISOR_HANDLER | vectored,
    )
    cpu = bench(LOOP, setup, bus)

    cpu.run()

    assert [cpu.read_register(name) for name in ("scause", "sepc")] == [INTERRUPT | SEI, SNIPPET]
    assert cpu.read_register("t0") == SUPERVISOR_HANDLER + 4 + 4 * SEI * vectored


@pytest.mark.parametrize("cause", [SSI, STI])
def test_software_written_bit_interrupts_supervisor_mode(cause: int) -> None:
    """SSIP and STIP that M mode wrote are taken by S mode at its first instruction, as OpenSBI's timer relies on."""
    setup = Setup(level=S, interrupts_delegated=0x222, enabled=0x222, status=SIE, mip=1 << cause)
    cpu = bench(LOOP, setup, RecordingBus())

    cpu.run()

    assert [cpu.read_register(name) for name in ("scause", "sepc")] == [INTERRUPT | cause, SNIPPET]


def test_pending_interrupt_is_taken_right_behind_the_instruction_that_enables_it() -> None:
    """A masked interrupt waits, and comes in front of the very next instruction once MIE is set."""
    cpu = bench(ENABLE, Setup(enabled=1 << MTI), RecordingBus(lines_value=1 << MTI))

    cpu.run()

    assert [cpu.read_register(name) for name in ("mcause", "mepc", "a0")] == [INTERRUPT | MTI, SNIPPET + 6, 1]
    assert cpu.read_register("t0") == MACHINE_HANDLER + 4


@pytest.mark.parametrize(
    ("lines", "first"),
    [((MEI, MSI, MTI), MEI), ((MSI, MTI), MSI), ((MTI, MEI), MEI), ((MSI, MEI), MEI), ((MTI, SEI), MTI)],
)
def test_machine_interrupts_come_in_the_order_of_the_architecture(lines: tuple[int, ...], first: int) -> None:
    """MEI goes before MSI, MSI before MTI, and all of them before supervisor interrupts."""
    pending = sum(1 << line for line in lines)
    cpu = bench(LOOP, Setup(enabled=pending, status=MPIE), RecordingBus(lines_value=pending))

    cpu.run()

    assert cpu.read_register("mcause") == INTERRUPT | first


def test_supervisor_interrupts_come_in_the_order_of_the_architecture() -> None:
    """SEI goes before SSI and STI, though Unicorn would take the lowest number first."""
    setup = Setup(level=S, interrupts_delegated=0x222, enabled=0x222, mip=0x22)
    code = bytes.fromhex("884773600110") + LOOP  # lw a0, 8(a5), which ends the slice; csrsi sstatus, 2
    cpu = bench(code, setup, RecordingBus(lines_value=1 << SEI | 1 << MTI))

    cpu.run()

    assert [cpu.read_register(name) for name in ("scause", "t0")] == [INTERRUPT | SEI, SUPERVISOR_HANDLER + 4]


def test_interrupt_that_gave_way_comes_once_the_first_is_masked() -> None:
    """MTI, pending behind MEI, is taken when software enables only it, without a new edge."""
    pending = 1 << MEI | 1 << MTI
    setup = Setup(level=M, enabled=pending, status=0)
    # csrsi mstatus, 8 behind the write of mie
    code = MASK_EXTERNAL[:-2] + bytes.fromhex("73600430") + MASK_EXTERNAL[-2:]
    cpu = bench(code, setup, RecordingBus(lines_value=pending))

    cpu.run()

    assert cpu.read_register("mcause") == INTERRUPT | MTI


def test_lines_are_readable_in_mip() -> None:
    """All four inputs show in mip while nothing is enabled."""
    lines = 1 << MSI | 1 << MTI | 1 << SEI | 1 << MEI
    cpu = bench(READ_MIP, Setup(), RecordingBus(lines_value=lines))

    cpu.run()

    assert cpu.read_register("a0") == lines


def test_lines_are_ored_with_what_software_wrote() -> None:
    """The SEIP line does not disturb SSIP, STIP and SEIP that M mode wrote, and falls without clearing them."""
    bus = RecordingBus(lines_value=1 << MSI)
    cpu = bench(READ_MIP + bytes.fromhex("09a0") + READ_MIP, Setup(mip=0x222), bus)  # j .+2 between them
    cpu.run()
    together = cpu.read_register("a0")
    bus.lines_value = 1 << SEI

    cpu.run()
    bus.lines_value = 0
    cpu.kick()
    cpu.run()

    assert together == 0x222 | 1 << MSI
    assert cpu.read_register("a0") == 0x222
    assert cpu.read_register("mip") == 0x222


def test_software_cannot_clear_a_line() -> None:
    """M mode clears its own SSIP; the timer's line is read-only."""
    cpu = bench(CLEAR_MIP, Setup(mip=2), RecordingBus(lines_value=1 << MTI))

    cpu.run()

    assert (cpu.read_register("a0"), cpu.read_register("a2")) == (0x82, 0x80)


def test_wfi_halts_until_the_timer_and_then_takes_its_interrupt() -> None:
    """WFI with nothing pending is HALTED, again and again, until the line rises; mepc is behind the WFI."""
    bus = RecordingBus()
    cpu = bench(WAIT, Setup(enabled=1 << MTI, status=MPIE), bus)

    outcomes = [cpu.run().reason, cpu.run().reason]
    bus.lines_value = 1 << MTI
    cpu.kick()
    kicked = [cpu.run().reason, cpu.run().reason]

    assert outcomes == [ExitReason.HALTED, ExitReason.HALTED]
    assert kicked == [ExitReason.KICKED, ExitReason.KICKED]
    assert [cpu.read_register(name) for name in ("mcause", "mepc", "a0")] == [INTERRUPT | MTI, SNIPPET + 4, 0]


def test_wfi_wakes_by_an_interrupt_that_is_globally_disabled() -> None:
    """WFI resumes when an enabled bit is pending even with MIE clear, and goes on behind itself without a trap."""
    bus = RecordingBus()
    cpu = bench(WAIT, Setup(enabled=1 << MTI), bus)
    cpu.run()
    bus.lines_value = 1 << MTI

    outcome = cpu.run()

    assert outcome.reason is ExitReason.KICKED
    assert (cpu.read_register("a0"), cpu.read_register("mcause")) == (2, 0)


def test_wfi_ignores_an_interrupt_that_is_not_enabled() -> None:
    """A pending bit that mie masks does not end WFI."""
    cpu = bench(WAIT, Setup(), RecordingBus(lines_value=1 << MTI))

    outcome = cpu.run()

    assert outcome.reason is ExitReason.HALTED
    assert cpu.read_register("a0") == 0
