"""Tests of the virtio entropy device by VIRTIO 1.2, section 5.4."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.virtio_rng import VirtioRng
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.wire.commands import Status
from tests.unit.hypervisor.vdev.virtio_bench import LIVE, NEEDS_RESET, Bench, Offered, Returned


class Source:
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def request(self, tag: int, length: int) -> None:
        """Take a request."""
        self.asked.append((tag, length))


class RngBench(Bench):
    """A started entropy device with its source."""

    def __init__(self) -> None:
        self.source = Source()
        self.rng = VirtioRng(self.source)
        super().__init__(self.rng)
        self.start()


def test_rng_buffer_is_filled_by_the_backend() -> None:
    """As far as it has bytes: the used length says how many."""
    bench = RngBench()
    bench.doorbell(0, Offered(9, writable=64))
    ((tag, length),) = bench.source.asked

    bench.rng.supply(tag, Status.OK, b"random", 0)

    assert length == 64
    assert bench.returned() == [Returned(9, b"random")]
    assert bench.rng.bytes_in == 6


def test_rng_large_buffer_asks_for_part_of_it() -> None:
    """Section 5.4.6.2: the device may use less than the buffer."""
    bench = RngBench()

    bench.doorbell(0, Offered(0, writable=1 << 24))

    assert bench.source.asked[0][1] == 65536


def test_rng_buffer_that_holds_nothing_needs_a_reset() -> None:
    """The device must place at least one byte."""
    bench = RngBench()

    bench.doorbell(0, Offered(0, b"readable"), Offered(1, writable=8))

    assert bench.read(Register.STATUS) == LIVE | NEEDS_RESET
    assert bench.host.faults == {"entropy-buffer": 1}
    assert bench.source.asked == []


@pytest.mark.parametrize(
    ("status", "data"), [(Status.ABORTED, b""), (Status.OK, b""), (Status.OK, bytes(9)), (Status.MEDIUM_ERROR, b"x")]
)
def test_rng_request_that_the_backend_cannot_serve_waits_until_it_can(status: Status, data: bytes) -> None:
    """No buffer without a byte, no byte that is not random, and no more than there is room for."""
    bench = RngBench()
    bench.doorbell(0, Offered(2, writable=8))
    (first,) = bench.source.asked

    bench.rng.supply(first[0], status, data, 0)
    early = bench.returned()
    bench.rng.ask_again()
    bench.rng.ask_again()
    bench.rng.supply(first[0], Status.OK, b"late", 0)

    assert (early, bench.rng.failed) == ([], 1)
    assert bench.source.asked == [first, first]
    assert bench.returned() == [Returned(2, b"late")]


def test_rng_request_that_waits_ends_with_its_queue() -> None:
    """Nothing is asked for a driver that is gone."""
    bench = RngBench()
    bench.doorbell(0, Offered(2, writable=8))
    bench.rng.supply(bench.source.asked[0][0], Status.MEDIUM_ERROR, b"", 0)

    bench.write(Register.STATUS, 0)
    bench.rng.ask_again()

    assert len(bench.source.asked) == 1


def test_rng_bytes_for_an_earlier_life_are_ignored() -> None:
    """As are those that nobody asked for."""
    bench = RngBench()
    bench.doorbell(0, Offered(2, writable=8))
    ((tag, _),) = bench.source.asked

    bench.start()
    bench.rng.supply(tag, Status.OK, b"x", 0)
    bench.rng.supply(77, Status.OK, b"x", 0)

    assert bench.returned() == []


def test_rng_has_no_configuration() -> None:
    """Reads 0; writing does nothing."""
    bench = RngBench()

    bench.write(Register.CONFIG, 1)

    assert bench.read(Register.CONFIG) == 0


def test_rng_state_with_a_request_in_flight_asks_the_twins_backend() -> None:
    """With the same tag."""
    bench, twin = RngBench(), RngBench()
    bench.doorbell(0, Offered(2, writable=8))

    twin.device.restore(bench.device.state())
    twin.rng.supply(bench.source.asked[0][0], Status.OK, b"y", 0)

    assert twin.source.asked == bench.source.asked
    assert twin.returned() == [Returned(2, b"y")]
