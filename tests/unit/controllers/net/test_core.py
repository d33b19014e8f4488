"""The network controller: commands in, frames across, completions out."""

from __future__ import annotations

from pathlib import Path

from iovirt_dist.controllers.base import (
    CommandsSubmitted,
    CompleteCommands,
    QueuePairClosed,
    QueuePairOpened,
    TimerFired,
)
from iovirt_dist.controllers.net.config import NetConfig
from iovirt_dist.controllers.net.core import MAX_PARKED, CaptureFrames, NetController, PortsChanged
from iovirt_dist.controllers.net.core import RESPONDER as RESPONDER_PORT
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.commands import (
    MAX_FRAME_BYTES,
    WITH_DATA_OUT,
    Command,
    Opcode,
    Status,
    UnitIdentity,
)
from iovirt_dist.wire.payload import split_payload
from tests.unit.controllers.net.support import HOST, RESPONDER, SECOND, A, B, C, frame, port

TAP = Path("all.pcap")


class Bench:
    """A switch with ports a and b of hv0, c of hv1, and both hypervisors' queue pairs.

    Attributes:
        done: What each command ended with, by its sequence number: status, value, data.
        others: Actions that are no completions.
    """

    def __init__(self, **keys: object) -> None:
        ports = (port("a", A), port("b", B), port("c", C, peer="hv1"))
        self.core = NetController(NetConfig(ports=ports, **keys))  # type: ignore[arg-type]  # tests name them rightly
        self.done: dict[int, tuple[Status, int, bytes]] = {}
        self.others: list[object] = []
        self._sequence = 0
        for pair, peer in ((1, "hv0"), (2, "hv1")):
            self.do(QueuePairOpened(pair, peer, False))
        for pair, name in ((1, b"a"), (1, b"b"), (2, b"c")):
            self.submit(pair, (Opcode.IDENTIFY, 0, name))

    def do(self, event: object, now_ns: int = 0) -> None:
        """Hand in an event; keep what comes of it."""
        for action in self.core.handle(event, now_ns):  # type: ignore[arg-type]  # tests hand in the right ones
            if not isinstance(action, CompleteCommands):
                self.others.append(action)
                continue
            pieces = split_payload(action.payload, [completion.length for completion in action.completions])
            for completion, data in zip(action.completions, pieces, strict=True):
                number = int.from_bytes(completion.id[-8:], "little")
                self.done[number] = (completion.status, completion.value, bytes(data))

    def submit(self, pair: int, *commands: tuple[Opcode, int, bytes | int], now_ns: int = 0) -> list[int]:
        """Submit a batch of (opcode, unit, data or length); returns the sequence numbers."""
        batch, payload, numbers = [], [], []
        for opcode, unit, content in commands:
            self._sequence += 1
            numbers.append(self._sequence)
            length = content if isinstance(content, int) else len(content)
            batch.append(Command(RequestId(pair, 0, self._sequence).pack(), opcode, unit, 0, length))
            if not isinstance(content, int) and opcode in WITH_DATA_OUT:
                payload.append(content)
        self.do(CommandsSubmitted(pair, batch, list(payload)), now_ns)
        return numbers

    def park(self, pair: int, unit: int, count: int = 1, length: int = MAX_FRAME_BYTES) -> list[int]:
        """Park receives."""
        return self.submit(pair, *[(Opcode.NET_RECEIVE, unit, length)] * count)

    def transmit(self, pair: int, unit: int, *frames: bytes) -> list[int]:
        """Transmit a batch of frames."""
        return self.submit(pair, *[(Opcode.NET_TRANSMIT, unit, each) for each in frames])


def test_net_port_is_identified_by_its_hypervisor_alone() -> None:
    """Its number is the value; another hypervisor's port does not exist."""
    bench = Bench()

    (foreign,) = bench.submit(1, (Opcode.IDENTIFY, 0, b"c"))
    (absent,) = bench.submit(1, (Opcode.IDENTIFY, 0, b"(responder)"))

    assert bench.done[2] == (Status.OK, 1, UnitIdentity(MAX_FRAME_BYTES, 1, False, "b").pack())
    assert bench.done[3][:2] == (Status.OK, 2)
    assert (bench.done[foreign][0], bench.done[absent][0]) == (Status.UNKNOWN_UNIT, Status.UNKNOWN_UNIT)


