"""Packet formats of the built-in host, against bytes captured from other stacks."""

from __future__ import annotations

import pytest

from iovirt_dist.controllers.net import packets
from iovirt_dist.controllers.net.packets import Datagram
from tests.unit.controllers.net.support import CLIENT, SERVER

ECHO = bytes.fromhex("4500001c00004000ff0167de0a0000020a0000010800f7ff00000000")
"""U-Boot's echo request from 10.0.0.2 to 10.0.0.1, as it went over the switch."""


def test_packet_of_another_stack_is_parsed() -> None:
    """Addresses, protocol and payload."""
    packet = packets.parse_ipv4(ECHO + b"padding")

    assert packet == (bytes((10, 0, 0, 2)), SERVER, packets.PROTOCOL_ICMP, ECHO[20:], ECHO[:20])


def test_echo_request_of_another_stack_is_answered_with_its_own_bytes() -> None:
    """Type 0, and a checksum that holds."""
    reply = packets.make_echo_reply(ECHO[20:])

    assert reply is not None
    assert reply[0] == packets.ICMP_ECHO_REPLY
    assert reply[4:] == ECHO[24:]
    assert packets.checksum(reply) == 0


@pytest.mark.parametrize(
    ("data", "sum_"),
    [
        (bytes.fromhex("0001f203f4f5f6f7"), 0x220D),  # RFC 1071, section 3: the sum is DDF2h
        (b"", 0xFFFF),
        (b"\0\0", 0xFFFF),
        (b"\xff\xff", 0),
        (b"\x01", 0xFEFF),
    ],
)
def test_checksum_is_that_of_rfc_1071(data: bytes, sum_: int) -> None:
    """The RFC's example, and the edges."""
    assert packets.checksum(data) == sum_


@pytest.mark.parametrize(
    "data",
    [
        ECHO[:19],
        ECHO[:27],
        b"\x65" + ECHO[1:],
        b"\x44" + ECHO[1:],
        ECHO[:6] + b"\x20\x00" + ECHO[8:],
        ECHO[:10] + b"\0\0" + ECHO[12:],
    ],
    ids=["short", "cut", "version", "header-length", "fragment", "checksum"],
)
def test_packet_that_is_not_whole_is_refused(data: bytes) -> None:
    """None for each."""
    assert packets.parse_ipv4(data) is None


@pytest.mark.parametrize("payload", [ECHO[20:27], b"\x09" + ECHO[21:], ECHO[20:] + b"x"], ids=["short", "type", "sum"])
def test_icmp_that_is_no_echo_request_is_not_answered(payload: bytes) -> None:
    """None for each."""
    assert packets.make_echo_reply(payload) is None


def test_udp_round_trips_with_its_checksum() -> None:
    """One changed bit is found."""
    data = packets.make_udp(SERVER, CLIENT, Datagram(69, 1024, b"odd"))
    packet = packets.parse_ipv4(data)
    spoiled = packets.parse_ipv4(data[:-1] + b"e")

    assert packet is not None
    assert spoiled is not None
    assert packets.parse_udp(packet) == Datagram(69, 1024, b"odd")
    assert packets.parse_udp(spoiled) is None


def test_udp_without_a_checksum_is_taken() -> None:
    """RFC 768: an all zero checksum means that there is none."""
    data = bytearray(packets.make_udp(SERVER, CLIENT, Datagram(1, 2, b"x")))
    data[26:28] = b"\0\0"
    packet = packets.parse_ipv4(bytes(data))

    assert packet is not None
    assert packets.parse_udp(packet) == Datagram(1, 2, b"x")


@pytest.mark.parametrize("udp", [bytes(7), b"\0\1\0\2\0\7\0\0", b"\0\1\0\2\0\x09\0\0"], ids=["short", "small", "cut"])
def test_udp_of_impossible_length_is_refused(udp: bytes) -> None:
    """None for each."""
    packet = packets.parse_ipv4(packets.make_ipv4(SERVER, CLIENT, packets.PROTOCOL_UDP, udp))

    assert packet is not None
    assert packets.parse_udp(packet) is None


@pytest.mark.parametrize("data", [bytes(27), bytes(28)], ids=["short", "kind"])
def test_arp_of_another_kind_is_refused(data: bytes) -> None:
    """None for each."""
    assert packets.parse_arp(data) is None
