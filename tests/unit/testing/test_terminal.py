"""Terminals in memory, with a real core in front of them."""

from __future__ import annotations

import errno

from iovirt_dist.controllers.base import CommandsSubmitted, CompleteCommands, QueuePairOpened
from iovirt_dist.controllers.console.core import INPUT_BYTES, ConsoleController, ConsoleEvent
from iovirt_dist.ids import RequestId
from iovirt_dist.testing.terminal import MemoryTerminals
from iovirt_dist.wire.commands import Command, Completion, Opcode, Status


class _Console:
    """A core with its hands; completions are kept."""

    def __init__(self) -> None:
        self.core = ConsoleController(["alice"])
        self.terminals = MemoryTerminals(self.feed)
        self.completions: list[Completion] = []
        self.payload: list[bytes] = []
        self._sequence = 0
        self.feed(QueuePairOpened(1, "hv", resumed=False))

    def feed(self, event: ConsoleEvent) -> None:
        """Handle an event and everything that follows from it."""
        for action in self.core.handle(event, 0):
            if isinstance(action, CompleteCommands):
                self.completions += action.completions
                self.payload += [bytes(data) for data in action.payload]
                continue
            outcome = self.terminals.perform(action)
            if outcome is not None:
                self.feed(outcome)

    def submit(self, opcode: Opcode, length: int, *payload: bytes) -> None:
        """Submit the next command."""
        self._sequence += 1
        command = Command(RequestId(1, 0, self._sequence).pack(), opcode, 0, 0, length)
        self.feed(CommandsSubmitted(1, [command], [*payload]))


def test_terminal_in_memory_takes_output_and_gives_input() -> None:
    """The whole way there and back."""
    console = _Console()
    console.submit(Opcode.IDENTIFY, 5, b"alice")
    console.submit(Opcode.CONSOLE_TRANSMIT, 6, b"login:")
    console.submit(Opcode.CONSOLE_RECEIVE, 100)

    console.terminals.type("alice", b"root\n")

    assert [completion.status for completion in console.completions] == [Status.OK] * 3
    assert console.terminals.output("alice") == b"login:"
    assert console.terminals.output("bob") == b""
    assert console.payload[-1] == b"root\n"


def test_terminal_in_memory_holds_back_what_the_core_does_not_take() -> None:
    """Nothing is lost: it is delivered once there is space."""
    console = _Console()
    console.submit(Opcode.IDENTIFY, 5, b"alice")
    console.terminals.type("alice", b"x" * INPUT_BYTES + b"tail")
    held = console.terminals.waiting("alice")

    console.submit(Opcode.CONSOLE_RECEIVE, INPUT_BYTES)
    console.submit(Opcode.CONSOLE_RECEIVE, INPUT_BYTES)

    assert held == 4
    assert console.payload[-2:] == [b"x" * INPUT_BYTES, b"tail"]
    assert console.core.overrun_bytes == 0


def test_terminal_in_memory_fails_as_it_is_told() -> None:
    """Opening and writing end with the errors that a test sets."""
    console = _Console()
    console.terminals.open_error = errno.ENOSPC
    console.submit(Opcode.IDENTIFY, 5, b"alice")
    console.terminals.open_error = 0
    console.terminals.write_error = errno.EIO
    console.submit(Opcode.IDENTIFY, 5, b"alice")
    console.submit(Opcode.CONSOLE_TRANSMIT, 1, b"x")

    assert [completion.status for completion in console.completions] == [
        Status.MEDIUM_ERROR,
        Status.OK,
        Status.MEDIUM_ERROR,
    ]
