"""The 16550 UART of both machines, after National Semiconductor's PC16550D data sheet (June 1995).

Theory of operation. The transmitter is instant: a byte written to THR is handed to the terminal backend before the
write returns, so baud rates delay nothing. What can delay is the backend: while it has no `space`, LSR.THRE and TEMT
read 0 and up to one FIFO of bytes is held here, so that a driver which asks LSR before it fills the FIFO never loses
one. A driver that does not ask loses what exceeds the FIFO; `lost_bytes` counts it. The receiver (`uart_receiver`)
holds what the chip holds; `receive` says how many bytes fitted and the caller keeps the rest.

The baud rate matters in one place only: the character time-out interrupt comes four character times after the last
arrival or read. Word length and break control do not touch the bytes that go out: the terminal takes whole bytes.
The interrupt output is the chip's INTRPT pin; MCR.OUT2 does not gate it.
"""

from __future__ import annotations

from iovirt_dist.drivers.backend import TerminalBackend
from iovirt_dist.hypervisor.vdev.device import IrqLine, State
from iovirt_dist.hypervisor.vdev.uart_receiver import BREAK_ENTRY, UartReceiver

PC_CLOCK_HZ = 1_843_200
"""Input clock of the PC's serial ports: divisor 1 is 115,200 baud."""

# Interrupt identification, IIR bits 3:0 (section 8.5), highest priority first; a time-out ranks with data available.
_IIR_LINE_STATUS = 0x6
_IIR_DATA_AVAILABLE = 0x4
_IIR_TIMEOUT = 0xC
_IIR_THR_EMPTY = 0x2
_IIR_MODEM_STATUS = 0x0
_IIR_NONE = 0x1
_IIR_FIFO_ON = 0xC0

_IER_DATA, _IER_THR_EMPTY, _IER_LINE_STATUS, _IER_MODEM_STATUS = 0x01, 0x02, 0x04, 0x08
_LCR_BREAK, _LCR_DLAB = 0x40, 0x80
_MCR_DTR, _MCR_RTS, _MCR_OUT1, _MCR_OUT2, _MCR_LOOP = 0x01, 0x02, 0x04, 0x08, 0x10
_LSR_TRANSMITTER_EMPTY = 0x60
"""THRE and TEMT: one instant, since nothing stays in the shift register."""
_MSR_CTS, _MSR_DSR, _MSR_RI, _MSR_DCD = 0x10, 0x20, 0x40, 0x80
_MSR_CONNECTED = _MSR_CTS | _MSR_DSR | _MSR_DCD
"""Modem inputs: a terminal is always attached and ready."""
_LOOPED_INPUTS = ((_MCR_DTR, _MSR_DSR), (_MCR_RTS, _MSR_CTS), (_MCR_OUT1, _MSR_RI), (_MCR_OUT2, _MSR_DCD))
"""In loopback each modem input follows a modem control bit (section 8.7 "Bit 4")."""


