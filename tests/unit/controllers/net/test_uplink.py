"""The switch's port to the world outside, as the core has it."""

from __future__ import annotations

from iovirt_dist.controllers.net.config import MAX_PORTS
from iovirt_dist.controllers.net.uplink import (
    UPLINK_MAC_LIMIT,
    SendUplink,
    UplinkChanged,
    UplinkDropped,
    UplinkReceived,
)
from iovirt_dist.wire.commands import MAX_FRAME_BYTES, Opcode, Status
from tests.unit.controllers.net.support import RESPONDER, A, B, D, frame
from tests.unit.controllers.net.test_core import Bench

UPLINK = {"uplink": "tap0", "storm_frames_per_s": 0}


def test_uplink_gets_what_guests_send_to_all_and_to_strangers() -> None:
    """One action for all frames of a turn, in order; frames between guests stay inside."""
    bench = Bench(**UPLINK)
    frames = [frame(A, payload=b"1"), frame(A, D, b"2")]

    bench.transmit(1, 0, frames[0], frame(A, B), frames[1])

    assert bench.others == [SendUplink(frames)]


def test_uplink_frames_reach_the_guest_that_they_are_for() -> None:
    """And the answer goes out by the uplink, where the sender was learned."""
    bench = Bench(**UPLINK)
    (receive,) = bench.park(1, 1)

    bench.do(UplinkReceived([frame(D, B)]))
    bench.transmit(1, 1, frame(B, D))

    assert bench.done[receive] == (Status.OK, 0, frame(D, B))
    assert bench.others == [SendUplink([frame(B, D)])]
    assert bench.core.status()["ports"]["(uplink)"]["learned"] == 1


def test_uplink_learns_as_many_addresses_as_its_limit() -> None:
    """A bridge may be behind it; more than that pass, and are not learned."""
    bench = Bench(**UPLINK)

    bench.do(UplinkReceived([frame(b"\x02\1" + n.to_bytes(4, "big"), A) for n in range(UPLINK_MAC_LIMIT + 3)]))

    port = bench.core.status()["ports"]["(uplink)"]
    assert (port["learned"], port["unlearned"]) == (UPLINK_MAC_LIMIT, 3)


def test_uplink_frame_from_a_guests_address_is_dropped() -> None:
    """A loop behind the uplink cannot take a guest's place."""
    bench = Bench(**UPLINK)

    bench.do(UplinkReceived([frame(A, B)]))

    assert bench.core.status()["ports"]["(uplink)"]["spoofed"] == 1


def test_uplink_frames_of_a_wrong_length_are_dropped() -> None:
    """Too short for a header, too long for any guest, nothing at all."""
    bench = Bench(**UPLINK)

    bench.do(UplinkReceived([b"", bytes(13), bytes(MAX_FRAME_BYTES + 1)]))

    assert bench.core.status()["uplink"] == {"interface": "tap0", "up": True, "dropped": 3}
    assert bench.core.status()["ports"]["(uplink)"]["frames_in"] == 0


def test_uplink_drops_of_the_interface_are_counted() -> None:
    """They are told by the hands."""
    bench = Bench(**UPLINK)

    bench.do(UplinkDropped(5))

    assert bench.core.status()["uplink"]["dropped"] == 5


def test_uplink_that_is_gone_is_a_port_that_is_down() -> None:
    """Nothing is sent there until it is back."""
    bench = Bench(**UPLINK)

    bench.do(UplinkChanged(False))
    bench.transmit(1, 0, frame(A, D, b"lost"))
    bench.do(UplinkChanged(True))
    bench.transmit(1, 0, frame(A, D, b"sent"))

    assert bench.others == [SendUplink([frame(A, D, b"sent")])]
    assert bench.core.status()["ports"]["(uplink)"]["down"] == 1


def test_uplink_storm_is_limited_as_at_any_port() -> None:
    """A quarter of a second's frames at once, then no more."""
    bench = Bench(uplink="tap0", storm_frames_per_s=1000)

    bench.do(UplinkReceived([frame(D)] * 300))

    assert bench.core.status()["ports"]["(uplink)"]["storm"] == 50


def test_uplink_reaches_the_built_in_host() -> None:
    """Who is behind the uplink may ping it, as guests may."""
    bench = Bench(uplink="tap0", responder=RESPONDER)
    who_has = bytes.fromhex("0001080006040001") + D + bytes((10, 0, 0, 9)) + bytes(6) + bytes((10, 0, 0, 1))

    bench.do(UplinkReceived([frame(D, payload=who_has, kind=b"\x08\x06")]))

    (action,) = bench.others
    assert isinstance(action, SendUplink)
    assert [sent[:6] for sent in action.frames] == [D]


def test_uplink_belongs_to_no_hypervisor() -> None:
    """Neither its name nor its number opens it."""
    bench = Bench(**UPLINK)

    (identified,) = bench.submit(1, (Opcode.IDENTIFY, 0, b"(uplink)"))
    (sent,) = bench.transmit(1, 3, frame(A, B))

    assert (bench.done[identified][0], bench.done[sent][0]) == (Status.UNKNOWN_UNIT, Status.UNKNOWN_UNIT)
    assert MAX_PORTS > 3


def test_switch_without_an_uplink_ignores_its_events() -> None:
    """And says nothing of it."""
    bench = Bench()

    bench.do(UplinkReceived([frame(D, A)]))

    assert bench.others == []
    assert bench.core.status()["uplink"] == {}
