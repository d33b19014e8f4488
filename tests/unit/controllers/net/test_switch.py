"""The learning switch."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.controllers.net.config import AGING_NS, PortConfig
from iovirt_dist.controllers.net.switch import Switch
from tests.unit.controllers.net.support import A, B, C, D, frame, port

TAG = b"\x81\x00"


def switch(*ports: PortConfig, storm_frames_per_s: int = 0, queue_frames: int = 8, tap: Path | None = None) -> Switch:
    """A switch of which all ports are up."""
    made = Switch(ports, storm_frames_per_s, AGING_NS, queue_frames, tap)
    for number in range(len(ports)):
        made.set_up(number, True)
    return made


def three(**keys: object) -> Switch:
    """Three ports with stations A, B and C; settings are the first one's."""
    return switch(port("a", A, **keys), port("b", B), port("c", C))


def learning(**keys: object) -> Switch:
    """Three ports that learn."""
    return switch(*(port(name, D, anti_spoofing=False, **keys) for name in "abc"))


def waiting(made: Switch) -> list[list[bytes]]:
    """What waits at each port, which is taken."""
    return [[made.take(number) for _ in range(len(p.queue))] for number, p in enumerate(made.ports)]


def test_switch_sends_a_frame_for_a_known_station_to_its_port_alone() -> None:
    """Known by configuration, although it has sent nothing."""
    made = three()

    made.accept(0, frame(A, C), 0)

    assert made.touched == {2}
    assert waiting(made) == [[], [], [frame(A, C)]]
    assert (made.ports[0].counts.frames_in, made.ports[2].counts.frames_out) == (1, 1)


@pytest.mark.parametrize(
    "destination", [b"\xff" * 6, b"\x33\x33\0\0\0\1", D], ids=["broadcast", "multicast", "unknown"]
)
def test_switch_floods_frames_to_many(destination: bytes) -> None:
    """To all ports but that which it came from."""
    made = three()

    made.accept(1, frame(B, destination), 0)

    assert waiting(made) == [[frame(B, destination)], [], [frame(B, destination)]]


def test_switch_keeps_vlans_apart() -> None:
    """Neither a flood nor an address reaches the other."""
    made = switch(port("a", A, vlan=10), port("b", B, vlan=20), port("c", C, vlan=10))

    made.accept(0, frame(A), 0)
    made.accept(0, frame(A, B), 0)

    assert waiting(made) == [[], [], [frame(A), frame(A, B)]]


@pytest.mark.parametrize(
    ("behind", "passes"),
    [
        (b"\x00\x05\x08\x00", False),
        (b"\xe0\x00\x08\x00", True),
        (b"\x00\x00", False),
        (b"\x00\x00\x81\x00\x00\x05\x08\x00", False),
        (b"\x00\x00\x88\xa8\x00\x05\x08\x00", False),
        (b"\x00\x00\x81\x00\x00\x00\x08\x00", False),
    ],
    ids=["other-vlan", "priority-only", "cut", "other-vlan-below", "other-s-vlan-below", "priority-twice"],
)
def test_switch_takes_no_tag_but_one_for_priority(behind: bytes, passes: bool) -> None:
    """Which is taken off: the port is an access port."""
    made = three()

    made.accept(0, frame(A, B, kind=TAG, payload=behind), 0)

    assert waiting(made)[1] == ([frame(A, B, kind=b"\x08\x00", payload=b"")] if passes else [])
    assert made.ports[0].counts.tagged == (not passes)


@pytest.mark.parametrize("source", [B, D, b"\xff" * 6], ids=["anothers", "nobodys", "group"])
def test_switch_drops_frames_from_addresses_that_are_not_the_ports(source: bytes) -> None:
    """And whoever has the address still gets what is sent there."""
    made = three()

    made.accept(0, frame(source, C), 0)
    made.accept(2, frame(C, B), 0)

    assert waiting(made) == [[], [frame(C, B)], []]
    assert made.ports[0].counts.spoofed == 1


def test_switch_learns_where_a_station_is_and_follows_it() -> None:
    """The last port that it sent from."""
    made = learning()
    made.accept(0, frame(A), 0)
    made.accept(1, frame(B, A), 1)
    first = waiting(made)

    made.accept(2, frame(A), 2)
    made.accept(1, frame(B, A), 3)

    assert first == [[frame(B, A)], [frame(A)], [frame(A)]]
    assert waiting(made) == [[frame(A)], [frame(A)], [frame(B, A)]]
    assert (made.addresses(0), made.addresses(2)) == ([], [A.hex(":")])


def test_switch_lets_no_station_take_a_configured_address() -> None:
    """Not even a port that may use any other."""
    made = switch(port("a", A), port("b", B, anti_spoofing=False))

    made.accept(1, frame(A), 0)

    assert made.ports[1].counts.spoofed == 1


