"""The 8254 programmable interval timer of a PC, with system control port B.

Sources: Intel 8254 data sheet (order number 231164), sections "Programming the 8254", "Read Operations" and "Mode
Definitions"; Intel 82371SB (PIIX3) data sheet, section "NMI Status and Control Register" for port 61h.

40h, 41h, 42h   counters 0, 1, 2: counts in and out, in the byte order that the control word chose
43h write       7   6   5   4   3   2   1   0
                SC1 SC0 RW1 RW0 M2  M1  M0  BCD    control word for counter SC; RW = 0: counter latch command
                1   1   /CT /ST C2  C1  C0  0      read-back: latch count (bit 5 = 0), status (bit 4 = 0) of C2..C0
status byte     OUT NULL RW1 RW0 M2 M1 M0 BCD
61h             bit 0 gate of counter 2 (rw), 1 speaker (rw), 2 and 3 SERR#/IOCHK# disables (rw), 4 toggles with
                every refresh (15 us), 5 OUT of counter 2, 6 and 7 no NMI source: 0

The counters themselves are in `i8254_counter`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from iovirt_dist.hypervisor.vdev.device import IrqLine, State
from iovirt_dist.hypervisor.vdev.i8254_counter import MODES, Counter8254, CounterRegisters
from iovirt_dist.hypervisor.vdev.ports import PortBlock

# 105/88 MHz: a third of the 315/88 MHz colour carrier of NTSC; 1.193182 MHz.
TICKS = 105
PER_NS = 88_000
REFRESH_TICKS = 18
MIN_PERIOD_NS = 50_000  # no guest gets more than 20,000 timer interrupts a second out of its hypervisor

PORT_B_WRITABLE = 0x0F
PORT_B_GATE, PORT_B_REFRESH, PORT_B_OUT = 0x01, 0x10, 0x20


def ticks(now_ns: int) -> int:
    """Clock ticks since power-on."""
    return now_ns * TICKS // PER_NS


def tick_ns(tick: int) -> int:
    """First nanosecond at which `ticks` returns this tick."""
    return -(-tick * PER_NS // TICKS)


def _always() -> bool:
    return True


class Pit8254:
    """The three counters of a PC and port 61h.

    A tick that the guest could not take is discarded, not reinjected: when `advance` comes late, OUT of counter 0
    gives one rising edge and resumes the phase that it would have had all along (the policy that QEMU calls
    ``discard``). A guest that was stopped for an hour gets one interrupt, and its clock is an hour late.

    Attributes:
        counter_ports: Register block for 40h-43h; carries the state of the chip.
        system_control_b: Register block for 61h.

    Args:
        irq0: OUT of counter 0.
        observed: Whether anybody would notice `irq0`; while it returns False there is no deadline, and the edges
            of that time show up as one at the next `advance`. For instance whether the 8259 has IRQ 0 unmasked.
    """

    def __init__(self, irq0: IrqLine, observed: Callable[[], bool] = _always) -> None:
        self._irq0 = irq0
        self._observed = observed
        self._counters = (Counter8254(True), Counter8254(True), Counter8254(False))
        self._level = False
        self._port_b = 0
        self._served_ns = 0
        self.counter_ports = PortBlock(self._read, self._write, owner=self)
        self.system_control_b = PortBlock(self._read_port_b, self._write_port_b)

    def deadline_ns(self) -> int | None:
        """Next edge of counter 0 that matters, at most 20,000 a second; None while nobody observes it."""
        counter = self._counters[0]
        tick = counter.next_change()
        if tick is None or not self._observed():
            return None
        due_ns = tick_ns(tick)
        return max(due_ns, self._served_ns + MIN_PERIOD_NS) if MODES[counter.mode].periodic else due_ns

    def advance(self, now_ns: int) -> None:
        """Drive IRQ 0: at most one rising edge, however much time has passed."""
        self._served_ns = now_ns
        tick = ticks(now_ns)
        counter = self._counters[0]
        if counter.settle(tick):
            self._drive(False)
            self._drive(True)
        self._drive(counter.out(tick))

    def _drive(self, level: bool) -> None:
        if level != self._level:
            self._level = level
            self._irq0(level)

    def _read(self, offset: int, now_ns: int) -> int:
        self.advance(now_ns)
        if offset & 3 == 3:
            return 0xFF  # the chip does not drive the bus (data sheet, table of read and write operations)
        counter, tick = self._counters[offset & 3], ticks(now_ns)
        counter.settle(tick)
        return counter.read(tick)

    def _write(self, offset: int, value: int, now_ns: int) -> None:
        self.advance(now_ns)
        tick = ticks(now_ns)
        for counter in self._counters:
            counter.settle(tick)
        if offset & 3 != 3:
            self._counters[offset & 3].write(value, tick)
        elif value >> 6 == 3:
            self._read_back(value, tick)
        elif value & 0x30:
            self._counters[value >> 6].write_control(value, tick)
        else:
            self._counters[value >> 6].latch_count(tick)
        self._drive(self._counters[0].out(tick))

    def _read_back(self, value: int, tick: int) -> None:
        for number, counter in enumerate(self._counters):
            if value >> (number + 1) & 1:
                if not value & 0x20:
                    counter.latch_count(tick)
                if not value & 0x10:
                    counter.latch_status(tick)

    def _read_port_b(self, _offset: int, now_ns: int) -> int:
        tick, counter = ticks(now_ns), self._counters[2]
        counter.settle(tick)
        refresh = PORT_B_REFRESH if tick // REFRESH_TICKS & 1 else 0
        return self._port_b | refresh | (PORT_B_OUT if counter.out(tick) else 0)

    def _write_port_b(self, _offset: int, value: int, now_ns: int) -> None:
        tick, counter = ticks(now_ns), self._counters[2]
        counter.settle(tick)
        self._port_b = value & PORT_B_WRITABLE
        counter.set_gate(bool(value & PORT_B_GATE), tick)

    def state(self) -> State:
        """Counters, port B and the level of IRQ 0."""
        return {
            "counters": [asdict(counter.r) for counter in self._counters],
            "port_b": self._port_b,
            "level": self._level,
            "served_ns": self._served_ns,
        }

    def restore(self, state: State) -> None:
        """Take over counters and port B, and set IRQ 0."""
        for counter, registers in zip(self._counters, state["counters"], strict=True):
            counter.r = CounterRegisters(**registers)
        self._port_b = state["port_b"]
        self._served_ns = state["served_ns"]
        self._level = state["level"]
        self._irq0(self._level)
