"""The receiver of the 16550: FIFO, line errors, trigger level and character time-out (PC16550D, section 8)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from iovirt_dist.hypervisor.vdev.device import State

FIFO_BYTES = 16
LSR_DATA_READY, LSR_OVERRUN, LSR_BREAK = 0x01, 0x02, 0x10
LSR_CHARACTER_ERRORS = 0x1C
"""PE, FE and BI: errors that belong to one character and travel through the FIFO with it."""
LSR_FIFO_ERROR = 0x80
BREAK_ENTRY = LSR_BREAK << 8
"""A break as the receiver stores it: a zero character with BI."""

_TRIGGER_LEVELS = (1, 4, 8, 14)
"""FCR bits 7:6 select the trigger level in bytes (section 8.4)."""


class UartReceiver:
    """One character in character mode, sixteen in FIFO mode.

    Attributes:
        fifo_on: FCR bit 0.
        depth: Characters that fit.
        errors: LSR bits 4:1 as the next read of LSR shows and clears them.
        character_ns: Duration of a character at the programmed rate.
        timeout_ns: When the character time-out comes, None while its timer stands.
        timed_out: The time-out has come and RBR has not been read since.
    """

    def __init__(self) -> None:
        self.fifo_on = False
        self.depth = 1
        self.errors = 0
        self.character_ns = 1
        self.timeout_ns: int | None = None
        self.timed_out = False
        self._select = 0
        self._trigger = 1
        self._entries: deque[int] = deque()
        self._flagged = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def triggered(self) -> bool:
        """Whether the received data available interrupt is due (section 8.6.1 A)."""
        return len(self._entries) >= self._trigger

    def control(self, fcr: int) -> None:
        """Take a write of FCR: changing bit 0 empties the FIFO, and the other bits count only with bit 0 set.

        With bit 0 going to 0 the rest of the register is not programmed (section 8.4 "Bit 0").
        """
        fifo_on = bool(fcr & 1)
        if fifo_on != self.fifo_on or (fifo_on and fcr & 2):
            self.clear()
        self._configure(fifo_on, fcr >> 6 if fifo_on else self._select)

    def _configure(self, fifo_on: bool, select: int) -> None:
        """Set what follows from FCR."""
        self.fifo_on, self._select = fifo_on, select
        self.depth = FIFO_BYTES if fifo_on else 1
        self._trigger = _TRIGGER_LEVELS[select] if fifo_on else 1

    def clear(self) -> None:
        """Empty the FIFO; LSR error bits that are shown already stay."""
        self._entries.clear()
        self._flagged = 0
        self.timeout_ns = None
        self.timed_out = False

    def arrive(self, entries: Iterable[int], now_ns: int) -> None:
        """Put characters (bits 7:0, with LSR error bits above them) into the receiver.

        Overrun (section 8.3 "Bit 1"): in FIFO mode the new character is lost, in character mode the old one.
        """
        for entry in entries:
            if len(self._entries) >= self.depth:
                self.errors |= LSR_OVERRUN
                if self.fifo_on:
                    continue
                self._entries.clear()
                self._flagged = 0
            self._entries.append(entry)
            self._flagged += entry > 0xFF
        self._reveal()
        if not self.timed_out:
            self._start_timeout(now_ns)

    def pop(self, now_ns: int) -> int:
        """Read RBR: the oldest character, 0 if there is none. Ends a character time-out and restarts its timer."""
        if not self._entries:
            return 0
        value = self._entries.popleft() & 0xFF
        self._reveal()
        self.timed_out = False
        self._start_timeout(now_ns)
        return value

    def status(self) -> int:
        """Return the receiver's bits of LSR and clear the error bits, as a read of LSR does."""
        value = self.errors
        if self._entries:
            value |= LSR_DATA_READY
        if self.fifo_on and (self._flagged or value & LSR_CHARACTER_ERRORS):
            value |= LSR_FIFO_ERROR
        self.errors = 0
        return value

    def expire(self, now_ns: int) -> bool:
        """Let time pass; returns whether the character time-out came."""
        if self.timeout_ns is None or now_ns < self.timeout_ns:
            return False
        self.timeout_ns = None
        self.timed_out = True
        return True

    def _reveal(self) -> None:
        """Show the errors of the character at the head of the FIFO in LSR, where they stay until LSR is read."""
        if self._flagged and self._entries[0] > 0xFF:
            self.errors |= self._entries[0] >> 8
            self._entries[0] &= 0xFF
            self._flagged -= 1

    def _start_timeout(self, now_ns: int) -> None:
        """Four character times from now (section 8.6.1 B); the time-out exists in FIFO mode only."""
        waits = self.fifo_on and self._entries
        self.timeout_ns = now_ns + 4 * self.character_ns if waits else None

    def state(self) -> State:
        """FIFO contents, latches and the time-out."""
        return {
            "fifo_on": self.fifo_on,
            "select": self._select,
            "entries": list(self._entries),
            "errors": self.errors,
            "character_ns": self.character_ns,
            "timeout_ns": self.timeout_ns,
            "timed_out": self.timed_out,
        }

    def restore(self, state: State) -> None:
        """Take over a state."""
        self._configure(state["fifo_on"], state["select"])
        self._entries = deque(state["entries"])
        self._flagged = sum(entry > 0xFF for entry in self._entries)
        self.errors, self.character_ns = state["errors"], state["character_ns"]
        self.timeout_ns, self.timed_out = state["timeout_ns"], state["timed_out"]