def test_switch_forgets_a_station_that_was_silent_for_too_long() -> None:
    """What is sent to it floods again."""
    made = learning()
    made.accept(0, frame(A), 0)
    made.accept(1, frame(B, A), AGING_NS)
    before = waiting(made)[2]

    made.accept(1, frame(B, A), AGING_NS + 1)

    assert before == [frame(A)]
    assert waiting(made)[2] == [frame(B, A)]


def test_switch_port_learns_so_many_addresses_and_no_more() -> None:
    """Frames from further ones pass; an old one makes room."""
    made = learning(mac_limit=2)
    for source in (A, B, C):
        made.accept(0, frame(source), 0)
    early = made.addresses(0)

    made.accept(0, frame(D), AGING_NS + 1)

    assert early == [A.hex(":"), B.hex(":")]
    assert made.addresses(0) == [D.hex(":")]
    assert (made.ports[0].counts.unlearned, made.ports[0].counts.frames_in) == (1, 4)


def test_switch_limits_frames_to_many_and_no_others() -> None:
    """In a second after the burst as many as the limit says."""
    made = switch(port("a", A), port("b", B), storm_frames_per_s=100, queue_frames=1000)

    for at_ms in range(2000):
        made.accept(0, frame(A), at_ms * 1_000_000)
        made.accept(0, frame(A, B), at_ms * 1_000_000)

    counts = made.ports[0].counts
    assert counts.frames_in - 2000 == pytest.approx(200 + 25, abs=2)
    assert counts.storm == 4000 - counts.frames_in


def test_switch_limits_bytes_that_a_port_sends() -> None:
    """The configured rate, over a second after the burst."""
    made = switch(port("a", A, bytes_per_s=100_000), port("b", B), queue_frames=10_000)
    data = frame(A, B, bytes(986))

    for at_ms in range(3000):
        made.accept(0, data, at_ms * 1_000_000)

    counts = made.ports[0].counts
    assert counts.bytes_in == pytest.approx(3 * 100_000 + 25_000, rel=0.02)
    assert counts.over_rate == 3000 - counts.frames_in


@pytest.mark.parametrize("last", [0x00, 0x0F])
def test_switch_keeps_frames_for_bridges(last: int) -> None:
    """The addresses that no bridge passes on; the next one it does."""
    made = three()

    made.accept(0, frame(A, bytes((1, 0x80, 0xC2, 0, 0, last))), 0)
    made.accept(0, frame(A, bytes((1, 0x80, 0xC2, 0, 0, 0x10))), 0)

    assert made.ports[0].counts.reserved == 1
    assert len(waiting(made)[1]) == 1


def test_switch_drops_what_a_full_queue_has_no_room_for() -> None:
    """The newest, and only at that port."""
    made = three()

    for number in range(10):
        made.accept(0, frame(A, B, bytes([number])), 0)

    assert [each[-1] for each in waiting(made)[1]] == list(range(8))
    assert made.ports[1].counts.dropped == 2


def test_switch_port_that_is_down_gets_nothing_and_loses_what_waited() -> None:
    """Its guest's hypervisor is gone."""
    made = three()
    made.accept(0, frame(A, B), 0)

    made.set_up(1, False)
    made.accept(0, frame(A, B), 0)
    made.set_up(1, True)

    assert waiting(made)[1] == []
    assert made.ports[1].counts.down == 2


def test_switch_does_not_return_a_frame_to_its_port() -> None:
    """Two stations behind one port."""
    made = learning()
    made.accept(0, frame(A), 0)
    made.accept(0, frame(B), 0)
    waiting(made)

    made.accept(0, frame(A, B), 0)

    assert waiting(made) == [[], [], []]


def test_switch_captures_each_frame_once_and_what_passes_a_port() -> None:
    """What was not let in is in no capture."""
    everything, of_b = Path("all.pcap"), Path("b.pcap")
    made = switch(port("a", A), port("b", B, tap=of_b), port("c", C), tap=everything)

    made.accept(0, frame(A), 0)
    made.accept(0, frame(A, C), 0)
    made.accept(0, frame(D), 0)
    made.accept(1, frame(B, A), 0)

    assert made.captured == {everything: [frame(A), frame(A, C), frame(B, A)], of_b: [frame(A), frame(B, A)]}


def test_station_is_forgotten_with_its_port() -> None:
    """Learned and configured ones; frames to them are for nobody known, and what waited is dropped."""
    made = switch(port("a", A), port("b", D, anti_spoofing=False), port("c", C))
    made.accept(1, frame(B, A), 0)
    made.accept(2, frame(C, B), 0)

    made.unplug(1)
    made.accept(2, frame(C, B), 0)

    assert waiting(made)[1] == []
    assert made.touched == {0}


def test_address_that_was_learned_elsewhere_is_the_new_ports() -> None:
    """Whoever is plugged in with an address has it."""
    made = switch(port("a", D, anti_spoofing=False), port("c", C))
    made.accept(0, frame(B, C), 0)

    number = made.plug(port("b", B))
    made.set_up(number, True)
    made.accept(1, frame(C, B), 0)

    assert made.addresses(0) == []
    assert waiting(made)[number] == [frame(C, B)]
