"""The small parts of the `pc` machine: A20 gate, port 92h, POST port, keyboard controller, and what nobody decodes.

Sources: Intel 82371SB (PIIX3) data sheet, section "Port 92 Register" and the X-Bus description; Intel 8042
(UPI-41AH) and IBM PC AT Technical Reference, section "Keyboard Controller" for ports 60h and 64h.

Port 92h, system control port A
    bit 0  FAST_INIT: a write that sets it from 0 to 1 resets the CPU
    bit 1  ALT_A20: enables address line 20

Port 64h read, status                      Port 64h write, command (those that a machine without keyboard answers)
    bit 0  OBF: output buffer full             20h / 60h   read / write the command byte
    bit 1  IBF: input buffer full, 0 here      A7h / A8h   disable / enable the auxiliary port
    bit 2  SYS: self-test passed               A9h ABh     test auxiliary port / keyboard port
    bit 3  last write was a command            AAh         self-test: 55h
    bit 4  keyboard not locked: 1              ADh / AEh   disable / enable the keyboard
    bit 5  output is from the auxiliary port   C0h D0h D1h read input port, read / write output port
    bit 6  time-out: no device answered        D2h D3h D4h loop back, as auxiliary; write to auxiliary device
    bit 7  parity error: 0                     F0h-FFh     pulse output port bits that are 0 low; FEh: reset
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from iovirt_dist.hypervisor.vdev.device import Quiet, State
from iovirt_dist.hypervisor.vdev.ports import PortBlock

POST_HISTORY = 64

FAST_INIT = 0x01
ALT_A20 = 0x02

STATUS_OUTPUT_FULL = 0x01
STATUS_SYSTEM = 0x04
STATUS_COMMAND = 0x08
STATUS_NOT_LOCKED = 0x10
STATUS_AUXILIARY = 0x20
STATUS_TIMEOUT = 0x40

OUTPUT_NOT_RESET = 0x01
OUTPUT_A20 = 0x02
OUTPUT_AT_POWER_ON = 0xCF  # clock and data lines released, interrupts low, A20 open, not in reset

COMMAND_BYTE_SYSTEM = 0x04
RESEND = 0xFE

# Command -> answer that the controller puts into its output buffer.
FIXED_ANSWERS = {
    0xA9: 0x00,  # auxiliary port test passed
    0xAA: 0x55,  # self-test passed
    0xAB: 0x00,  # keyboard port test passed
    0xC0: 0xBF,  # input port: not locked, colour display, manufacturing jumper open
}
# Command -> (AND mask, OR mask) of the command byte; bit 4 disables the keyboard, bit 5 the auxiliary port.
COMMAND_BYTE_CHANGES = {0xA7: (0xFF, 0x20), 0xA8: (0xDF, 0x00), 0xAD: (0xFF, 0x10), 0xAE: (0xEF, 0x00)}
COMMANDS_WITH_DATA = frozenset({0x60, 0xD1, 0xD2, 0xD3, 0xD4})


class A20Gate:
    """Address line 20, open when either of its two sources opens it (PIIX3: A20M# from port 92h OR A20GATE).

    The machine starts with the line open through the keyboard controller, as firmware leaves it.

    Args:
        output: Called with True or False whenever the line changes.
    """

    def __init__(self, output: Callable[[bool], None]) -> None:
        self._output = output
        self._sources = {"port92": False, "keyboard": True}

    @property
    def is_open(self) -> bool:
        """Whether addresses keep bit 20."""
        return any(self._sources.values())

    def set(self, source: str, level: bool) -> None:
        """Set one source, ``port92`` or ``keyboard``."""
        before = self.is_open
        self._sources[source] = level
        if self.is_open != before:
            self._output(self.is_open)


class SystemControlA(Quiet):
    """Port 92h: fast A20 and fast CPU reset (82371SB data sheet, "Port 92 Register").

    Args:
        a20: The gate that bit 1 drives.
        reset: Pulsed when bit 0 goes from 0 to 1.
    """

    max_width = 1

    def __init__(self, a20: A20Gate, reset: Callable[[], None]) -> None:
        self._a20 = a20
        self._reset = reset
        self._value = 0

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Return both bits as written; the reserved ones read as 0."""
        return self._value

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Set A20 and reset the CPU on a rising bit 0."""
        rising = value & ~self._value & FAST_INIT
        self._value = value & (ALT_A20 | FAST_INIT)
        self._a20.set("port92", bool(value & ALT_A20))
        if rising:
            self._reset()

    def state(self) -> State:
        """The register."""
        return {"value": self._value}

    def restore(self, state: State) -> None:
        """Take over the register and drive A20 with it; a reset is not repeated."""
        self._value = state["value"]
        self._a20.set("port92", bool(self._value & ALT_A20))


class PostPort(Quiet):
    """Port 80h: the firmware's progress codes.

    Behind it lies a page register of the ISA DMA controller (82371SB data sheet, "DMA Low Page Registers"), which
    is why the last code can be read back.

    Attributes:
        codes: The last 64 codes, oldest first.
        written: How many were written since power-on.
    """

    max_width = 1

    def __init__(self) -> None:
        self._codes: deque[int] = deque(maxlen=POST_HISTORY)
        self.written = 0

    @property
    def codes(self) -> list[int]:
        """The last 64 codes, oldest first."""
        return list(self._codes)

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Return the last code, 0 before the first."""
        return self._codes[-1] if self._codes else 0

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Remember a code."""
        self._codes.append(value & 0xFF)
        self.written += 1

    def state(self) -> State:
        """Codes and their count."""
        return {"codes": bytes(self._codes), "written": self.written}

    def restore(self, state: State) -> None:
        """Take over codes and count."""
        self._codes = deque(state["codes"], maxlen=POST_HISTORY)
        self.written = state["written"]


class KeyboardController:
    """The 8042 at ports 60h and 64h of a machine without keyboard and mouse.

    It answers its own commands, drives A20 and the CPU's reset, and reports a time-out (status bit 6, data FEh) when
    something is sent to a keyboard or mouse, as the controller does when the clock line stays silent. It raises no
    interrupt, since nothing is ever typed.

    Attributes:
        data_port: Register block for port 60h; carries the state.
        command_port: Register block for port 64h.

    Args:
        a20: The gate that output port bit 1 drives.
        reset: Pulsed when output port bit 0 is written or pulsed low.
    """

    def __init__(self, a20: A20Gate, reset: Callable[[], None]) -> None:
        self._a20 = a20
        self._reset = reset
        self.data_port = PortBlock(self._read_data, self._write_data, owner=self)
        self.command_port = PortBlock(self._read_status, self._write_command)
        self._power_on()

    def _power_on(self) -> None:
        self._status = STATUS_NOT_LOCKED
        self._data = 0
        self._command = 0  # command byte
        self._output = OUTPUT_AT_POWER_ON
        self._awaiting = 0  # command whose data byte comes next; 0 for none

    def _read_data(self, _offset: int, _now_ns: int) -> int:
        self._status &= ~(STATUS_OUTPUT_FULL | STATUS_AUXILIARY | STATUS_TIMEOUT)
        return self._data

    def _read_status(self, _offset: int, _now_ns: int) -> int:
        return self._status

    def _answer(self, value: int, flags: int = 0) -> None:
        self._data = value
        self._status &= ~(STATUS_AUXILIARY | STATUS_TIMEOUT)
        self._status |= STATUS_OUTPUT_FULL | flags

    def _write_command(self, _offset: int, value: int, _now_ns: int) -> None:
        self._status |= STATUS_COMMAND
        self._awaiting = value if value in COMMANDS_WITH_DATA else 0
        if value in FIXED_ANSWERS:
            self._answer(FIXED_ANSWERS[value])
            if value == 0xAA:
                self._set_command_byte(self._command | COMMAND_BYTE_SYSTEM)
        elif value in COMMAND_BYTE_CHANGES:
            keep, add = COMMAND_BYTE_CHANGES[value]
            self._set_command_byte(self._command & keep | add)
        elif value == 0x20:
            self._answer(self._command)
        elif value == 0xD0:
            self._answer(self._output)
        elif value >= 0xF0 and not value & OUTPUT_NOT_RESET:
            self._reset()

    def _write_data(self, _offset: int, value: int, _now_ns: int) -> None:
        command, self._awaiting = self._awaiting, 0
        self._status &= ~STATUS_COMMAND
        if command == 0x60:
            self._set_command_byte(value)
        elif command == 0xD1:
            self._set_output(value)
        elif command == 0xD2:
            self._answer(value)
        elif command == 0xD3:
            self._answer(value, STATUS_AUXILIARY)
        elif command == 0xD4:
            self._answer(RESEND, STATUS_AUXILIARY | STATUS_TIMEOUT)
        else:
            self._answer(RESEND, STATUS_TIMEOUT)

    def _set_command_byte(self, value: int) -> None:
        self._command = value
        self._status = self._status & ~STATUS_SYSTEM | value & COMMAND_BYTE_SYSTEM

    def _set_output(self, value: int) -> None:
        self._output = value | OUTPUT_NOT_RESET  # reset is a pulse: the CPU leaves it by itself
        self._a20.set("keyboard", bool(value & OUTPUT_A20))
        if not value & OUTPUT_NOT_RESET:
            self._reset()

    def deadline_ns(self) -> int | None:
        """Nothing is timed."""
        return None

    def advance(self, now_ns: int) -> None:
        """Nothing is timed."""

    def state(self) -> State:
        """All registers."""
        return {
            "status": self._status,
            "data": self._data,
            "command": self._command,
            "output": self._output,
            "awaiting": self._awaiting,
        }

    def restore(self, state: State) -> None:
        """Take over all registers and drive A20; a reset is not repeated."""
        self._status = state["status"]
        self._data = state["data"]
        self._command = state["command"]
        self._output = state["output"]
        self._awaiting = state["awaiting"]
        self._a20.set("keyboard", bool(self._output & OUTPUT_A20))
