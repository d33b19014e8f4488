"""Performing the console core's actions."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from iovirt_dist.controllers.base import CommandsSubmitted, CompleteCommands, QueuePairOpened
from iovirt_dist.controllers.console.config import ConsoleConfig
from iovirt_dist.controllers.console.core import (
    AcceptInput,
    ConsoleController,
    ConsoleEvent,
    InputArrived,
    OpenTerminal,
    TerminalOpened,
    TerminalWritten,
    WriteTerminal,
)
from iovirt_dist.controllers.console.runner import ConsoleRunner, TerminalDirectory
from iovirt_dist.controllers.console.written import Part, Written
from iovirt_dist.errors import ImageError
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.commands import Command, Opcode


class _Port:
    """A terminal whose input and errors the test sets."""

    def __init__(self) -> None:
        self.output = b""
        self.typed = b""
        self.error = 0
        self.closed = False
        self.written = Written(b"owner", {b"id": 3})
        self.notes: list[tuple[bytes, Sequence[Part]]] = []

    def write(self, data: bytes, owner: bytes, parts: Sequence[Part]) -> None:
        """Keep or refuse output."""
        self.notes.append((owner, parts))
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.output += data

    def read(self, limit_bytes: int) -> bytes:
        """Give what was typed."""
        data, self.typed = self.typed[:limit_bytes], self.typed[limit_bytes:]
        return data

    def fileno(self) -> int:
        """A number that only the fake loop sees."""
        return 77

    def close(self) -> None:
        """Note it."""
        self.closed = True


class _Bench:
    """A runner on one fake port, and the readers that it asks for."""

    def __init__(self) -> None:
        self.port = _Port()
        self.events: list[ConsoleEvent] = []
        self.readers: dict[int, Callable[[], None]] = {}
        self.runner = ConsoleRunner(
            lambda _: self.port, self.events.append, self.readers.__setitem__, self.readers.__delitem__
        )
        self.opened = self.runner.perform(OpenTerminal(0, "alice"))


def test_open_and_write_have_their_outcomes_at_once() -> None:
    """The core hears that the terminal is there and has taken the data."""
    bench = _Bench()

    written = bench.runner.perform(WriteTerminal(0, b"hello"))

    assert bench.opened == TerminalOpened(0, 0, Written(b"owner", {b"id": 3}))
    assert written == TerminalWritten(0, 0)
    assert bench.port.output == b"hello"


def test_open_that_fails_is_an_outcome(caplog: pytest.LogCaptureFixture) -> None:
    """No free pseudo-terminal is told and logged."""

    def refuse(_: str) -> _Port:
        raise OSError(errno.ENOSPC, "no pseudo-terminal")

    runner = ConsoleRunner(refuse, lambda _: None, lambda _fd, _call: None, lambda _fd: None)

    assert runner.perform(OpenTerminal(3, "bob")) == TerminalOpened(3, errno.ENOSPC)
    assert "bob: terminal cannot be opened" in caplog.text


def test_write_that_fails_is_an_outcome_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk does not fill the log of the controller as well."""
    bench = _Bench()
    bench.port.error = errno.ENOSPC

    with caplog.at_level(logging.ERROR):
        outcomes = [bench.runner.perform(WriteTerminal(0, b"x")) for _ in range(3)]

    assert outcomes == [TerminalWritten(0, errno.ENOSPC)] * 3
    assert caplog.text.count("output is lost") == 1


def test_input_is_read_only_as_far_as_it_is_welcome() -> None:
    """The descriptor is watched while there is space, and no longer."""
    bench = _Bench()
    bench.port.typed = b"abcdef"
    watched_before = list(bench.readers)

    bench.runner.perform(AcceptInput(0, 4))
    bench.readers[77]()
    watched_full = list(bench.readers)
    bench.runner.perform(AcceptInput(0, 4))
    bench.readers[77]()
    bench.readers[77]()

    assert watched_before == []
    assert watched_full == []
    assert bench.events == [InputArrived(0, b"abcd"), InputArrived(0, b"ef")]
    assert list(bench.readers) == [77]


def test_close_stops_watching_and_closes_the_terminals() -> None:
    """Nothing stays in the loop."""
    bench = _Bench()
    bench.runner.perform(AcceptInput(0, 4))

    bench.runner.close()

    assert bench.readers == {}
    assert bench.port.closed


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[TerminalDirectory]:
    """A terminal directory with a stale link in it."""
    (tmp_path / "tty0").mkdir()
    (tmp_path / "tty0" / "dead.tty").symlink_to("/dev/pts/99999")
    opened = TerminalDirectory(ConsoleConfig(directory=tmp_path / "tty0", terminals=("alice",)))
    yield opened
    opened.close()


