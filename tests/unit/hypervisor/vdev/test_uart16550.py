"""The 16550 against the PC16550D data sheet, and against what U-Boot's ns16550 driver does with it."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.device import StringDevice
from iovirt_dist.hypervisor.vdev.uart16550 import Uart16550

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7
CHARACTER_NS = 10 * 1_000_000_000 * 16 // 1_843_200
"""8N1 at divisor 1 (115,200 baud): ten bits."""


class Wire:
    """A terminal backend with a settable space, and the interrupt line."""

    def __init__(self, space: int = 1 << 20) -> None:
        self.free = space
        self.calls: list[bytes] = []
        self.edges: list[bool] = []

    def transmit(self, data: bytes) -> None:
        """Take bytes."""
        self.calls.append(data)
        self.free -= len(data)

    def space(self) -> int:
        """Bytes that are free."""
        return self.free

    def irq(self, level: bool) -> None:
        """Record a level."""
        self.edges.append(level)

    @property
    def level(self) -> bool:
        """The line now."""
        return bool(self.edges) and self.edges[-1]

    @property
    def sent(self) -> bytes:
        """All bytes in order."""
        return b"".join(self.calls)


class Bench:
    """A UART on a wire, programmed 8N1 at divisor 1, with short register accesses."""

    def __init__(self, space: int = 1 << 20, fcr: int = 0) -> None:
        self.wire = Wire(space)
        self.uart = Uart16550(self.wire.irq, self.wire)
        for register, value in ((LCR, 0x83), (DLL, 1), (DLM, 0), (LCR, 0x03), (FCR, fcr)):
            self.out(register, value)

    def out(self, register: int, value: int, now_ns: int = 0) -> None:
        """OUT of a byte."""
        self.uart.write(register, 1, value, now_ns)

    def inp(self, register: int, now_ns: int = 0) -> int:
        """IN of a byte."""
        return self.uart.read(register, 1, now_ns)


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


def test_uart_receiver_without_fifo_takes_one_character() -> None:
    """`receive` returns what fitted; the caller keeps the rest."""
    bench = Bench()

    fitted = bench.uart.receive(b"abc", 0)

    assert fitted == 1
    assert bench.inp(LSR) & 0x01
    assert bench.inp(RBR) == ord("a")
    assert not bench.inp(LSR) & 0x01
    assert bench.uart.room() == 1


def test_uart_receiver_with_fifo_takes_sixteen_characters_in_order() -> None:
    """The FIFO is 16 deep and first in first out."""
    bench = Bench(fcr=0x01)

    fitted = bench.uart.receive(bytes(range(20)), 0)

    assert fitted == 16
    assert [bench.inp(RBR) for _ in range(16)] == list(range(16))
    assert bench.uart.room() == 16


@pytest.mark.parametrize(("fcr", "trigger"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_uart_receiver_interrupts_at_its_trigger_level_and_below_it_not(fcr: int, trigger: int) -> None:
    """Data available is a level: set at the trigger, gone below it."""
    bench = Bench(fcr=fcr)
    bench.out(IER, 0x01)

    bench.uart.receive(bytes(trigger - 1), 0)
    before = bench.wire.level
    bench.uart.receive(b"x", 0)
    at = (bench.wire.level, bench.inp(IIR))
    bench.inp(RBR)

    assert (before, at) == (False, (True, 0xC4))
    assert not bench.wire.level


def test_uart_character_timeout_comes_after_four_character_times() -> None:
    """Below the trigger, the time-out interrupt tells of the rest; a read of RBR clears it and restarts the timer."""
    bench = Bench(fcr=0xC1)
    bench.out(IER, 0x01)
    bench.uart.receive(b"ab", 1000)
    due = bench.uart.deadline_ns()
    assert due is not None

    bench.uart.advance(due - 1)
    early = bench.wire.level
    bench.uart.advance(due)
    identity = bench.inp(IIR, due)
    bench.inp(RBR, due)

    assert abs(due - 1000 - 4 * CHARACTER_NS) < 4
    assert (early, identity) == (False, 0xCC)
    assert not bench.wire.level
    assert bench.uart.deadline_ns() == due + due - 1000


def test_uart_character_timeout_shows_to_a_read_without_a_timer_event() -> None:
    """A register access at or after the deadline sees the time-out although nobody called `advance`."""
    bench = Bench(fcr=0xC1)
    bench.out(IER, 0x01)
    bench.uart.receive(b"a", 0)

    assert bench.inp(IIR, 5 * CHARACTER_NS) == 0xCC


def test_uart_character_timeout_is_restarted_by_a_new_character() -> None:
    """Arrival before the time-out puts it off."""
    bench = Bench(fcr=0xC1)
    bench.out(IER, 0x01)
    bench.uart.receive(b"a", 0)
    first = bench.uart.deadline_ns()

    bench.uart.receive(b"b", 1000)

    assert first is not None
    assert bench.uart.deadline_ns() == first + 1000


def test_uart_character_that_arrives_after_the_timeout_starts_no_other_timer() -> None:
    """The time-out stays pending until RBR is read, so nothing is left to be timed."""
    bench = Bench(fcr=0xC1)
    bench.out(IER, 0x01)
    bench.uart.receive(b"a", 0)
    bench.uart.advance(5 * CHARACTER_NS)

    bench.uart.receive(b"b", 5 * CHARACTER_NS)

    assert bench.uart.deadline_ns() is None
    assert bench.inp(IIR, 5 * CHARACTER_NS) == 0xCC


def test_uart_fifo_emptied_leaves_no_timeout() -> None:
    """Nothing waits, nothing is timed."""
    bench = Bench(fcr=0xC1)
    bench.out(IER, 0x01)
    bench.uart.receive(b"a", 0)

    bench.inp(RBR)

    assert bench.uart.deadline_ns() is None


def test_uart_receiver_fifo_reset_throws_characters_away() -> None:
    """FCR bit 1 empties the receiver; the line falls."""
    bench = Bench(fcr=0x01)
    bench.out(IER, 0x01)
    bench.uart.receive(b"abc", 0)

    bench.out(FCR, 0x03)

    assert not bench.wire.level
    assert not bench.inp(LSR) & 0x01


def test_uart_break_shows_with_its_character_and_clears_on_read() -> None:
    """BI and the FIFO error bit; the interrupt is line status; the character is zero."""
    bench = Bench(fcr=0x01)
    bench.out(IER, 0x04)
    bench.uart.receive(b"a", 0)

    bench.uart.receive_break(0)
    behind_another = bench.inp(LSR)
    bench.inp(RBR)
    identity = bench.inp(IIR)
    at_the_head = bench.inp(LSR)

    assert behind_another & 0x90 == 0x80
    assert identity == 0xC6
    assert at_the_head & 0x91 == 0x91
    assert (bench.inp(LSR) & 0x90, bench.inp(RBR), bench.wire.level) == (0, 0, False)


def test_uart_loopback_in_character_mode_overrun_keeps_the_newest() -> None:
    """Without FIFO the second character overwrites the first and sets OE."""
    bench = Bench()
    bench.out(MCR, 0x10)

    bench.uart.write_string(THR, 1, b"AB", 0)

    assert bench.inp(LSR) & 0x03 == 0x03
    assert bench.inp(LSR) & 0x02 == 0
    assert bench.inp(RBR) == ord("B")
    assert bench.wire.calls == []


def test_uart_loopback_in_fifo_mode_overrun_keeps_the_oldest() -> None:
    """With a full FIFO the new character is lost and sets OE."""
    bench = Bench(fcr=0x01)
    bench.out(MCR, 0x10)

    bench.uart.write_string(THR, 1, bytes(range(17)), 0)

    assert bench.inp(LSR) & 0x02
    assert bench.uart.read_string(RBR, 1, 17, 0) == bytes(range(16)) + b"\0"


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
