"""The 16550 against the PC16550D data sheet, and against what U-Boot's ns16550 driver does with it."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.device import StringDevice
from iovirt_dist.hypervisor.vdev.uart16550 import Uart16550
from tests.unit.hypervisor.vdev.uart_bench import (
    DLL,
    DLM,
    FCR,
    IER,
    IIR,
    LCR,
    LSR,
    MCR,
    MSR,
    RBR,
    SCR,
    THR,
    Bench,
    Wire,
)


def test_uart_at_power_on_reads_the_reset_values() -> None:
    """Table of reset states: IIR 01h, LSR 60h, the rest 0; the terminal shows as connected."""
    uart = Uart16550(lambda _level: None, Wire())

    registers = [uart.read(register, 1, 0) for register in range(8)]

    assert registers == [0, 0, 0x01, 0, 0, 0x60, 0xB0, 0]
    assert isinstance(uart, StringDevice)


def test_uart_byte_written_reaches_the_terminal_at_once() -> None:
    """U-Boot's putc: wait for THRE, write THR; the transmitter is empty again right away."""
    bench = Bench()

    bench.out(THR, ord("U"))

    assert bench.wire.calls == [b"U"]
    assert bench.inp(LSR) & 0x60 == 0x60


def test_uart_divisor_latch_holds_sixteen_bits_and_hides_data() -> None:
    """With DLAB set, offsets 0 and 1 are the divisor; without, they are data and IER."""
    bench = Bench()

    bench.out(LCR, 0x83)
    bench.out(DLL, 0x34)
    bench.out(DLM, 0x12)
    latched = (bench.inp(DLL), bench.inp(DLM))
    bench.out(LCR, 0x03)

    assert latched == (0x34, 0x12)
    assert (bench.inp(RBR), bench.inp(IER), bench.wire.calls) == (0, 0, [])


def test_uart_scratch_register_holds_a_byte() -> None:
    """How drivers tell that a UART is there."""
    bench = Bench()

    bench.out(SCR, 0x5A)

    assert bench.inp(SCR) == 0x5A


@pytest.mark.parametrize(("fcr", "high_bits"), [(0x00, 0x00), (0x01, 0xC0), (0xC7, 0xC0), (0xC6, 0x00)])
def test_uart_iir_shows_whether_fifos_are_on(fcr: int, high_bits: int) -> None:
    """IIR bits 7:6 follow FCR bit 0: how drivers tell a 16550A from a 16450."""
    bench = Bench(fcr=fcr)

    assert bench.inp(IIR) & 0xC0 == high_bits


def test_uart_thr_empty_interrupt_arises_when_enabled_while_empty() -> None:
    """Setting IER.ETBEI with THR empty interrupts at once; reading IIR clears it; it does not come back by itself."""
    bench = Bench()

    bench.out(IER, 0x02)
    raised = bench.wire.level
    identity = bench.inp(IIR)

    assert raised
    assert identity == 0x02
    assert not bench.wire.level
    assert bench.inp(IIR) == 0x01


def test_uart_thr_empty_interrupt_writing_the_enable_again_does_not_repeat_it() -> None:
    """Only the rise of IER.ETBEI raises it."""
    bench = Bench()
    bench.out(IER, 0x02)
    bench.inp(IIR)

    bench.out(IER, 0x03)

    assert not bench.wire.level


def test_uart_thr_write_makes_an_edge_for_the_next_interrupt() -> None:
    """Writing THR clears the interrupt and the emptied THR raises it: low, then high, as an 8259 needs."""
    bench = Bench()
    bench.out(IER, 0x02)
    bench.wire.edges.clear()

    bench.out(THR, 0x41)

    assert bench.wire.edges == [False, True]


def test_uart_iir_read_showing_another_source_keeps_thr_empty_pending() -> None:
    """Reading IIR clears the THR empty interrupt only if that is the source it shows."""
    bench = Bench()
    bench.out(IER, 0x03)
    bench.uart.receive(b"x", 0)

    identities = [bench.inp(IIR), bench.inp(RBR), bench.inp(IIR), bench.inp(IIR)]

    assert identities == [0x04, ord("x"), 0x02, 0x01]


