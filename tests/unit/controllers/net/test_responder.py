"""The built-in host: which frames it answers, and to whom."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iovirt_dist.controllers.net import packets
from iovirt_dist.controllers.net.packets import BROADCAST, ETHERTYPE_ARP, ETHERTYPE_IPV4, Arp, Datagram
from iovirt_dist.controllers.net.responder import Responder
from iovirt_dist.controllers.net.tftp import FileOpened, FileRead, OpenFile, ReadFile
from tests.unit.controllers.net.support import CLIENT, HOST, RESPONDER, SECOND, SERVER, A, B, frame
from tests.unit.controllers.net.test_dhcp import message

NOBODY = bytes(4)
EVERYBODY = b"\xff" * 4
ECHO = b"\x08\x00\xf7\xff\x00\x00\x00\x00"


def answers(data: bytes, responder: Responder | None = None) -> list[bytes]:
    """What the host says to a frame."""
    host = responder or Responder(RESPONDER)
    host.receive(data, 0)
    sent, host.sent = host.sent, []
    return sent


def arp(operation: int, target: bytes, destination: bytes = BROADCAST) -> bytes:
    """A's ARP packet in a frame."""
    packet = packets.make_arp(Arp(operation, A, CLIENT, bytes(6), target))
    return frame(A, destination, packet, ETHERTYPE_ARP)


def icmp(destination: bytes = HOST, source: bytes = CLIENT, to: bytes = SERVER) -> bytes:
    """A's echo request in a frame."""
    return frame(A, destination, packets.make_ipv4(source, to, packets.PROTOCOL_ICMP, ECHO), ETHERTYPE_IPV4)


def udp(port: int, payload: bytes, source: bytes = CLIENT, to: bytes = SERVER, destination: bytes = HOST) -> bytes:
    """A's datagram in a frame."""
    return frame(A, destination, packets.make_udp(source, to, Datagram(2000, port, payload)), ETHERTYPE_IPV4)


def test_responder_tells_its_address_to_whoever_asks() -> None:
    """With an ARP reply to the asker alone."""
    reply = packets.make_arp(Arp(2, HOST, SERVER, A, CLIENT))

    assert answers(arp(1, SERVER)) == [frame(HOST, A, reply, ETHERTYPE_ARP)]


def test_responder_answers_a_ping() -> None:
    """From its address to the sender's."""
    (reply,) = answers(icmp())

    packet = packets.parse_ipv4(reply[14:])
    assert reply[:14] == A + HOST + ETHERTYPE_IPV4
    assert packet is not None
    assert (packet.source, packet.destination, packet.payload[:1]) == (SERVER, CLIENT, b"\0")


@pytest.mark.parametrize(
    "data",
    [
        arp(2, SERVER),
        arp(1, CLIENT),
        arp(1, SERVER, destination=B),
        icmp(destination=B),
        icmp(to=CLIENT),
        icmp(to=bytes((10, 0, 0, 255)), destination=BROADCAST),
        icmp(source=SERVER),
        icmp(source=NOBODY),
        icmp(source=EVERYBODY),
        icmp(source=bytes((224, 0, 0, 1))),
        frame(A, HOST),
        udp(67, b"not DHCP"),
    ],
    ids=[
        "arp-reply",
        "arp-for-another",
        "arp-to-another",
        "ping-to-another",
        "ping-for-another",
        "ping-to-all",
        "ping-from-itself",
        "ping-from-nobody",
        "ping-from-all",
        "ping-from-a-group",
        "other-protocol",
        "broken-dhcp",
    ],
)
def test_responder_says_nothing_to_what_is_not_for_it(data: bytes) -> None:
    """Neither to others' packets, nor to senders that no answer could reach."""
    assert answers(data) == []


def test_responder_leases_an_address_to_a_client_that_has_none() -> None:
    """From 0.0.0.0 to everybody; the answer goes to the client alone."""
    (reply,) = answers(udp(67, message(1, A), NOBODY, EVERYBODY, BROADCAST))

    packet = packets.parse_ipv4(reply[14:])
    assert reply[:6] == A
    assert packet is not None
    assert packet.destination == bytes((10, 0, 0, 100))
    datagram = packets.parse_udp(packet)
    assert datagram is not None
    assert (datagram.source_port, datagram.destination_port) == (67, 68)


@pytest.mark.parametrize("port", [67, 69, 7])
def test_responder_port_where_nobody_is_is_unreachable(port: int) -> None:
    """With the packet's header and its first eight bytes (RFC 792)."""
    data = udp(port, b"hello")

    (reply,) = answers(data, Responder(replace(RESPONDER, dhcp=None, tftp=False)))

    packet = packets.parse_ipv4(reply[14:])
    assert packet is not None
    assert packet.payload[:2] == bytes((3, 3))
    assert packet.payload[8:] == data[14:42]


def test_responder_file_is_asked_for_and_sent() -> None:
    """And sent again when nobody answers."""
    host = Responder(RESPONDER)
    nothing = answers(udp(69, b"\0\1f\0octet\0"), host)
    (opening,) = host.take_accesses()
    assert isinstance(opening, OpenFile)

    host.file_event(FileOpened(opening.file, 3), 0)
    (reading,) = host.take_accesses()
    assert isinstance(reading, ReadFile)
    host.file_event(FileRead(reading.file, b"abc"), 0)
    first, host.sent = host.sent, []
    host.tick(SECOND)

    assert nothing == []
    assert first[0].endswith(b"\0\3\0\1abc")
    assert host.sent == first
    assert host.deadline_ns() == 2 * SECOND


HEADS = [
    b"",
    HOST + A + ETHERTYPE_IPV4,
    HOST + A + ETHERTYPE_ARP,
    *(udp(port, b"") for port in (67, 69, 49152)),
    icmp(),
]


@given(
    st.lists(
        st.tuples(st.sampled_from(HEADS), st.binary(max_size=80), st.integers(0, 60), st.binary(max_size=4)),
        max_size=20,
    )
)
def test_responder_survives_any_frames_and_says_no_more_than_one_thing_to_each(
    pieces: list[tuple[bytes, bytes, int, bytes]],
) -> None:
    """Headers that are right up to somewhere, and anything behind or inside them."""
    host = Responder(RESPONDER)
    for head, rest, at, inside in pieces:
        data = (head[:at] + inside + head[at + len(inside) :] + rest).ljust(14, b"\0")
        assert len(answers(data, host)) <= 1
        host.take_accesses()


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([67, 69, 49152]), st.binary(max_size=60)), max_size=30))
def test_responder_survives_any_datagrams(said: list[tuple[int, int, bytes]]) -> None:
    """Well-formed packets with anything inside: behind a DHCP head, a read request, or nothing."""
    host = Responder(RESPONDER)
    for kind, port, rest in said:
        head = (b"", message(1, A)[:240], b"\0\1f\0octet\0")[kind]
        answers(udp(port, head + rest), host)
        for access in host.take_accesses():
            event = FileOpened(access.file, 9) if isinstance(access, OpenFile) else FileRead(access.file, b"123456789")
            host.file_event(event, 0)
        host.take_accesses()
        host.sent.clear()
