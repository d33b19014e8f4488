"""The goldfish real-time clock of the `virt` machine: nanoseconds since 1970 UTC, with an alarm.

Registers: Android "goldfish" virtual hardware document, section "Real-time clock", as extended by the alarm registers
that Linux's and U-Boot's drivers for ``google,goldfish-rtc`` use.
"""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.device import IrqLine, State
from iovirt_dist.hypervisor.vdev.registers import with_half

GOLDFISH_RTC_BYTES = 0x1000

_TIME_LOW = 0x00
"""Reading it latches the high half, so that both halves are of one instant."""
_TIME_HIGH = 0x04
_ALARM_LOW = 0x08
"""Writing it arms the alarm with both halves."""
_ALARM_HIGH = 0x0C
_IRQ_ENABLED = 0x10
_CLEAR_ALARM = 0x14
_ALARM_STATUS = 0x18
_CLEAR_INTERRUPT = 0x1C
_LOW, _ALL = 0xFFFF_FFFF, (1 << 64) - 1
_NEVER_NS = 1 << 63


class GoldfishRtc:
    """A clock that starts at the wall time of power-on and runs with the machine's time.

    Args:
        irq: Interrupt output, high while an expired alarm is not cleared and interrupts are enabled.
        wall_ns_at_power_on: Nanoseconds since 1970 UTC when the machine's time was 0.
    """

    max_width = 4

    def __init__(self, irq: IrqLine, wall_ns_at_power_on: int) -> None:
        self._irq = irq
        self._offset_ns = wall_ns_at_power_on & _ALL
        self._latched_high = 0
        self._alarm_ns = 0
        self._due_ns: int | None = None
        self._armed = self._enabled = self._pending = self._level = False

    def wall_ns(self, now_ns: int) -> int:
        """Return what the clock shows at `now_ns`, modulo 2**64."""
        return now_ns + self._offset_ns & _ALL

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read a 32-bit register; other offsets and widths read 0."""
        if width != 4:
            return 0
        self.advance(now_ns)
        if offset == _TIME_LOW:
            wall_ns = self.wall_ns(now_ns)
            self._latched_high = wall_ns >> 32
            return wall_ns & _LOW
        return {
            _TIME_HIGH: self._latched_high,
            _ALARM_LOW: self._alarm_ns & _LOW,
            _ALARM_HIGH: self._alarm_ns >> 32,
            _IRQ_ENABLED: int(self._enabled),
            _ALARM_STATUS: int(self._armed),
        }.get(offset, 0)

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write a 32-bit register; other offsets and widths are ignored."""
        if width != 4:
            return
        self.advance(now_ns)
        if offset in (_TIME_LOW, _TIME_HIGH):
            self._set_time(with_half(self.wall_ns(now_ns), offset == _TIME_HIGH, value), now_ns)
        elif offset == _ALARM_HIGH:
            self._alarm_ns = with_half(self._alarm_ns, True, value)
        elif offset == _ALARM_LOW:
            self._alarm_ns = with_half(self._alarm_ns, False, value)
            self._armed = True
            self._schedule(now_ns)
        elif offset == _CLEAR_ALARM:
            self._armed, self._due_ns = False, None
        elif offset == _IRQ_ENABLED:
            self._enabled = bool(value & 1)
        elif offset == _CLEAR_INTERRUPT:
            self._pending = False
        self._drive()

    def deadline_ns(self) -> int | None:
        """When the alarm expires; None while it is not armed."""
        return self._due_ns

    def advance(self, now_ns: int) -> None:
        """Let the alarm expire if it is due."""
        if self._due_ns is not None and now_ns >= self._due_ns:
            self._schedule(now_ns)
            self._drive()

    def _set_time(self, wall_ns: int, now_ns: int) -> None:
        """Set the clock; an armed alarm keeps its wall time."""
        self._offset_ns = wall_ns - now_ns & _ALL
        if self._armed:
            self._schedule(now_ns)

    def _schedule(self, now_ns: int) -> None:
        """Let an armed alarm expire, or work out when it will. One that lies in the past expires at once."""
        left_ns = self._alarm_ns - self.wall_ns(now_ns)
        if left_ns > 0:
            due_ns = now_ns + left_ns
            self._due_ns = due_ns if due_ns < _NEVER_NS else None
            return
        self._armed, self._due_ns, self._pending = False, None, True

    def _drive(self) -> None:
        """Drive the output if it changes."""
        level = self._pending and self._enabled
        if level != self._level:
            self._level = level
            self._irq(level)

    def state(self) -> State:
        """Registers, and the clock as its distance from the machine's time."""
        return {
            "offset_ns": self._offset_ns,
            "latched_high": self._latched_high,
            "alarm_ns": self._alarm_ns,
            "due_ns": self._due_ns,
            "armed": self._armed,
            "enabled": self._enabled,
            "pending": self._pending,
        }

    def restore(self, state: State) -> None:
        """Take over a state and drive the output accordingly."""
        self._offset_ns, self._latched_high = state["offset_ns"], state["latched_high"]
        self._alarm_ns, self._due_ns = state["alarm_ns"], state["due_ns"]
        self._armed, self._enabled, self._pending = state["armed"], state["enabled"], state["pending"]
        self._level = self._pending and self._enabled
        self._irq(self._level)