def test_net_frames_complete_parked_receives_in_order() -> None:
    """Across hypervisors; the transmits end in the same step."""
    bench = Bench()
    first, second, third = bench.park(2, 2, 3)

    sent = bench.transmit(1, 0, frame(A, C, b"1"), frame(A, C, b"2"))

    assert [bench.done[number] for number in sent] == [(Status.OK, 0, b"")] * 2
    assert bench.done[first] == (Status.OK, 0, frame(A, C, b"1"))
    assert bench.done[second] == (Status.OK, 0, frame(A, C, b"2"))
    assert third not in bench.done


def test_net_frame_waits_for_a_receive() -> None:
    """In the port's queue."""
    bench = Bench()
    bench.transmit(1, 0, frame(A, B))

    (receive,) = bench.park(1, 1)

    assert bench.done[receive] == (Status.OK, 0, frame(A, B))


def test_net_receive_that_is_too_short_for_its_frame_fails() -> None:
    """The frame is lost, the next receive gets the next one."""
    bench = Bench()
    (short,) = bench.park(1, 1, length=20)
    (long,) = bench.park(1, 1)

    bench.transmit(1, 0, frame(A, B), frame(A, B, b"second"))

    assert bench.done[short][0] is Status.BAD_LENGTH
    assert bench.done[long] == (Status.OK, 0, frame(A, B, b"second"))


def test_net_commands_that_cannot_be_end_with_an_error() -> None:
    """Unknown ports, frames of impossible length, opcodes of other classes, too many receives."""
    bench = Bench()

    foreign = bench.transmit(1, 2, frame(A, C))
    absent = bench.park(1, 99)
    short = bench.transmit(1, 0, bytes(13))
    long = bench.transmit(1, 0, bytes(MAX_FRAME_BYTES + 1))
    tiny = bench.park(1, 0, length=13)
    other = bench.submit(1, (Opcode.READ, 0, 512))
    parked = bench.park(1, 0, MAX_PARKED + 1)

    assert [bench.done[n][0] for n in foreign + absent] == [Status.UNKNOWN_UNIT] * 2
    assert [bench.done[n][0] for n in short + long + tiny] == [Status.BAD_LENGTH] * 3
    assert bench.done[other[0]][0] is Status.UNKNOWN_OPCODE
    assert bench.done[parked[-1]][0] is Status.QUEUE_FULL
    assert not bench.done.keys() & set(parked[:-1])


def test_net_port_of_a_closed_queue_pair_is_down_until_the_peer_is_back() -> None:
    """Frames for it are not kept; its receives are."""
    bench = Bench()
    (receive,) = bench.park(2, 2)
    bench.do(QueuePairClosed(2))

    bench.transmit(1, 0, frame(A, C, b"lost"))
    bench.do(QueuePairOpened(3, "hv1", True))
    bench.transmit(1, 0, frame(A, C, b"seen"))

    assert bench.done[receive] == (Status.OK, 0, frame(A, C, b"seen"))
    assert bench.core.switch.ports[2].counts.down == 1


def test_net_receives_of_a_life_that_is_over_get_nothing() -> None:
    """In the next life the port is down until it is identified again."""
    bench = Bench()
    (old,) = bench.park(2, 2)

    bench.do(QueuePairOpened(3, "hv1", False))
    bench.transmit(1, 0, frame(A, C, b"down"))
    bench.submit(3, (Opcode.IDENTIFY, 0, b"c"))
    (new,) = bench.park(3, 2)
    bench.transmit(1, 0, frame(A, C, b"up"))

    assert old not in bench.done
    assert bench.done[new] == (Status.OK, 0, frame(A, C, b"up"))


