"""The platform-level interrupt controller of the `virt` machine.

Register layout and rules: RISC-V Platform-Level Interrupt Controller Specification 1.0.0 (memory map in chapter 3,
claim and complete in chapters 8 and 9); SiFive's implementation is what `sifive,plic-1.0.0` in a device tree names.
All gateways are level-triggered: a source that is still high when its handler completes pends again.
"""

from __future__ import annotations

from collections.abc import Sequence

from iovirt_dist.hypervisor.vdev.device import IrqLine, Quiet, State

PLIC_BYTES = 0x60_0000
MAX_PRIORITY = 7
"""Priorities and thresholds are three bits wide; the rest of their registers reads 0."""

_PENDING = 0x1000
_ENABLE, _ENABLE_STRIDE = 0x2000, 0x80
_CONTEXT, _CONTEXT_STRIDE = 0x20_0000, 0x1000
_THRESHOLD, _CLAIM = 0, 4


class Plic(Quiet):
    """An interrupt controller with one output per context.

    Sets of sources are integers with bit n for source n, so that a context's candidates are one AND.

    Args:
        lines: Output of each context; on `virt` context 0 is M-mode of hart 0 and context 1 its S-mode.
        sources: Number of sources, 1..1023; they are numbered from 1.
    """

    max_width = 4

    def __init__(self, lines: Sequence[IrqLine], sources: int = 96) -> None:
        self._lines = tuple(lines)
        self._sources = sources
        self._all = (1 << sources + 1) - 2
        self._priority = [0] * (sources + 1)
        self._levels = 0
        self._pending = 0
        self._served = 0
        self._enabled = [0] * len(self._lines)
        self._threshold = [0] * len(self._lines)
        self._asserted = [False] * len(self._lines)

    def line(self, source: int) -> IrqLine:
        """Return the input of a source, for a device to drive.

        Raises:
            ValueError: There is no such source.
        """
        if not 1 <= source <= self._sources:
            raise ValueError(f"source {source} is not one of 1..{self._sources}")
        return lambda level: self.set_irq(source, level)

    def set_irq(self, source: int, level: bool) -> None:
        """Set the level of a source, 1..`sources`; others are ignored.

        A request that was passed on stays pending when the level falls before it is claimed.
        """
        bit = 1 << source & self._all
        if not level:
            self._levels &= ~bit
            return
        self._levels |= bit
        if bit & ~self._pending & ~self._served:
            self._pending |= bit
            self._update()

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read a register; a narrow access reads part of one, and has a claim's effect only at its first byte."""
        byte = offset & 3
        if byte and offset & ~3 >= _CONTEXT and offset & (_CONTEXT_STRIDE - 1) & ~3 == _CLAIM:
            return 0
        return self._read(offset & ~3) >> 8 * byte & (1 << 8 * width) - 1

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write a register; the specification has 32-bit accesses only, so narrower writes are ignored."""
        if width != 4 or offset & 3:
            return
        if offset < _PENDING:
            if 1 <= offset // 4 <= self._sources:
                self._priority[offset // 4] = value & MAX_PRIORITY
        elif _ENABLE <= offset < _CONTEXT:
            self._write_enable(*divmod(offset - _ENABLE, _ENABLE_STRIDE), value)
        elif offset >= _CONTEXT:
            self._write_context(*divmod(offset - _CONTEXT, _CONTEXT_STRIDE), value)
        self._update()

    def _read(self, offset: int) -> int:
        """Read the register at a multiple of four."""
        if offset < _PENDING:
            return self._priority[offset // 4] if offset // 4 <= self._sources else 0
        if offset < _ENABLE:
            return self._pending >> 8 * (offset - _PENDING) & 0xFFFF_FFFF
        if offset < _CONTEXT:
            context, at = divmod(offset - _ENABLE, _ENABLE_STRIDE)
            return self._enabled[context] >> 8 * at & 0xFFFF_FFFF if context < len(self._lines) else 0
        context, at = divmod(offset - _CONTEXT, _CONTEXT_STRIDE)
        if context >= len(self._lines):
            return 0
        if at == _CLAIM:
            return self._claim(context)
        return self._threshold[context] if at == _THRESHOLD else 0

    def _write_enable(self, context: int, at: int, value: int) -> None:
        """Set which of 32 sources may interrupt a context."""
        if context < len(self._lines):
            mask = 0xFFFF_FFFF << 8 * at
            self._enabled[context] = (self._enabled[context] & ~mask | value << 8 * at) & self._all

    def _write_context(self, context: int, at: int, value: int) -> None:
        """Set a threshold, or complete a source."""
        if context >= len(self._lines):
            return
        if at == _THRESHOLD:
            self._threshold[context] = value & MAX_PRIORITY
        elif at == _CLAIM:
            self._complete(context, value)

    def _best(self, context: int) -> int:
        """Return the pending enabled source of highest priority, the lowest number among equals; 0 for none."""
        candidates = self._pending & self._enabled[context]
        best = best_priority = 0
        while candidates:
            source = (candidates & -candidates).bit_length() - 1
            candidates &= candidates - 1
            if self._priority[source] > best_priority:
                best, best_priority = source, self._priority[source]
        return best

    def _claim(self, context: int) -> int:
        """Give the best source to a context; the threshold has no say in it (chapter 8)."""
        source = self._best(context)
        if source:
            self._pending &= ~(1 << source)
            self._served |= 1 << source
            self._update()
        return source

    def _complete(self, context: int, source: int) -> None:
        """End the service of a source; ignored unless the context has it enabled (chapter 9)."""
        bit = 1 << source if source <= self._sources else 0
        if bit & self._enabled[context] & self._served:
            self._served &= ~bit
            self._pending |= bit & self._levels

    def _update(self) -> None:
        """Drive the outputs that change: high while the best source's priority is above the threshold."""
        for context, line in enumerate(self._lines):
            level = self._priority[self._best(context)] > self._threshold[context]
            if level != self._asserted[context]:
                self._asserted[context] = level
                line(level)

    def state(self) -> State:
        """Registers and gateways; sets of sources are little-endian bit strings, as they exceed 64 bits."""
        return {
            "priority": list(self._priority),
            "levels": self._pack(self._levels),
            "pending": self._pack(self._pending),
            "served": self._pack(self._served),
            "enabled": [self._pack(sources) for sources in self._enabled],
            "threshold": list(self._threshold),
        }

    def restore(self, state: State) -> None:
        """Take over a state and drive all outputs accordingly."""
        self._priority = list(state["priority"])
        self._levels = int.from_bytes(state["levels"], "little")
        self._pending = int.from_bytes(state["pending"], "little")
        self._served = int.from_bytes(state["served"], "little")
        self._enabled = [int.from_bytes(sources, "little") for sources in state["enabled"]]
        self._threshold = list(state["threshold"])
        self._update()
        for line, level in zip(self._lines, self._asserted, strict=True):
            line(level)

    def _pack(self, sources: int) -> bytes:
        """A set of sources in a form that msgpack carries."""
        return sources.to_bytes(self._sources // 8 + 1, "little")
