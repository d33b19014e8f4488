"""Tests of the virtio console device by VIRTIO 1.2, section 5.3."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.virtio_console import MAX_HELD_BYTES, VirtioConsole
from iovirt_dist.virtio.console import ConsoleConfig
from iovirt_dist.virtio.mmio import Register
from tests.unit.hypervisor.vdev.virtio_bench import LIVE, NEEDS_RESET, Bench, Offered, Returned

RECEIVE, TRANSMIT = 0, 1


class Screen:
    """A terminal that takes as much as it has space for.

    Args:
        free: Bytes.
    """

    def __init__(self, free: int = 4096) -> None:
        self.free = free
        self.shown = b""

    def transmit(self, data: bytes) -> None:
        """Show."""
        assert len(data) <= self.free
        self.shown += data
        self.free -= len(data)

    def space(self) -> int:
        """What is free."""
        return self.free


class ConsoleBench(Bench):
    """A started console with its screen."""

    def __init__(self, free: int = 4096) -> None:
        self.screen = Screen(free)
        self.console = VirtioConsole(self.screen)
        super().__init__(self.console)
        self.start()


def test_console_output_is_shown_and_its_buffer_returned() -> None:
    """A length of 0: nothing was written to it."""
    bench = ConsoleBench()

    bench.doorbell(TRANSMIT, Offered(3, b"hello, "), Offered(5, b"world\n"))

    assert bench.screen.shown == b"hello, world\n"
    assert bench.returned() == [Returned(3), Returned(5)]
    assert bench.console.bytes_out == 13


def test_console_output_waits_for_space_in_order() -> None:
    """A buffer goes back once all of it was taken."""
    bench = ConsoleBench(free=4)
    bench.doorbell(TRANSMIT, Offered(0, b"abc"), Offered(1, b"defg"), Offered(2, b""))
    first = bench.returned()

    bench.screen.free = 3
    bench.console.resume(0)
    second = bench.returned()

    assert first == [Returned(0)]
    assert second == [Returned(1), Returned(2)]
    assert bench.screen.shown == b"abcdefg"


def test_console_output_that_a_terminal_never_takes_is_bounded() -> None:
    """What exceeds the bound is lost and counted; its buffer comes back in turn."""
    bench = ConsoleBench(free=0)
    bench.doorbell(TRANSMIT, Offered(0, bytes(MAX_HELD_BYTES - 10)), Offered(1, bytes(100)), Offered(2, b"x"))

    bench.screen.free = 2 * MAX_HELD_BYTES
    bench.console.resume(0)

    assert bench.console.lost_bytes == 91
    assert len(bench.screen.shown) == MAX_HELD_BYTES
    assert bench.returned() == [Returned(0), Returned(1), Returned(2)]


def test_console_input_fills_buffers_in_order_and_the_rest_stays() -> None:
    """One buffer per piece; the caller keeps what did not fit."""
    bench = ConsoleBench()
    bench.doorbell(RECEIVE, Offered(0, writable=4), Offered(1, writable=8))

    taken = bench.console.receive(b"0123456789ABCDEF", 0)

    assert taken == 12
    assert bench.returned() == [Returned(0, b"0123"), Returned(1, b"456789AB")]
    assert bench.console.bytes_in == 12


def test_console_input_without_buffers_stays_with_the_caller() -> None:
    """Until the driver provides some."""
    bench = ConsoleBench()

    before = bench.console.receive(b"abc", 0)
    bench.doorbell(RECEIVE, Offered(7, writable=100))
    after = bench.console.receive(b"abc", 0)

    assert (before, after) == (0, 3)
    assert bench.returned() == [Returned(7, b"abc")]


def test_console_buffer_for_input_that_holds_nothing_needs_a_reset() -> None:
    """Section 5.3.6.1: the receive queue takes device-writable buffers."""
    bench = ConsoleBench()

    bench.doorbell(RECEIVE, Offered(0, b"readable"))

    assert bench.read(Register.STATUS) == LIVE | NEEDS_RESET
    assert bench.host.faults == {"console-buffer": 1}


@pytest.mark.parametrize("width", [1, 2, 4])
def test_console_emergency_write_shows_a_character_before_anything_is_set_up(width: int) -> None:
    """Section 5.3.5.1: the lowest byte, even without initialisation."""
    screen = Screen()
    bench = Bench(VirtioConsole(screen))

    bench.write(Register.CONFIG + 8, 0x41, width)
    bench.write(Register.CONFIG + 4, 0x42, width)

    assert screen.shown == b"A"
    assert bench.read(Register.CONFIG + 8) == 0


def test_console_emergency_write_without_space_is_lost() -> None:
    """And counted."""
    bench = ConsoleBench(free=0)

    bench.write(Register.CONFIG + 8, 0x41)

    assert bench.console.lost_bytes == 1


def test_console_configuration_names_one_port() -> None:
    """No size: that feature is not offered."""
    assert ConsoleConfig.unpack(ConsoleBench().console.config) == ConsoleConfig(0, 0, 1, 0)


def test_console_reset_forgets_buffers_and_held_output() -> None:
    """Nothing of the earlier life comes back."""
    bench = ConsoleBench(free=0)
    bench.doorbell(RECEIVE, Offered(0, writable=10))
    bench.doorbell(TRANSMIT, Offered(0, b"old"))

    bench.start()
    bench.screen.free = 100
    bench.console.resume(0)

    assert bench.console.receive(b"abc", 0) == 0
    assert (bench.returned(), bench.screen.shown) == ([], b"")


def test_console_state_with_held_output_and_buffers_goes_to_a_twin() -> None:
    """Which goes on with both."""
    bench, twin = ConsoleBench(free=2), ConsoleBench(free=50)
    bench.doorbell(RECEIVE, Offered(0, writable=10))
    bench.doorbell(TRANSMIT, Offered(4, b"abcdef"))

    twin.device.restore(bench.device.state())
    twin.console.resume(0)
    twin.console.receive(b"in", 0)

    assert twin.screen.shown == b"cdef"
    assert sorted(twin.returned()) == [Returned(0, b"in"), Returned(4)]