def test_net_transmit_that_comes_again_is_not_sent_again() -> None:
    """It is answered from memory."""
    bench = Bench()
    again = CommandsSubmitted(
        1, [Command(RequestId(9, 9, 77).pack(), Opcode.NET_TRANSMIT, 0, 0, len(frame(A, B)))], [frame(A, B)]
    )

    bench.do(again)
    bench.do(again)

    assert len(bench.core.switch.ports[1].queue) == 1
    assert bench.done[77][0] is Status.OK


def test_net_frames_that_pass_are_captured() -> None:
    """With the step's time."""
    bench = Bench(tap=TAP)

    bench.transmit(1, 0, frame(A, B), frame(A, C))

    assert bench.others == [CaptureFrames(TAP, [frame(A, B), frame(A, C)], 0)]


def test_net_built_in_host_answers_within_the_step() -> None:
    """An ARP request, and its answer to the port that asked."""
    bench = Bench(responder=RESPONDER)
    (receive,) = bench.park(1, 0)
    question = bytes.fromhex("0001080006040001") + A + bytes((10, 0, 0, 2)) + bytes(6) + bytes((10, 0, 0, 1))

    bench.transmit(1, 0, frame(A, kind=b"\x08\x06", payload=question))

    answer = bytes.fromhex("0001080006040002") + HOST + bytes((10, 0, 0, 1)) + A + bytes((10, 0, 0, 2))
    assert bench.done[receive] == (Status.OK, 0, frame(HOST, A, kind=b"\x08\x06", payload=answer))
    assert bench.core.status()["ports"][RESPONDER_PORT]["frames_in"] == 1


def test_net_without_a_built_in_host_is_not_timed() -> None:
    """A timer does nothing."""
    bench = Bench()

    bench.do(TimerFired(), SECOND)

    assert bench.core.deadline_ns() is None
    assert bench.core.status()["responder"] == {}


def test_port_of_a_guest_that_is_gone_is_unplugged() -> None:
    """What is parked there ends, and its address may be another's; the others go on."""
    bench = Bench()
    (parked,) = bench.park(1, 0)

    bench.do(PortsChanged((port("b", B), port("c", C, peer="hv1"))))
    (late,) = bench.transmit(1, 0, frame(A, C))
    (taken,) = bench.park(2, 2)
    bench.transmit(1, 1, frame(B, C))

    assert bench.done[parked][0] is Status.UNKNOWN_UNIT
    assert bench.done[late][0] is Status.UNKNOWN_UNIT
    assert bench.done[taken][2] == frame(B, C)
    assert list(bench.core.status()["ports"]) == ["b", "c"]


def test_ports_of_new_guests_take_free_numbers() -> None:
    """However often guests come and go; the built-in host and its number stay."""
    bench = Bench(responder=RESPONDER)
    stay = (port("b", B), port("c", C, peer="hv1"))

    for _ in range(1000):
        bench.do(PortsChanged(stay))
        bench.do(PortsChanged((*stay, port("d", A))))
    (identified,) = bench.submit(1, (Opcode.IDENTIFY, 0, b"d"))
    (taken,) = bench.park(1, 0)
    bench.transmit(1, 1, frame(B, A))

    assert bench.done[identified][:2] == (Status.OK, 0)
    assert bench.done[taken][2] == frame(B, A)
    assert len(bench.core.switch.ports) == 4
    assert len(bench.core.switch.plugged) == 4


def test_port_that_moves_to_another_hypervisor_is_the_others_no_more() -> None:
    """Its old hypervisor cannot send there; the new one identifies it."""
    bench = Bench()

    bench.do(PortsChanged((port("a", A, peer="hv1"), port("b", B), port("c", C, peer="hv1"))))
    (old,) = bench.submit(1, (Opcode.IDENTIFY, 0, b"a"))
    (new,) = bench.submit(2, (Opcode.IDENTIFY, 0, b"a"))

    assert bench.done[old][0] is Status.UNKNOWN_UNIT
    assert bench.done[new][0] is Status.OK
