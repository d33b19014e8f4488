"""The core-local interruptor of the `virt` machine: software interrupt and timer of hart 0.

Layout: SiFive FU540-C000 manual, chapter 9, "Core-Local Interruptor (CLINT)"; mtime and mtimecmp: RISC-V privileged
architecture, section 3.2.1 "Machine Timer Registers". mtime counts at 10 MHz, as the machine's device tree says.
"""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.device import IrqLine, State

CLINT_BYTES = 0x1_0000
TICK_NS = 100
"""One tick of mtime."""

_MSIP = 0x0000
_MTIMECMP = 0x4000
_MTIME = 0xBFF8
_ALL = (1 << 64) - 1
_NEVER_NS = 1 << 63
"""Deadlines from here on (292 years) are none: no clock of ours gets there."""


class Clint:
    """Software interrupt, timer compare and time of one hart.

    Args:
        software: Output MSIP.
        timer: Output MTIP, high while mtime >= mtimecmp.
    """

    max_width = 8

    def __init__(self, software: IrqLine, timer: IrqLine) -> None:
        self._software = software
        self._timer = timer
        self._msip = False
        self._compare = _ALL  # the manual leaves it open; all ones interrupts nobody
        self._offset = 0
        self._due_ns: int | None = None
        self._expired = False

    def time(self, now_ns: int) -> int:
        """Return mtime at `now_ns`, 0..2**64-1; what RDTIME reads."""
        return now_ns // TICK_NS + self._offset & _ALL

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read a register or part of one; the rest of the range reads 0."""
        if offset >= _MTIME:
            return _part(self.time(now_ns), offset - _MTIME, width)
        if _MTIMECMP <= offset < _MTIMECMP + 8:
            return _part(self._compare, offset - _MTIMECMP, width)
        return _part(self._msip, offset, width) if offset < 4 else 0

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write a register or part of one."""
        if offset >= _MTIME:
            time = _merged(self.time(now_ns), offset - _MTIME, width, value)
            self._offset = time - now_ns // TICK_NS & _ALL
            self._schedule(now_ns)
        elif _MTIMECMP <= offset < _MTIMECMP + 8:
            self._compare = _merged(self._compare, offset - _MTIMECMP, width, value)
            self._schedule(now_ns)
        elif offset == _MSIP:
            self._set_software(bool(value & 1))

    def deadline_ns(self) -> int | None:
        """The instant at which mtime reaches mtimecmp, or wraps around once it has; None if that is never."""
        return self._due_ns

    def advance(self, now_ns: int) -> None:
        """Change the timer interrupt if that is due."""
        if self._due_ns is not None and now_ns >= self._due_ns:
            self._schedule(now_ns)

    def _schedule(self, now_ns: int) -> None:
        """Compare, drive MTIP and work out when it changes next."""
        time = self.time(now_ns)
        expired = time >= self._compare
        change = self._compare if not expired else _ALL + 1
        due_ns = (now_ns // TICK_NS + change - time) * TICK_NS
        self._due_ns = due_ns if due_ns < _NEVER_NS else None
        if expired != self._expired:
            self._expired = expired
            self._timer(expired)

    def _set_software(self, pending: bool) -> None:
        """Drive MSIP."""
        if pending != self._msip:
            self._msip = pending
            self._software(pending)

    def state(self) -> State:
        """Registers, and mtime as its distance from the machine's time."""
        return {
            "msip": self._msip,
            "compare": self._compare,
            "offset": self._offset,
            "due_ns": self._due_ns,
            "expired": self._expired,
        }

    def restore(self, state: State) -> None:
        """Take over a state and drive both outputs accordingly."""
        self._msip, self._expired = state["msip"], state["expired"]
        self._compare, self._offset, self._due_ns = state["compare"], state["offset"], state["due_ns"]
        self._software(self._msip)
        self._timer(self._expired)


def _part(value: int, at: int, width: int) -> int:
    """Bytes `at`.. of a 64-bit register, zero beyond it."""
    return value >> 8 * at & (1 << 8 * width) - 1


def _merged(register: int, at: int, width: int, value: int) -> int:
    """A 64-bit register after a write of `width` bytes at byte `at`."""
    mask = ((1 << 8 * width) - 1) << 8 * at
    return (register & ~mask | value << 8 * at & mask) & _ALL