def test_uart_interrupts_come_in_priority_order() -> None:
    """Line status, data, THR empty, modem status (section 8.5)."""
    bench = Bench()
    bench.out(MCR, 0x10)
    bench.out(THR, 0x41)
    bench.out(THR, 0x42)
    bench.out(IER, 0x0F)

    identities = []
    for clearing_register in (LSR, RBR, SCR, MSR):
        identities.append(bench.inp(IIR))
        bench.inp(clearing_register)

    assert identities == [0x06, 0x04, 0x02, 0x00]
    assert not bench.wire.level


def test_uart_loopback_takes_nothing_from_the_line() -> None:
    """The receiver is cut off, so typed bytes stay with the caller."""
    bench = Bench(fcr=0x01)
    bench.out(MCR, 0x10)

    assert bench.uart.receive(b"a", 0) == 0


@pytest.mark.parametrize(("mcr", "msr"), [(0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80), (0x1F, 0xF0)])
def test_uart_loopback_modem_inputs_follow_modem_control(mcr: int, msr: int) -> None:
    """How Linux's 8250 driver probes: MCR outputs come back as MSR inputs."""
    bench = Bench()

    bench.out(MCR, mcr)

    assert bench.inp(MSR) & 0xF0 == msr


def test_uart_modem_deltas_show_changes_once_and_ring_only_at_its_end() -> None:
    """Delta bits clear on read; TERI is set by the fall of RI, not by its rise."""
    bench = Bench()
    bench.out(MCR, 0x1B)
    bench.inp(MSR)

    bench.out(MCR, 0x1F)
    rise = bench.inp(MSR)
    bench.out(MCR, 0x18)
    fall = bench.inp(MSR)

    assert (rise, fall) == (0xF0, 0x87)
    assert bench.inp(MSR) == 0x80


def test_uart_backend_without_space_holds_the_transmitter_empty_bits_back() -> None:
    """THRE and TEMT read 0 until there is space again, even if nobody calls `resume`."""
    bench = Bench(space=1)

    bench.out(THR, ord("a"))
    full = bench.inp(LSR)
    bench.wire.free = 1

    assert full & 0x60 == 0
    assert bench.inp(LSR) & 0x60 == 0x60


def test_uart_fifo_burst_beyond_the_space_is_held_and_sent_later() -> None:
    """A driver that saw THRE may write 16 bytes: none is lost, and the interrupt comes when all are gone."""
    bench = Bench(space=3, fcr=0x01)
    bench.out(IER, 0x02)
    bench.inp(IIR)

    bench.uart.write_string(THR, 1, b"0123456789abcdef", 0)
    held = (bench.wire.sent, bench.wire.level)
    bench.wire.free = 5
    bench.uart.resume(0)
    partly = bench.wire.level
    bench.wire.free = 100
    bench.uart.resume(0)

    assert held == (b"012", False)
    assert not partly
    assert bench.wire.level
    assert bench.wire.sent == b"0123456789abcdef"
    assert bench.uart.lost_bytes == 0


def test_uart_writes_that_ignore_the_status_lose_and_count() -> None:
    """Without space and without FIFO one byte is held; what follows is lost."""
    bench = Bench(space=0)

    bench.out(THR, ord("a"))
    bench.out(THR, ord("b"))
    bench.wire.free = 10
    bench.uart.resume(0)

    assert bench.wire.sent == b"a"
    assert bench.uart.lost_bytes == 1


def test_uart_string_output_is_one_call_of_the_backend() -> None:
    """`rep outsb` moves as a whole, far beyond a FIFO."""
    bench = Bench()

    bench.uart.write_string(THR, 1, memoryview(b"x" * 4096), 0)

    assert [len(call) for call in bench.wire.calls] == [4096]


def test_uart_transmitter_reset_drops_what_is_held() -> None:
    """FCR bit 2 empties the transmitter FIFO."""
    bench = Bench(space=0, fcr=0x01)
    bench.out(THR, ord("a"))

    bench.out(FCR, 0x05)
    bench.wire.free = 10
    bench.uart.resume(0)

    assert bench.wire.sent == b""
    assert bench.inp(LSR) & 0x60 == 0x60


def test_uart_restored_drives_its_line_and_keeps_the_fifo() -> None:
    """A fresh UART that takes over a state interrupts as the old one did."""
    bench, twin = Bench(fcr=0x41), Bench()
    bench.out(IER, 0x01)
    bench.uart.receive(b"abcd", 0)

    twin.uart.restore(bench.uart.state())

    assert twin.wire.level
    assert twin.uart.read_string(RBR, 1, 4, 0) == b"abcd"
    assert not twin.wire.level
