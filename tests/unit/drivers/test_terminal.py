"""The host-side console driver."""

from __future__ import annotations

import pytest

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.terminal import BUFFER_BYTES, RECEIVE_BYTES, RETRY_NS, TerminalDriver
from iovirt_dist.ids import RequestId
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.commands import Command, Opcode, Status, UnitIdentity
from tests.unit.drivers.support import Controller, Outcomes

TERMINAL = UnitIdentity(0, 1, False, "TTY")


class Uart:
    """A virtual terminal with room for some bytes."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.received = b""
        self.resumed: list[int] = []

    def receive(self, data: bytes, now_ns: int) -> int:
        """Take what fits."""
        taken = data[: self.room]
        self.received += taken
        self.room -= len(taken)
        return len(taken)

    def resume(self, now_ns: int) -> None:
        """Keep the time."""
        self.resumed.append(now_ns)


class Bench:
    """A driver between a UART and a controller."""

    def __init__(self, bound: int = 16) -> None:
        self.pair = QueuePair("tty0", MultiQueue(bound=bound))
        self.pair.use("alice")
        self.controller = Controller(self.pair, {"alice": TERMINAL})
        self.controller.open()
        self.uart = Uart()
        self.driver = TerminalDriver(self.pair, "alice", guest=5, queue=1)
        self.driver.attach(self.uart, 0)

    def flush(self, now_ns: int = 0) -> None:
        """Flush, and let the controller take what there is."""
        self.controller.now_ns = now_ns
        self.driver.flush(now_ns)
        self.controller.take()

    def commands(self, opcode: Opcode) -> list[Command]:
        """Commands at the controller."""
        return [command for command in self.controller.commands if command.opcode is opcode]

    def sent(self) -> list[bytes]:
        """Data of the transmits at the controller."""
        return [self.controller.data[command.id] for command in self.commands(Opcode.CONSOLE_TRANSMIT)]

    def end(self, opcode: Opcode, status: Status, data: bytes = b"", at_ns: int = 0) -> None:
        """Complete the command with this opcode."""
        self.controller.now_ns = at_ns
        self.controller.complete(self.commands(opcode)[0], status, data)


def test_bytes_are_gathered_while_a_transmit_is_under_way() -> None:
    """A guest that prints a character at a time costs two commands, not ten."""
    bench = Bench()
    for byte in b"0123456789":
        bench.driver.transmit(bytes([byte]))
        bench.flush()
    first = bench.sent()

    bench.end(Opcode.CONSOLE_TRANSMIT, Status.OK)
    bench.flush()

    assert first == [b"0"]
    assert bench.sent() == [b"123456789"]


def test_one_receive_is_parked_and_the_next_after_it() -> None:
    """Under an id of its own, so that none is done twice."""
    bench = Bench()
    bench.flush()
    bench.flush()
    first = bench.commands(Opcode.CONSOLE_RECEIVE)

    bench.end(Opcode.CONSOLE_RECEIVE, Status.OK, b"ls")
    bench.flush()

    second = bench.commands(Opcode.CONSOLE_RECEIVE)
    assert (len(first), len(second)) == (1, 1)
    assert [RequestId.unpack(each.id).sequence for each in (*first, *second)] == [1, 2]
    assert bench.uart.received == b"ls"


def test_typed_bytes_that_do_not_fit_wait_and_hold_the_next_receive_back() -> None:
    """The terminal keeps what is typed meanwhile."""
    bench = Bench()
    bench.uart.room = 2
    bench.flush()

    bench.end(Opcode.CONSOLE_RECEIVE, Status.OK, b"abcd")
    bench.flush()
    held_back = bench.commands(Opcode.CONSOLE_RECEIVE)
    bench.uart.room = 10
    bench.driver.feed(0)
    bench.flush()

    assert held_back == []
    assert bench.uart.received == b"abcd"
    assert len(bench.commands(Opcode.CONSOLE_RECEIVE)) == 1


def test_typed_bytes_wait_for_a_machine() -> None:
    """What is typed while it is down is there when it comes up."""
    bench = Bench()
    bench.flush()
    bench.driver.attach(None, 0)
    bench.end(Opcode.CONSOLE_RECEIVE, Status.OK, b"early")

    again = Uart()
    bench.driver.attach(again, 0)

    assert (bench.uart.received, again.received) == (b"", b"early")


def test_space_falls_to_nothing_and_the_device_is_resumed_when_it_is_back() -> None:
    """Bytes beyond it are dropped: the device asks first."""
    bench = Bench()
    bench.driver.transmit(bytes(BUFFER_BYTES))
    bench.flush()
    full = bench.driver.space()
    bench.driver.transmit(b"lost")

    bench.end(Opcode.CONSOLE_TRANSMIT, Status.OK, at_ns=7)

    assert full == 0
    assert bench.uart.resumed == [7]
    assert bench.driver.space() == BUFFER_BYTES
    assert bench.driver.bytes_out == BUFFER_BYTES


@pytest.mark.parametrize(
    ("status", "data"), [(status, b"") for status in Status if status is not Status.OK] + [(Status.OK, b"")]
)
def test_failed_receive_is_tried_again_after_a_second(status: Status, data: bytes) -> None:
    """Not at once: the controller would fail it at once again. A success without data is no success."""
    bench = Bench()
    bench.flush()

    bench.end(Opcode.CONSOLE_RECEIVE, status, data, at_ns=10)
    retry_ns = bench.driver.retry_ns
    bench.flush(RETRY_NS + 9)
    early = bench.commands(Opcode.CONSOLE_RECEIVE)
    bench.flush(RETRY_NS + 10)

    assert retry_ns == RETRY_NS + 10
    assert early == []
    assert len(bench.commands(Opcode.CONSOLE_RECEIVE)) == 1
    assert bench.driver.retry_ns is None
    assert bench.driver.errors == 1


@pytest.mark.parametrize("status", [Status.QUEUE_FULL, Status.ABORTED])
def test_transmit_that_was_sent_back_is_tried_again_with_what_came_since(status: Status) -> None:
    """Nothing is lost, and the order is kept."""
    bench = Bench()
    bench.driver.transmit(b"first ")
    bench.flush()
    bench.driver.transmit(b"second")

    bench.end(Opcode.CONSOLE_TRANSMIT, status, at_ns=10)
    bench.flush(11)
    early = bench.sent()
    bench.flush(RETRY_NS + 10)

    assert early == []
    assert bench.sent() == [b"first second"]
    assert (bench.driver.errors, bench.driver.lost_bytes) == (1, 0)


@pytest.mark.parametrize("status", [Status.MEDIUM_ERROR, Status.UNKNOWN_UNIT, Status.BAD_LENGTH])
def test_transmit_that_the_terminal_refused_is_lost_and_counted(status: Status) -> None:
    """A guest does not stand still because its console is broken."""
    bench = Bench()
    bench.driver.transmit(bytes(BUFFER_BYTES))
    bench.flush()
    bench.driver.space()

    bench.end(Opcode.CONSOLE_TRANSMIT, status)

    assert (bench.driver.errors, bench.driver.lost_bytes, bench.driver.bytes_out) == (1, BUFFER_BYTES, 0)
    assert bench.driver.space() == BUFFER_BYTES
    assert bench.uart.resumed == [0]


def test_transmit_that_finds_the_queue_full_is_tried_again() -> None:
    """Its bytes wait here."""
    bench = Bench(bound=1)
    Outcomes().offer(bench.pair, 1, unit="alice")
    bench.driver.transmit(b"later")

    bench.flush()
    early, retry_ns = bench.sent(), bench.driver.retry_ns
    bench.flush(RETRY_NS)

    assert (early, retry_ns) == ([], RETRY_NS)
    assert bench.sent() == [b"later"]


def test_more_than_was_asked_for_is_cut_off() -> None:
    """A controller cannot make the hypervisor keep what it did not ask for."""
    bench = Bench()
    bench.flush()

    bench.end(Opcode.CONSOLE_RECEIVE, Status.OK, bytes(RECEIVE_BYTES + 1))

    assert bench.driver.bytes_in == len(bench.uart.received) == RECEIVE_BYTES


def test_restarted_controller_gets_the_transmit_and_the_receive_again() -> None:
    """Under the ids that they had."""
    bench = Bench()
    bench.driver.transmit(b"hello")
    bench.flush()
    before = {command.id for command in bench.controller.commands}

    again = Controller(bench.pair, {"alice": TERMINAL})
    again.open()

    assert {command.id for command in again.commands} == before
    assert b"hello" in again.data.values()
