"""The host-side network driver."""

from __future__ import annotations

from iovirt_dist.drivers.network import RECEIVES, RETRY_NS, TRANSMITS, NetworkDriver
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.ids import RequestId
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import MAX_FRAME_BYTES, Command, Opcode, Status, UnitIdentity
from tests.unit.drivers.support import Controller

PORT = UnitIdentity(MAX_FRAME_BYTES, 1, False, "alice")
MAC = bytes((2, 0, 0, 0, 0, 1))
FRAME = b"\xff" * 6 + MAC + b"\x08\x00payload"
POWER_ON_NS = 1000


class Card:
    """A virtual card that keeps what it is told."""

    def __init__(self, *, takes: bool = True) -> None:
        self.frames: list[tuple[bytes, int]] = []
        self.links: list[tuple[bool, int]] = []
        self._takes = takes

    def receive(self, frame: Buffer, now_ns: int) -> bool:
        """Keep it."""
        self.frames.append((bytes(frame), now_ns))
        return self._takes

    def link_changed(self, up: bool, now_ns: int) -> None:
        """Keep it."""
        self.links.append((up, now_ns))


class Bench:
    """A driver between a card and a switch that has identified its port."""

    def __init__(self, bound: int = 4096, *, takes: bool = True) -> None:
        self.pair = QueuePair("sw0", MultiQueue(bound=bound, depth=0))
        self.pair.use("alice")
        self.controller = Controller(self.pair, {"alice": PORT}, credits=1024)
        self.controller.open()
        self.card = Card(takes=takes)
        self.driver = NetworkDriver(self.pair, "alice", MAC, 1500, guest=5, queue=6)
        self.driver.follow_link(0)
        self.driver.attach(self.card, POWER_ON_NS)
        self.driver.flush(POWER_ON_NS)

    def commands(self, opcode: Opcode) -> list[Command]:
        """Commands of a kind that the switch has."""
        self.controller.take()
        return [command for command in self.controller.commands if command.opcode is opcode]

    def end(self, opcode: Opcode, status: Status = Status.OK, data: bytes = b"") -> None:
        """Complete the oldest command of a kind."""
        self.controller.complete(self.commands(opcode)[0], status, data)


def test_driver_parks_several_receives_and_the_link_is_up() -> None:
    """Each for the longest frame."""
    bench = Bench()

    parked = bench.commands(Opcode.NET_RECEIVE)

    assert parked[0] == Command(RequestId(5, 7, 1).pack(), Opcode.NET_RECEIVE, 0, 0, MAX_FRAME_BYTES)
    assert len(parked) == RECEIVES
    assert bench.driver.link_up
    assert bench.card.links == []


def test_driver_frames_of_a_step_are_one_batch() -> None:
    """Counted when the switch has seen them."""
    bench = Bench()
    bench.controller.take()
    batches = bench.pair.batches

    bench.driver.transmit(FRAME)
    bench.driver.transmit(FRAME + b"2")
    sent = bench.commands(Opcode.NET_TRANSMIT)
    bench.end(Opcode.NET_TRANSMIT)

    assert bench.pair.batches == batches + 1
    assert [bench.controller.data[command.id] for command in sent] == [FRAME, FRAME + b"2"]
    assert (bench.driver.frames_out, bench.driver.bytes_out) == (1, len(FRAME))


def test_driver_frame_reaches_the_card_and_its_receive_is_parked_again() -> None:
    """In the machine's time."""
    bench = Bench()
    bench.controller.now_ns = 5000

    bench.end(Opcode.NET_RECEIVE, data=FRAME)

    assert bench.card.frames == [(FRAME, 5000 - POWER_ON_NS)]
    assert len(bench.commands(Opcode.NET_RECEIVE)) == RECEIVES
    assert (bench.driver.frames_in, bench.driver.bytes_in, bench.driver.dropped_in) == (1, len(FRAME), 0)


def test_driver_drops_what_no_machine_takes() -> None:
    """A card without buffers, or a machine that is switched off; the receive is parked again."""
    bench = Bench(takes=False)

    bench.end(Opcode.NET_RECEIVE, data=FRAME)
    bench.driver.attach(None, 0)
    bench.end(Opcode.NET_RECEIVE, data=FRAME)

    assert bench.driver.dropped_in == 2
    assert len(bench.commands(Opcode.NET_RECEIVE)) == RECEIVES


def test_driver_does_not_trust_the_switch_with_lengths() -> None:
    """A frame that cannot be is a failed receive, which is tried again after a while."""
    bench = Bench()
    bench.controller.now_ns = 5000

    bench.end(Opcode.NET_RECEIVE, data=b"short")
    bench.driver.flush(5000 + RETRY_NS - 1)
    early = len(bench.commands(Opcode.NET_RECEIVE))
    bench.driver.flush(5000 + RETRY_NS)

    assert (bench.card.frames, bench.driver.errors) == ([], 1)
    assert (early, len(bench.commands(Opcode.NET_RECEIVE))) == (RECEIVES - 1, RECEIVES)
    assert bench.driver.retry_ns is None


def test_driver_drops_frames_beyond_its_ring_and_those_of_impossible_length() -> None:
    """Until the switch has seen some."""
    bench = Bench()

    for _ in range(TRANSMITS + 3):
        bench.driver.transmit(FRAME)
    bench.driver.transmit(bytes(13))
    bench.driver.transmit(bytes(MAX_FRAME_BYTES + 1))
    bench.end(Opcode.NET_TRANSMIT)
    bench.driver.transmit(FRAME)

    assert bench.driver.dropped_out == 5
    assert len(bench.commands(Opcode.NET_TRANSMIT)) == TRANSMITS


def test_driver_drops_a_frame_that_the_switch_refuses() -> None:
    """It is not sent again."""
    bench = Bench()
    bench.driver.transmit(FRAME)

    bench.end(Opcode.NET_TRANSMIT, Status.BAD_LENGTH)

    assert (bench.driver.frames_out, bench.driver.dropped_out) == (0, 1)


def test_driver_receives_wait_for_room_in_the_queue() -> None:
    """They are parked when there is some."""
    bench = Bench(bound=3)
    first = len(bench.commands(Opcode.NET_RECEIVE))

    bench.driver.flush(POWER_ON_NS + RETRY_NS)
    bench.controller.take()
    bench.driver.flush(POWER_ON_NS + 2 * RETRY_NS)

    assert first == 3
    assert len(bench.commands(Opcode.NET_RECEIVE)) == RECEIVES


def test_driver_link_follows_the_switch_and_no_frame_is_sent_twice() -> None:
    """Frames in flight are lost with the switch's life; receives are parked anew in the next."""
    bench = Bench()
    bench.driver.transmit(FRAME)
    bench.controller.take()

    bench.pair.lost()
    bench.driver.flush(2000)
    bench.driver.transmit(FRAME)
    bench.controller.commands.clear()
    bench.controller.open()
    bench.pair.settle(3000)
    bench.driver.flush(3000)

    assert bench.card.links == [(False, 2000 - POWER_ON_NS), (True, 3000 - POWER_ON_NS)]
    assert bench.commands(Opcode.NET_TRANSMIT) == []
    assert len(bench.commands(Opcode.NET_RECEIVE)) == RECEIVES
    assert bench.driver.dropped_out == 2


def test_driver_link_is_down_while_the_switch_does_not_know_the_port() -> None:
    """Its next life has another topology."""
    bench = Bench()
    bench.controller.units = {}

    bench.pair.lost()
    bench.controller.commands.clear()
    bench.controller.open()
    bench.driver.flush(2000)

    assert bench.card.links == [(False, 2000 - POWER_ON_NS)]
