"""The console controller's core: commands of many queue pairs become writes to and input from terminals.

Theory of operation. A terminal is opened when it is first identified. What is transmitted to it in one batch is one
write; the commands complete when the terminal has taken it. What a former life of the controller has written and could
not tell is not written again (`journal`). Receives are parked, in order, until input is there.
Input that nobody has asked for yet is kept, up to `INPUT_BYTES`; the terminal is told how much more is welcome, and
delivers no more than that, so whoever types is held back instead of losing keys.

A receive of a closed queue pair stays parked but gets nothing: the input waits for the peer, or for its successor.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any, Final

from iovirt_dist.controllers.base import (
    NO_LIMIT,
    CommandsSubmitted,
    CompleteCommands,
    PairEvent,
    QueuePairClosed,
    QueuePairOpened,
    QueuePairs,
)
from iovirt_dist.controllers.console.config import MAX_TERMINALS, TERMINAL_NAME
from iovirt_dist.controllers.console.written import MAX_PARTS, NOTHING_WRITTEN, Part, Written, owner_of
from iovirt_dist.controllers.peer_queues import OutstandingCommand
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode, Status, UnitIdentity

INPUT_BYTES: Final = 64 << 10
"""Input kept per terminal."""

MAX_PARKED: Final = 16
"""Receives parked per terminal; more are completed with QUEUE_FULL."""


@dataclass(frozen=True, slots=True)
class OpenTerminal:
    """Create a terminal; answered by `TerminalOpened`."""

    terminal: int
    name: str


@dataclass(frozen=True, slots=True)
class WriteTerminal:
    """Write to a terminal; answered by `TerminalWritten`, in the order of the writes.

    Attributes:
        terminal: Which.
        data: What.
        owner: Whose commands they are, as `owner_of` says.
        parts: The commands, in the order of their data.
    """

    terminal: int
    data: bytes
    owner: bytes = b""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class AcceptInput:
    """Let the terminal deliver up to this many bytes from now on; replaces what was allowed before."""

    terminal: int
    space_bytes: int


@dataclass(frozen=True, slots=True)
class CloseTerminal:
    """Let go of a terminal; it may be opened again later."""

    terminal: int


@dataclass(frozen=True, slots=True)
class TerminalOpened:
    """`OpenTerminal` ended; `error` is an errno value, 0 for success. `written` is what a former life wrote last."""

    terminal: int
    error: int
    written: Written = NOTHING_WRITTEN


@dataclass(frozen=True, slots=True)
class TerminalWritten:
    """`WriteTerminal` ended; `error` is an errno value, 0 for success."""

    terminal: int
    error: int


@dataclass(frozen=True, slots=True)
class InputArrived:
    """Somebody typed."""

    terminal: int
    data: bytes


@dataclass(frozen=True, slots=True)
class TerminalsChanged:
    """Other guests are there now: names that may be identified, or patterns of them."""

    terminals: tuple[str, ...]


ConsoleOutcome = TerminalOpened | TerminalWritten | InputArrived | TerminalsChanged
ConsoleAccess = OpenTerminal | WriteTerminal | AcceptInput | CloseTerminal
ConsoleEvent = PairEvent | ConsoleOutcome
ConsoleAction = CompleteCommands | ConsoleAccess


@dataclass(slots=True, eq=False)
class _Terminal:
    """State of one terminal.

    Attributes:
        number: Unit number.
        name: As identified.
        opened: Whether it can be used.
        identifying: OutstandingCommands that wait for it to open; not empty while it is being opened.
        gathered: Transmits taken since the last write.
        writing: Transmits of each write under way, in order.
        parked: Receives that wait for input.
        input: Input that waits for a receive.
        space_bytes: What `AcceptInput` said last, less what came since.
        owner: Whose transmits a former life wrote last.
        done: How much of each it wrote, of those that have not come again.
    """

    number: int
    name: str
    opened: bool = False
    identifying: list[OutstandingCommand] = field(default_factory=list)
    gathered: list[OutstandingCommand] = field(default_factory=list)
    writing: deque[list[OutstandingCommand]] = field(default_factory=deque)
    parked: deque[OutstandingCommand] = field(default_factory=deque)
    input: bytearray = field(default_factory=bytearray)
    space_bytes: int = 0
    owner: bytes = b""
    done: dict[bytes, int] = field(default_factory=dict)


class ConsoleController:
    """Sans-IO core of a console controller.

    Args:
        terminals: Names that may be identified, or patterns of them.
        queue_credits: Commands that one queue pair may have in flight.
        burst: Commands taken from one queue pair before the next has its turn.
    """

    def __init__(self, terminals: Sequence[str], queue_credits: int = 1024, burst: int = 8) -> None:
        self.pairs = QueuePairs(queue_credits, burst)
        self.overrun_bytes = 0
        """Input dropped because the terminal delivered more than it was allowed."""
        self._allowed = tuple(terminals)
        self._handlers: dict[type, Callable[[Any], None]] = {
            QueuePairOpened: self._pair_opened,
            QueuePairClosed: self.pairs.closed,
            CommandsSubmitted: self.pairs.submit,
            TerminalOpened: self._terminal_opened,
            TerminalWritten: self._terminal_written,
            InputArrived: self._input_arrived,
            TerminalsChanged: self._terminals_changed,
        }
        self._starters: dict[Opcode, Callable[[OutstandingCommand], None]] = {
            Opcode.IDENTIFY: self._identify,
            Opcode.CONSOLE_TRANSMIT: self._transmit,
            Opcode.CONSOLE_RECEIVE: self._receive,
        }
        self._terminals: list[_Terminal] = []
        self._by_name: dict[str, _Terminal] = {}
        self._actions: list[ConsoleAction] = []
        self._to_write: list[_Terminal] = []

    @property
    def terminals(self) -> tuple[str, ...]:
        """Names of the terminals identified so far; the place is the unit number."""
        return tuple(terminal.name for terminal in self._terminals)

    def handle(self, event: ConsoleEvent, now_ns: int) -> list[ConsoleAction]:  # noqa: ARG002 - the contract of cores; nothing is timed here
        """Take an event; return completions first, then what the terminals shall do."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        for command in self.pairs.take(NO_LIMIT):
            self._start(command)
        for terminal in self._to_write:
            self._write(terminal)
        self._to_write.clear()
        actions, self._actions = self._actions, []
        return [*self.pairs.collect(), *actions]

    def deadline_ns(self) -> int | None:
        """Nothing is timed."""
        return None

    def _start(self, command: OutstandingCommand) -> None:
        starter = self._starters.get(command.opcode)
        if starter is None:
            self.pairs.complete(command, Status.UNKNOWN_OPCODE)
        else:
            starter(command)

    def _identify(self, command: OutstandingCommand) -> None:
        name = bytes(command.data).decode("ascii", errors="replace")
        terminal = self._by_name.get(name)
        if not self._may_open(name, known=terminal is not None):
            self.pairs.complete(command, Status.UNKNOWN_UNIT)
            return
        if terminal is None:
            terminal = self._by_name[name] = _Terminal(len(self._terminals), name)
            self._terminals.append(terminal)
        if terminal.opened:
            self._identified(terminal, command)
            return
        if not terminal.identifying:
            self._actions.append(OpenTerminal(terminal.number, name))
        terminal.identifying.append(command)

    def _may_open(self, name: str, *, known: bool) -> bool:
        if (len(self._terminals) >= MAX_TERMINALS and not known) or not TERMINAL_NAME.fullmatch(name):
            return False
        return any(fnmatchcase(name, pattern) for pattern in self._allowed)

    def _identified(self, terminal: _Terminal, command: OutstandingCommand) -> None:
        identity = UnitIdentity(0, 1, False, terminal.name[:20]).pack()
        self.pairs.complete(command, Status.OK, identity, terminal.number)

    def _terminals_changed(self, event: TerminalsChanged) -> None:
        """Let go of terminals whose guests are gone, with what waits for them; their numbers stay theirs."""
        self._allowed = event.terminals
        for terminal in self._terminals:
            if terminal.opened and not self._may_open(terminal.name, known=True):
                terminal.opened = False
                for command in terminal.parked:
                    self.pairs.complete(command, Status.UNKNOWN_UNIT)
                terminal.parked.clear()
                terminal.input.clear()
                terminal.space_bytes = 0
                self._actions.append(CloseTerminal(terminal.number))

    def _terminal_opened(self, event: TerminalOpened) -> None:
        terminal = self._terminals[event.terminal]
        waiting, terminal.identifying = terminal.identifying, []
        terminal.opened = not event.error
        terminal.owner, terminal.done = event.written.owner, dict(event.written.done)
        for command in waiting:
            if terminal.opened:
                self._identified(terminal, command)
            else:
                self.pairs.complete(command, Status.MEDIUM_ERROR)
        if terminal.opened:
            self._accept(terminal)

    def _opened_terminal(self, command: OutstandingCommand) -> _Terminal | None:
        """Return the command's terminal, or complete it with UNKNOWN_UNIT."""
        number = command.unit
        terminal = self._terminals[number] if number < len(self._terminals) else None
        if terminal is None or not terminal.opened:
            self.pairs.complete(command, Status.UNKNOWN_UNIT)
            return None
        return terminal

    def _transmit(self, command: OutstandingCommand) -> None:
        terminal = self._opened_terminal(command)
        if terminal is None:
            return
        if not 0 < command.length == len(command.data) <= MAX_DATA_BYTES:
            self.pairs.complete(command, Status.BAD_LENGTH)
            return
        done = terminal.done.pop(command.id, 0) if _owner(command) == terminal.owner else 0
        if done >= command.length:
            self.pairs.complete(command, Status.OK)
            return
        command.data = memoryview(command.data)[done:]
        if not terminal.gathered:
            self._to_write.append(terminal)
        terminal.gathered.append(command)

    def _write(self, terminal: _Terminal) -> None:
        """Write what was gathered: one write for each owner's commands in a row, and for so many as it may have."""
        gathered, terminal.gathered = terminal.gathered, []
        for owner, row in groupby(gathered, _owner):
            for commands in _batches(list(row)):
                data = b"".join([command.data for command in commands])
                parts = [Part(c.id, c.length - len(c.data), len(c.data)) for c in commands]
                terminal.writing.append(commands)
                self._actions.append(WriteTerminal(terminal.number, data, owner, tuple(parts)))

    def _terminal_written(self, event: TerminalWritten) -> None:
        writing = self._terminals[event.terminal].writing
        for command in writing.popleft() if writing else ():
            self.pairs.complete(command, Status.MEDIUM_ERROR if event.error else Status.OK)

    def _receive(self, command: OutstandingCommand) -> None:
        terminal = self._opened_terminal(command)
        if terminal is None:
            return
        if not 0 < command.length <= MAX_DATA_BYTES:
            self.pairs.complete(command, Status.BAD_LENGTH)
        elif len(terminal.parked) >= MAX_PARKED:
            self.pairs.complete(command, Status.QUEUE_FULL)
        else:
            terminal.parked.append(command)
            self._serve(terminal)

    def _input_arrived(self, event: InputArrived) -> None:
        terminal = self._terminals[event.terminal]
        fitting = event.data[: terminal.space_bytes]
        self.overrun_bytes += len(event.data) - len(fitting)
        terminal.space_bytes -= len(fitting)
        terminal.input += fitting
        self._serve(terminal)

    def _pair_opened(self, event: QueuePairOpened) -> None:
        """Forget receives of lives that are over; those of a peer that is back are served."""
        self.pairs.opened(event)
        for terminal in self._terminals:
            if terminal.parked:
                terminal.parked = deque(command for command in terminal.parked if not command.queues.abandoned)
                self._serve(terminal)

    def _serve(self, terminal: _Terminal) -> None:
        """Give input to parked receives of open pairs, in order."""
        held: list[OutstandingCommand] = []
        while terminal.input and terminal.parked:
            command = terminal.parked.popleft()
            if command.queues.number is None:
                held.append(command)
                continue
            data = bytes(terminal.input[: command.length])
            del terminal.input[: command.length]
            self.pairs.complete(command, Status.OK, data)
        terminal.parked.extendleft(reversed(held))
        self._accept(terminal)

    def _accept(self, terminal: _Terminal) -> None:
        """Tell the terminal how much input is welcome, if that has become more."""
        space = INPUT_BYTES - len(terminal.input)
        if space > terminal.space_bytes:
            terminal.space_bytes = space
            self._actions.append(AcceptInput(terminal.number, space))


def _owner(command: OutstandingCommand) -> bytes:
    return owner_of(command.queues.peer, command.queues.epoch)


def _batches(commands: list[OutstandingCommand]) -> list[list[OutstandingCommand]]:
    return [commands[at : at + MAX_PARTS] for at in range(0, len(commands), MAX_PARTS)]
