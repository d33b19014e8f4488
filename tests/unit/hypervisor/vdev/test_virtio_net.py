"""Tests of the virtio network device by VIRTIO 1.2, section 5.1."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.virtio_net import HELD_FRAMES, WANT_NS, VirtioNet
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.mmio import Register
from iovirt_dist.virtio.network import NetworkConfig, NetworkFeature
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.queue_messages import Completions
from tests.unit.hypervisor.vdev.virtio_bench import (
    CONFIGURATION,
    LIVE,
    NEEDS_RESET,
    Bench,
    Offered,
    Returned,
    unpack_returned,
)

RECEIVE, TRANSMIT = 0, 1
MAC = bytes.fromhex("525400123456")
FRAME = b"\xff" * 6 + MAC + b"\x08\x00" + b"payload"
HEADER = bytes(10) + b"\x01\x00"
UNMERGED = mask(Feature.VERSION_1, NetworkFeature.STATUS)


class Wire:
    """Keeps the frames."""

    mac = MAC
    mtu = 1500

    def __init__(self, *, link_up: bool) -> None:
        self.link_up = link_up
        self.frames: list[bytes] = []

    def transmit(self, frame: Buffer) -> None:
        """Take a frame."""
        self.frames.append(bytes(frame))


class NetBench(Bench):
    """A started card with its wire."""

    def __init__(self, *, link_up: bool = True, features: int | None = None) -> None:
        self.wire = Wire(link_up=link_up)
        self.net = VirtioNet(self.wire)
        super().__init__(self.net)
        self.start(features)


@pytest.mark.parametrize(("link_up", "status"), [(True, 1), (False, 0)])
def test_net_configuration_tells_address_link_and_mtu(link_up: bool, status: int) -> None:
    """Section 5.1.4."""
    config = NetworkConfig.unpack(NetBench(link_up=link_up).net.config)

    assert (config.mac, config.status, config.max_virtqueue_pairs, config.mtu) == (MAC, status, 1, 1500)


def test_net_frame_goes_out_without_its_header() -> None:
    """Its buffer comes back at once."""
    bench = NetBench()

    bench.doorbell(TRANSMIT, Offered(4, bytes(12) + FRAME))

    assert bench.wire.frames == [FRAME]
    assert bench.returned() == [Returned(4)]
    assert (bench.net.frames_out, bench.net.bytes_out) == (1, len(FRAME))


@pytest.mark.parametrize("length", [0, 13, 65550, 100_000])
def test_net_frame_of_impossible_length_is_dropped_and_its_buffer_returned(length: int) -> None:
    """Shorter than an Ethernet header, longer than any MTU allows."""
    bench = NetBench()

    bench.doorbell(TRANSMIT, Offered(0, bytes(12 + length)))

    assert (bench.wire.frames, bench.net.dropped_out) == ([], 1)
    assert bench.returned() == [Returned(0)]


def test_net_frame_without_a_link_is_dropped() -> None:
    """No switch is connected."""
    bench = NetBench(link_up=False)

    bench.doorbell(TRANSMIT, Offered(0, bytes(12) + FRAME))

    assert (bench.wire.frames, bench.net.dropped_out) == ([], 1)
    assert bench.returned() == [Returned(0)]


def test_net_frame_without_a_whole_header_needs_a_reset() -> None:
    """Section 5.1.6.2."""
    bench = NetBench()

    bench.doorbell(TRANSMIT, Offered(0, bytes(11)))

    assert bench.read(Register.STATUS) == LIVE | NEEDS_RESET
    assert bench.host.faults == {"network-header": 1}


def test_net_received_frame_is_in_the_next_buffer_behind_a_plain_header() -> None:
    """Section 5.1.6.4.1: num_buffers is 1."""
    bench = NetBench()
    bench.doorbell(RECEIVE, Offered(1, writable=1526), Offered(2, writable=1526))

    taken = bench.net.receive(FRAME, 0)

    assert taken
    assert bench.returned() == [Returned(1, HEADER + FRAME)]
    assert (bench.net.frames_in, bench.net.bytes_in) == (1, len(FRAME))


def looks(bench: Bench) -> int:
    """How often the flushes have asked for the receive ring to be looked at."""
    bodies = [outgoing.body for outgoing in bench.sent if isinstance(outgoing.body, Completions)]
    return sum(body.queue == RECEIVE and body.completions == b"" for body in bodies)


def test_net_received_frame_without_room_is_dropped() -> None:
    """Too small a buffer stays for a smaller frame, where buffers are not merged."""
    bench = NetBench(features=UNMERGED)
    bench.doorbell(RECEIVE, Offered(0, writable=12 + len(FRAME) - 1))

    assert not bench.net.receive(FRAME, 0)
    assert bench.returned() == []
    assert bench.net.dropped_in == 1


def test_net_frame_without_a_buffer_waits_while_the_ring_is_looked_at() -> None:
    """There are drivers that put buffers back without a doorbell; one look at a time is enough."""
    bench = NetBench()

    taken = [bench.net.receive(FRAME + bytes([number]), number) for number in range(2)]
    before = bench.returned()
    asked = looks(bench)
    bench.doorbell(RECEIVE, Offered(1, writable=1526), Offered(2, writable=1526))

    assert taken == [True, True]
    assert (before, asked) == ([], 1)
    assert bench.returned() == [Returned(1, HEADER + FRAME + b"\0"), Returned(2, HEADER + FRAME + b"\1")]
    assert (bench.net.frames_in, bench.net.dropped_in) == (2, 0)


def test_net_ring_is_looked_at_again_after_a_while_or_when_the_driver_sends() -> None:
    """A driver that sends may have put buffers back."""
    bench = NetBench()
    bench.net.receive(FRAME, 0)
    bench.returned()

    bench.doorbell(TRANSMIT, Offered(4, bytes(12) + FRAME), now_ns=WANT_NS - 1)
    bench.returned()
    early = looks(bench)
    bench.doorbell(TRANSMIT, Offered(4, bytes(12) + FRAME), now_ns=WANT_NS)
    bench.returned()

    assert (early, looks(bench)) == (1, 2)


def test_net_ring_is_looked_at_at_once_if_the_last_look_has_found_buffers() -> None:
    """A burst runs out of buffers again and again."""
    bench = NetBench()
    bench.net.receive(FRAME, 0)
    bench.returned()
    bench.doorbell(RECEIVE, Offered(1, writable=1526))

    bench.net.receive(FRAME, 1)
    bench.returned()

    assert looks(bench) == 2


def test_net_frames_that_wait_too_long_make_room_for_newer_ones() -> None:
    """So that the answer to what the driver sends next is among them."""
    bench = NetBench()

    for number in range(HELD_FRAMES + 2):
        bench.net.receive(FRAME + bytes([number]), 0)
    bench.doorbell(RECEIVE, Offered(1, writable=1526))

    assert bench.net.dropped_in == 2
    assert bench.returned() == [Returned(1, HEADER + FRAME + b"\2")]


def test_net_frame_for_a_driver_that_has_no_queue_is_dropped() -> None:
    """Before it has started there is nobody."""
    bench = NetBench()
    bench.write(Register.STATUS, 0)

    assert not bench.net.receive(FRAME, 0)
    assert bench.net.dropped_in == 1


def test_net_buffer_for_frames_that_holds_nothing_needs_a_reset() -> None:
    """Section 5.1.6.3."""
    bench = NetBench()

    bench.doorbell(RECEIVE, Offered(0, b"readable"))

    assert bench.host.faults == {"network-buffer": 1}


def test_net_link_that_comes_up_is_told() -> None:
    """Configuration and its change notification; once."""
    bench = NetBench(link_up=False)

    bench.net.link_changed(True, 0)
    bench.net.link_changed(True, 0)

    assert bench.read(Register.CONFIG + 6, 2) == 1
    assert bench.read(Register.INTERRUPT_STATUS) == CONFIGURATION
    assert bench.read(Register.CONFIG_GENERATION) == 1


def test_net_link_change_is_not_told_to_a_driver_that_did_not_ask() -> None:
    """It did not accept STATUS."""
    bench = NetBench(features=mask(Feature.VERSION_1))

    bench.net.link_changed(False, 0)

    assert not bench.line.level


def test_net_reset_forgets_buffers_and_frames() -> None:
    """A frame finds none, and none of before comes."""
    bench = NetBench()
    bench.doorbell(RECEIVE, Offered(1, writable=1526), Offered(2, writable=1526))
    bench.start()
    bench.net.receive(FRAME, 0)
    bench.returned()

    bench.start()
    bench.net.receive(FRAME + b"new", 0)
    bench.doorbell(RECEIVE, Offered(7, writable=1526))

    assert bench.returned() == [Returned(7, HEADER + FRAME + b"new")]


def test_net_state_with_buffers_and_a_changed_link_goes_to_a_twin() -> None:
    """The link is down in its configuration, and up again the buffer is used."""
    bench, twin = NetBench(), NetBench()
    bench.doorbell(RECEIVE, Offered(1, writable=1526))
    bench.net.link_changed(False, 0)

    twin.device.restore(bench.device.state())
    down = twin.read(Register.CONFIG + 6, 2)
    twin.net.link_changed(True, 0)

    assert down == 0
    assert twin.net.receive(FRAME, 0)
    assert twin.returned() == [Returned(1, HEADER + FRAME)]


# --- mergeable buffers, sections 5.1.6.3.2 and 5.1.6.4


def test_net_frame_larger_than_a_buffer_is_spread_over_several() -> None:
    """Only the first has a header, with their number; all but the last are full; the interrupt is for all."""
    bench = NetBench()
    bench.doorbell(RECEIVE, *(Offered(head, writable=16) for head in range(4)), interrupt_at=1)

    taken = bench.net.receive(FRAME, 0)
    (outgoing,) = bench.flush()

    assert taken
    assert isinstance(outgoing.body, Completions)
    assert unpack_returned(outgoing.body, outgoing.payload) == [
        Returned(0, bytes(10) + b"\x03\x00" + FRAME[:4]),
        Returned(1, FRAME[4:20]),
        Returned(2, FRAME[20:]),
    ]
    assert outgoing.body.interrupt


def test_net_jumbo_frame_fits_into_buffers_of_a_page() -> None:
    """As Linux offers them for an MTU of 9000."""
    bench = NetBench()
    bench.doorbell(RECEIVE, *(Offered(head, writable=4096) for head in range(5)))
    frame = FRAME.ljust(9014, b"j")

    bench.net.receive(frame, 0)
    returned = bench.returned()

    assert [(one.head, len(one.data)) for one in returned] == [(0, 4096), (1, 4096), (2, 9014 + 12 - 8192)]
    assert b"".join(one.data for one in returned) == bytes(10) + b"\x03\x00" + frame


def test_net_jumbo_frame_needs_one_large_buffer_where_they_are_not_merged() -> None:
    """And is dropped if there is none."""
    bench = NetBench(features=UNMERGED)
    frame = FRAME.ljust(9014, b"j")
    bench.doorbell(RECEIVE, Offered(0, writable=9026), Offered(1, writable=4096), Offered(2, writable=9026))

    taken = [bench.net.receive(frame, 0), bench.net.receive(frame, 0)]

    assert taken == [True, False]
    assert bench.returned() == [Returned(0, HEADER + frame)]


def test_net_frame_waits_for_as_many_buffers_as_it_takes_and_later_ones_behind_it() -> None:
    """Frames stay in order."""
    bench = NetBench()
    bench.doorbell(RECEIVE, Offered(0, writable=1000))

    taken = [bench.net.receive(FRAME.ljust(1500, b"l"), 0), bench.net.receive(FRAME, 0)]
    early = bench.returned()
    bench.doorbell(RECEIVE, Offered(1, writable=1000), Offered(2, writable=1000))

    assert (taken, early) == ([True, True], [])
    assert [(one.head, len(one.data)) for one in bench.returned()] == [(0, 1000), (1, 512), (2, 12 + len(FRAME))]


def test_net_frame_that_all_buffers_of_the_ring_together_cannot_hold_is_dropped() -> None:
    """No other will come."""
    bench = NetBench()
    bench.doorbell(RECEIVE, *(Offered(head, writable=100) for head in range(64)))

    taken = bench.net.receive(FRAME.ljust(6400, b"l"), 0)

    assert (taken, bench.net.dropped_in) == (False, 1)


def test_net_frame_behind_a_larger_one_that_waited_too_long_is_delivered() -> None:
    """Once the larger one made room."""
    bench = NetBench()
    bench.doorbell(RECEIVE, Offered(0, writable=100))

    bench.net.receive(FRAME.ljust(1500, b"l"), 0)
    for _ in range(HELD_FRAMES):
        bench.net.receive(FRAME, 0)

    assert bench.returned() == [Returned(0, HEADER + FRAME)]
    assert bench.net.dropped_in == 1


def test_net_merged_frame_that_has_not_left_survives_a_round_trip() -> None:
    """Its buffers are still together."""
    bench, copy = NetBench(), NetBench()
    bench.doorbell(RECEIVE, Offered(0, writable=20), Offered(1, writable=2000))
    bench.net.receive(FRAME, 0)

    copy.device.restore(bench.device.state())

    assert copy.device.queues[RECEIVE].joined == {1}
    assert len(copy.returned()) == 2
    assert copy.device.queues[RECEIVE].joined == set()