class Uart16550:
    """A 16550 with eight byte registers and a terminal behind it; implements `StringDevice` and `Terminal`.

    Args:
        irq: The INTRPT output.
        backend: Where transmitted bytes go.
        clock_hz: Input clock, which with the divisor gives the character time; 1 or more.

    Attributes:
        lost_bytes: Bytes that the guest wrote to THR while it was full.
    """

    max_width = 1

    def __init__(self, irq: IrqLine, backend: TerminalBackend, clock_hz: int = PC_CLOCK_HZ) -> None:
        self._irq = irq
        self._backend = backend
        self._clock_hz = clock_hz
        self._receiver = UartReceiver()
        self.lost_bytes = 0
        self._ier = self._lcr = self._mcr = self._scratch = 0
        self._divisor = 12
        self._held = b""
        self._blocked = backend.space() <= 0
        self._thr_empty_latch = False
        self._modem = _MSR_CONNECTED
        self._modem_delta = 0
        self._level = False
        self._set_character_time()
        self._readers = (
            self._read_data,
            self._read_ier,
            self._read_iir,
            lambda _now_ns: self._lcr,
            lambda _now_ns: self._mcr,
            self._read_lsr,
            self._read_msr,
            lambda _now_ns: self._scratch,
        )
        self._writers = (
            self._write_data,
            self._write_ier,
            self._write_fcr,
            self._write_lcr,
            self._write_mcr,
            self._ignore,  # LSR: writing is for factory testing only (section 8.3)
            self._ignore,  # MSR
            self._write_scratch,
        )

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read register `offset` (0..7); the bytes above the first of a wider access read 0."""
        if self._receiver.timeout_ns is not None:
            self.advance(now_ns)
        return self._readers[offset & 7](now_ns)

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write the low byte of `value` to register `offset` (0..7)."""
        if self._receiver.timeout_ns is not None:
            self.advance(now_ns)
        self._writers[offset & 7](value & 0xFF, now_ns)

    def read_string(self, offset: int, width: int, count: int, now_ns: int) -> bytes:
        """Read a register `count` times: for RBR the received bytes, then zeroes."""
        if width == 1 and offset == 0 and not self._lcr & _LCR_DLAB:
            self.advance(now_ns)
            received = bytes(self._receiver.pop(now_ns) for _ in range(min(count, len(self._receiver))))
            self._update()
            return received.ljust(count, b"\0")
        elements = (self.read(offset, width, now_ns) for _ in range(count))
        return b"".join(element.to_bytes(width, "little") for element in elements)

    def write_string(self, offset: int, width: int, data: bytes | bytearray | memoryview, now_ns: int) -> None:
        """Write a register repeatedly; all bytes for THR go to the backend in one call."""
        if width == 1 and offset == 0 and not self._lcr & _LCR_DLAB:
            self.advance(now_ns)
            self._transmit(bytes(data), now_ns)
            return
        for at in range(0, len(data) - width + 1, width):
            self.write(offset, 1, data[at], now_ns)

    def deadline_ns(self) -> int | None:
        """When the character time-out interrupt is due; None while it is masked or nothing waits to be read."""
        return self._receiver.timeout_ns if self._ier & _IER_DATA else None

    def advance(self, now_ns: int) -> None:
        """Raise the character time-out if it is due."""
        if self._receiver.expire(now_ns):
            self._update()

    def receive(self, data: bytes, now_ns: int) -> int:
        """Take bytes that were typed, as far as there is `room`; returns how many."""
        self.advance(now_ns)
        fitted = min(len(data), self.room())
        if fitted:
            self._arrive(data[:fitted], now_ns)
        return fitted

    def room(self) -> int:
        """Bytes that `receive` would take now.

        It grows when the guest reads RBR, clears the FIFO or leaves loopback, in which the receiver is cut off
        from the line (section 8.7 "Bit 4").
        """
        return 0 if self._mcr & _MCR_LOOP else self._receiver.depth - len(self._receiver)

    def receive_break(self, now_ns: int) -> None:
        """The line was held in the spacing state: a zero character with BI arrives (section 8.3 "Bit 4")."""
        if not self._mcr & _MCR_LOOP:
            self._arrive((BREAK_ENTRY,), now_ns)

    def resume(self, now_ns: int) -> None:
        """The backend has space again: pass on what is held and, if that is all, show the transmitter empty."""
        if self._blocked:
            self._pass_on(b"")
            self._update()

    def _arrive(self, entries: bytes | tuple[int, ...], now_ns: int) -> None:
        """Put characters into the receiver and drive the interrupt."""
        self._receiver.arrive(entries, now_ns)
        self._update()

    def _transmit(self, data: bytes, now_ns: int) -> None:
        """Bytes written to THR, none or more. THR is empty again at once unless the backend has no space."""
        if self._thr_empty_latch and data:
            self._thr_empty_latch = False
            self._update()  # the output falls before it rises again: the 8259 needs the edge
        if self._mcr & _MCR_LOOP:
            self._thr_empty_latch = bool(data)
            self._arrive(data, now_ns)
        elif data:
            self._pass_on(data)
            self._update()

    def _pass_on(self, data: bytes) -> None:
        """Give the backend what it takes, hold a FIFO of the rest, and latch the interrupt if nothing remains."""
        if self._held:
            data = self._held + data
        taken = min(max(self._backend.space(), 0), len(data))
        if taken:
            self._backend.transmit(data[:taken])
        self._held = data[taken : taken + self._receiver.depth]  # both FIFOs are switched by FCR bit 0
        self.lost_bytes += len(data) - taken - len(self._held)
        self._blocked = bool(self._held) or self._backend.space() <= 0
        self._thr_empty_latch = not self._blocked

    def _identify(self) -> int:
        """Return the pending interrupt of highest priority, IIR bits 3:0."""
        ier = self._ier
        if ier & _IER_LINE_STATUS and self._receiver.errors:
            return _IIR_LINE_STATUS
        if ier & _IER_DATA and self._receiver.triggered:
            return _IIR_DATA_AVAILABLE
        if ier & _IER_DATA and self._receiver.timed_out:
            return _IIR_TIMEOUT
        if ier & _IER_THR_EMPTY and self._thr_empty_latch:
            return _IIR_THR_EMPTY
        if ier & _IER_MODEM_STATUS and self._modem_delta:
            return _IIR_MODEM_STATUS
        return _IIR_NONE

    def _update(self) -> None:
        """Drive the interrupt output if it changes."""
        level = self._ier != 0 and self._identify() != _IIR_NONE
        if level != self._level:
            self._level = level
            self._irq(level)

    def _read_data(self, now_ns: int) -> int:
        """RBR, or the divisor's low byte."""
        if self._lcr & _LCR_DLAB:
            return self._divisor & 0xFF
        value = self._receiver.pop(now_ns)
        self._update()
        return value

    def _read_ier(self, now_ns: int) -> int:
        """IER, or the divisor's high byte."""
        return self._divisor >> 8 if self._lcr & _LCR_DLAB else self._ier

    def _read_iir(self, now_ns: int) -> int:
        """IIR; reading it clears the THR empty interrupt if that is what it shows (section 8.5)."""
        identity = self._identify()
        if identity == _IIR_THR_EMPTY:
            self._thr_empty_latch = False
            self._update()
        return identity | (_IIR_FIFO_ON if self._receiver.fifo_on else 0)

    def _read_lsr(self, now_ns: int) -> int:
        """LSR; reading it clears its error bits. A blocked transmitter asks its backend again."""
        if self._blocked:
            self.resume(now_ns)
        had_errors = self._receiver.errors
        value = self._receiver.status()
        if had_errors:
            self._update()
        return value if self._blocked else value | _LSR_TRANSMITTER_EMPTY

    def _read_msr(self, now_ns: int) -> int:
        """MSR; reading it clears its delta bits."""
        value = self._modem | self._modem_delta
        self._modem_delta = 0
        self._update()
        return value

    def _write_data(self, value: int, now_ns: int) -> None:
        """THR, or the divisor's low byte."""
        if self._lcr & _LCR_DLAB:
            self._divisor = self._divisor & 0xFF00 | value
            self._set_character_time()
        else:
            self._transmit(bytes((value,)), now_ns)

    def _write_ier(self, value: int, now_ns: int) -> None:
        """IER, or the divisor's high byte. Enabling the THR empty interrupt while THR is empty raises it."""
        if self._lcr & _LCR_DLAB:
            self._divisor = self._divisor & 0x00FF | value << 8
            self._set_character_time()
            return
        risen = value & ~self._ier
        self._ier = value & 0x0F
        if risen & _IER_THR_EMPTY and not self._blocked:
            self._thr_empty_latch = True
        self._update()

    def _write_fcr(self, value: int, now_ns: int) -> None:
        """FCR (section 8.4): bit 2 or a change of bit 0 also throws away what the transmitter holds.

        The THR empty interrupt after a change of bit 0 is immediate (section 8.6.1, transmit interrupts, B).
        """
        switched = value & 1 != self._receiver.fifo_on
        if switched or value & 5 == 5:
            self._held = b""
            self.resume(now_ns)
        if switched and not self._blocked:
            self._thr_empty_latch = True
        self._receiver.control(value)
        self._update()

    def _write_lcr(self, value: int, now_ns: int) -> None:
        """LCR; a break sent in loopback arrives at the receiver."""
        if self._mcr & _MCR_LOOP and value & ~self._lcr & _LCR_BREAK:
            self._arrive((BREAK_ENTRY,), now_ns)
        self._lcr = value
        self._set_character_time()

    def _write_mcr(self, value: int, now_ns: int) -> None:
        """MCR; in loopback its low four bits are the modem inputs, and their changes show in MSR."""
        self._mcr = value & 0x1F
        modem = _MSR_CONNECTED
        if value & _MCR_LOOP:
            modem = sum(status for control, status in _LOOPED_INPUTS if value & control)
        changed = (modem ^ self._modem) & ~(modem & _MSR_RI)  # RI shows its trailing edge only (TERI)
        self._modem = modem
        self._modem_delta |= changed >> 4
        self._update()

    def _write_scratch(self, value: int, now_ns: int) -> None:
        """SCR holds a byte."""
        self._scratch = value

    def _ignore(self, value: int, now_ns: int) -> None:
        """A register that takes no writes."""

    def _set_character_time(self) -> None:
        """Derive the character time from divisor and frame: start, 5 to 8 data, parity, 1 or 2 stop bits."""
        bits = 7 + (self._lcr & 3) + (self._lcr >> 3 & 1) + (self._lcr >> 2 & 1)
        self._receiver.character_ns = 16 * max(self._divisor, 1) * bits * 1_000_000_000 // self._clock_hz

    def state(self) -> State:
        """Registers, latches, held bytes and the receiver's state."""
        return {
            "ier": self._ier,
            "lcr": self._lcr,
            "mcr": self._mcr,
            "scratch": self._scratch,
            "divisor": self._divisor,
            "held": self._held,
            "blocked": self._blocked,
            "thr_empty_latch": self._thr_empty_latch,
            "modem": self._modem,
            "modem_delta": self._modem_delta,
            "lost_bytes": self.lost_bytes,
            "receiver": self._receiver.state(),
        }

    def restore(self, state: State) -> None:
        """Take over a state and drive the interrupt output accordingly."""
        self._ier, self._lcr, self._mcr = state["ier"], state["lcr"], state["mcr"]
        self._scratch, self._divisor = state["scratch"], state["divisor"]
        self._held, self._blocked = state["held"], state["blocked"]
        self._thr_empty_latch = state["thr_empty_latch"]
        self._modem, self._modem_delta = state["modem"], state["modem_delta"]
        self.lost_bytes = state["lost_bytes"]
        self._receiver.restore(state["receiver"])
        self._level = self._identify() != _IIR_NONE
        self._irq(self._level)
