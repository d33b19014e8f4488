"""Terminals in memory: what a console core's actions do when nobody owns a pseudo-terminal.

Test double for `iovirt_dist.controllers.console.runner.ConsoleRunner`; deterministic, no descriptors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from iovirt_dist.controllers.console.core import (
    CloseTerminal,
    ConsoleAccess,
    ConsoleEvent,
    InputArrived,
    OpenTerminal,
    TerminalOpened,
    TerminalWritten,
    WriteTerminal,
)


@dataclass(slots=True, eq=False)
class _Memory:
    """One terminal.

    Attributes:
        number: Unit number.
        output: Everything written to it.
        typed: What was typed and not delivered.
        space_bytes: How much the core still takes.
    """

    number: int
    output: bytearray = field(default_factory=bytearray)
    typed: bytearray = field(default_factory=bytearray)
    space_bytes: int = 0

    def deliverable(self) -> InputArrived | None:
        """Take as much of what was typed as the core takes."""
        data = bytes(self.typed[: self.space_bytes])
        del self.typed[: len(data)]
        self.space_bytes -= len(data)
        return InputArrived(self.number, data) if data else None


class MemoryTerminals:
    """Hands of one console core, in memory.

    Args:
        deliver: Takes input when somebody types.
    """

    def __init__(self, deliver: Callable[[ConsoleEvent], None]) -> None:
        self.open_error = 0
        """errno value with which opening fails; 0 for none."""
        self.write_error = 0
        """errno value with which writing fails; 0 for none."""
        self._deliver = deliver
        self._by_name: dict[str, _Memory] = {}
        self._by_number: dict[int, _Memory] = {}

    def perform(self, action: ConsoleAccess) -> ConsoleEvent | None:
        """Do an action; return its outcome if it has one."""
        if isinstance(action, OpenTerminal):
            if not self.open_error:
                terminal = self._by_name[action.name] = self._by_number[action.terminal] = _Memory(action.terminal)
            return TerminalOpened(action.terminal, self.open_error)
        if isinstance(action, CloseTerminal):
            self._by_number.pop(action.terminal, None)
            return None
        terminal = self._by_number[action.terminal]
        if isinstance(action, WriteTerminal):
            if not self.write_error:
                terminal.output += action.data
            return TerminalWritten(action.terminal, self.write_error)
        terminal.space_bytes = action.space_bytes
        return terminal.deliverable()

    def close(self) -> None:
        """Nothing is held."""

    def output(self, name: str) -> bytes:
        """Return everything written to a terminal so far, nothing for one that was never opened."""
        terminal = self._by_name.get(name)
        return bytes(terminal.output) if terminal is not None else b""

    def type(self, name: str, data: bytes) -> None:
        """Type into an open terminal; what the core does not take yet waits here."""
        terminal = self._by_name[name]
        terminal.typed += data
        event = terminal.deliverable()
        if event is not None:
            self._deliver(event)

    def waiting(self, name: str) -> int:
        """Return how many typed bytes the core has not taken."""
        return len(self._by_name[name].typed)