def test_directory_removes_stale_links_and_makes_terminals(directory: TerminalDirectory, tmp_path: Path) -> None:
    """At the start only what lives now is there."""
    terminal = directory.open_port("alice")

    names = sorted(path.name for path in (tmp_path / "tty0").iterdir())
    terminal.close()

    assert names == ["alice.log", "alice.tty", "alice.written"]


async def test_key_typed_into_the_link_completes_a_parked_receive(directory: TerminalDirectory, tmp_path: Path) -> None:
    """Core, runner, pseudo-terminal and a real loop together: output lands in the log, keys reach the guest's side."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[bytes] = loop.create_future()
    core = ConsoleController(["alice"])

    def feed(event: ConsoleEvent) -> None:
        for action in core.handle(event, 0):
            if isinstance(action, CompleteCommands):
                keys = [c.length for c in action.completions if RequestId.unpack(c.id).sequence == 3]
                received.set_result(bytes(action.payload[0])) if keys else None
            elif (outcome := runner.perform(action)) is not None:
                feed(outcome)

    runner = ConsoleRunner(directory.open_port, feed, loop.add_reader, loop.remove_reader)
    feed(QueuePairOpened(1, "hv", resumed=False))
    feed(CommandsSubmitted(1, [Command(RequestId(1, 0, 1).pack(), Opcode.IDENTIFY, 0, 0, 5)], [b"alice"]))
    feed(CommandsSubmitted(1, [Command(RequestId(1, 0, 2).pack(), Opcode.CONSOLE_TRANSMIT, 0, 0, 7)], [b"login: "]))
    feed(CommandsSubmitted(1, [Command(RequestId(1, 1, 3).pack(), Opcode.CONSOLE_RECEIVE, 0, 0, 64)], []))
    person = os.open(tmp_path / "tty0" / "alice.tty", os.O_RDWR | os.O_NOCTTY)
    os.write(person, b"\r")

    key = await asyncio.wait_for(received, 10)
    runner.close()
    os.close(person)

    assert key == b"\r"
    assert (tmp_path / "tty0" / "alice.log").read_bytes() == b"login: "
    assert sorted(path.name for path in (tmp_path / "tty0").iterdir()) == ["alice.log", "alice.written"]


def test_output_that_a_former_life_wrote_and_did_not_tell_is_not_written_again(tmp_path: Path) -> None:
    """The controller is killed between the write and its completion; the hypervisor submits again what it waits for."""
    config = ConsoleConfig(directory=tmp_path / "tty0", terminals=("alice",))

    def live(epoch: int, sequence: int, text: bytes) -> list[int]:
        """A life that carries out one transmit and is killed; returns the sequences that it completed."""
        directory = TerminalDirectory(config)
        runner = ConsoleRunner(directory.open_port, lambda _: None, lambda *_: None, lambda _: None)
        core, completed = ConsoleController(["alice"]), []
        identify = Command(RequestId(1, 0, 900).pack(), Opcode.IDENTIFY, 0, 0, 5)
        transmit = Command(RequestId(1, 0, sequence).pack(), Opcode.CONSOLE_TRANSMIT, 0, 0, len(text))
        events: list[ConsoleEvent] = [
            QueuePairOpened(1, "hv", resumed=False, epoch=epoch),
            CommandsSubmitted(1, [identify], [b"alice"]),
            CommandsSubmitted(1, [transmit], [text]),
        ]
        while events:
            for action in core.handle(events.pop(0), 0):
                if isinstance(action, CompleteCommands):
                    completed += [RequestId.unpack(completion.id).sequence for completion in action.completions]
                elif (outcome := runner.perform(action)) is not None:
                    events.insert(0, outcome)
        runner.close()
        directory.close()
        return completed

    told = [live(7, 1, b"once "), live(7, 1, b"once "), live(7, 2, b"more "), live(8, 2, b"anew")]

    assert told == [[900, 1], [900, 1], [900, 2], [900, 2]]
    assert (tmp_path / "tty0" / "alice.log").read_bytes() == b"once more anew"


def test_directory_in_use_is_refused(directory: TerminalDirectory, tmp_path: Path) -> None:
    """Two controllers would take each other's input."""
    with pytest.raises(ImageError, match="tty0: is in use by process"):
        TerminalDirectory(ConsoleConfig(directory=tmp_path / "tty0", terminals=()))


def test_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    """A file is in its place."""
    (tmp_path / "file").touch()

    with pytest.raises(ImageError, match="cannot be used for terminals"):
        TerminalDirectory(ConsoleConfig(directory=tmp_path / "file", terminals=()))


def test_directory_is_made_for_its_user_only(tmp_path: Path) -> None:
    """What guests print is nobody else's business; the lock leaves no file."""
    opened = TerminalDirectory(ConsoleConfig(directory=tmp_path / "run" / "tty0", terminals=()))
    opened.close()

    assert (tmp_path / "run" / "tty0").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "run" / "tty0").iterdir()) == []
