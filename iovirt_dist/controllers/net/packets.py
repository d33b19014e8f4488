"""Formats of the packets that the built-in host understands: Ethernet, ARP, IPv4, ICMP echo and UDP.

Numbers are big-endian. What a guest sends is parsed without trust: a parser returns None for anything that is not
whole, consistent and of a kind that we answer.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

ETHERNET_HEADER_BYTES: Final = 14
BROADCAST: Final = b"\xff" * 6
ETHERTYPE_IPV4: Final = b"\x08\x00"
ETHERTYPE_ARP: Final = b"\x08\x06"
"""IEEE 802 numbers, "EtherTypes"."""

_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
"""RFC 826, "Packet format": hardware, protocol, lengths, operation, then sender and target."""
ARP_REQUEST: Final = 1
ARP_REPLY: Final = 2
_ARP_KIND: Final = (1, 0x0800, 6, 4)
"""Ethernet, IPv4 and the lengths of their addresses."""

_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
"""RFC 791, section 3.1: version and header length, service, length, identification, fragment, time to live, protocol,
checksum, addresses."""
IPV4_HEADER_BYTES: Final = _IPV4.size
_FRAGMENT_MASK: Final = 0x3FFF
"""More-fragments flag and fragment offset; 0 in a whole packet."""
_DONT_FRAGMENT: Final = 0x4000
TIME_TO_LIVE: Final = 64
"""RFC 1700's default."""
PROTOCOL_ICMP: Final = 1
PROTOCOL_UDP: Final = 17

ICMP_ECHO_REPLY: Final = 0
ICMP_UNREACHABLE: Final = 3
ICMP_ECHO: Final = 8
ICMP_PORT_UNREACHABLE: Final = 3
"""Types and a code of RFC 792."""
_ICMP_HEADER_BYTES: Final = 8
_QUOTED_BYTES: Final = 8
"""Of the payload of a packet that cannot be delivered, so much is returned (RFC 792, "Destination Unreachable")."""

_UDP: Final = struct.Struct("!HHHH")
"""RFC 768: ports, length, checksum."""
UDP_HEADER_BYTES: Final = _UDP.size
_PSEUDO: Final = struct.Struct("!4s4sBBH")


class Ipv4Packet(NamedTuple):
    """A whole IPv4 packet.

    Attributes:
        source: 4 bytes, as is `destination`.
        destination: Of whom.
        protocol: Number of what is in `payload`.
        payload: Without padding.
        header: As it came, with options.
    """

    source: bytes
    destination: bytes
    protocol: int
    payload: bytes
    header: bytes


class Datagram(NamedTuple):
    """A UDP datagram, without addresses."""

    source_port: int
    destination_port: int
    payload: bytes


class Arp(NamedTuple):
    """An ARP packet for IPv4 over Ethernet: hardware addresses of 6 bytes, protocol addresses of 4."""

    operation: int
    sender_mac: bytes
    sender_address: bytes
    target_mac: bytes
    target_address: bytes


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071), 0..FFFFh; 0 over data that holds its own and is whole.

    The one's complement sum of 16-bit words is their number as a whole modulo FFFFh.
    """
    value = int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big")
    if not value:
        return 0xFFFF
    return -value % 0xFFFF


def make_frame(destination: bytes, source: bytes, ethertype: bytes, payload: bytes) -> bytes:
    """Return an Ethernet frame without check sequence."""
    return b"".join((destination, source, ethertype, payload))


def parse_arp(data: bytes) -> Arp | None:
    """Parse what is behind the Ethernet header; padding is ignored."""
    if len(data) < _ARP.size:
        return None
    *kind, operation, sender_mac, sender, target_mac, target = _ARP.unpack_from(data)
    return Arp(operation, sender_mac, sender, target_mac, target) if tuple(kind) == _ARP_KIND else None


def make_arp(packet: Arp) -> bytes:
    """Return an ARP packet."""
    return _ARP.pack(*_ARP_KIND, *packet)


def parse_ipv4(data: bytes) -> Ipv4Packet | None:
    """Parse what is behind the Ethernet header; padding is cut off, fragments are refused."""
    if len(data) < _IPV4.size:
        return None
    first, _, length, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(data)
    header_bytes = (first & 15) * 4
    if first >> 4 != 4 or not _IPV4.size <= header_bytes <= length <= len(data) or fragment & _FRAGMENT_MASK:
        return None
    header = data[:header_bytes]
    if checksum(header):
        return None
    return Ipv4Packet(source, destination, protocol, data[header_bytes:length], header)


def make_ipv4(source: bytes, destination: bytes, protocol: int, payload: bytes) -> bytes:
    """Return an IPv4 packet, not to be fragmented, so that its identification may be 0 (RFC 6864, section 4.1)."""
    length = _IPV4.size + len(payload)

    def header(check: int) -> bytes:
        return _IPV4.pack(0x45, 0, length, 0, _DONT_FRAGMENT, TIME_TO_LIVE, protocol, check, source, destination)

    return header(checksum(header(0))) + payload


def make_echo_reply(payload: bytes) -> bytes | None:
    """Return the answer to an ICMP message, None if it is no whole echo request."""
    if len(payload) < _ICMP_HEADER_BYTES or payload[0] != ICMP_ECHO or payload[1] or checksum(payload):
        return None
    return _icmp(ICMP_ECHO_REPLY, 0, payload[4:])


def make_port_unreachable(packet: Ipv4Packet) -> bytes:
    """Return the ICMP message that nobody is at the port that a packet is for."""
    return _icmp(ICMP_UNREACHABLE, ICMP_PORT_UNREACHABLE, bytes(4) + packet.header + packet.payload[:_QUOTED_BYTES])


def _icmp(type_: int, code: int, rest: bytes) -> bytes:
    check = checksum(bytes((type_, code, 0, 0)) + rest)
    return bytes((type_, code)) + check.to_bytes(2, "big") + rest


def parse_udp(packet: Ipv4Packet) -> Datagram | None:
    """Parse a packet's payload; a checksum of 0 means that there is none."""
    data = packet.payload
    if len(data) < _UDP.size:
        return None
    source_port, destination_port, length, check = _UDP.unpack_from(data)
    if not _UDP.size <= length <= len(data):
        return None
    data = data[:length]
    if check and checksum(_PSEUDO.pack(packet.source, packet.destination, 0, PROTOCOL_UDP, length) + data):
        return None
    return Datagram(source_port, destination_port, data[_UDP.size :])


def make_udp(source: bytes, destination: bytes, datagram: Datagram) -> bytes:
    """Return an IPv4 packet with a datagram."""
    source_port, destination_port, payload = datagram
    length = _UDP.size + len(payload)
    pseudo = _PSEUDO.pack(source, destination, 0, PROTOCOL_UDP, length)
    check = checksum(pseudo + _UDP.pack(source_port, destination_port, length, 0) + payload) or 0xFFFF
    udp = _UDP.pack(source_port, destination_port, length, check) + payload
    return make_ipv4(source, destination, PROTOCOL_UDP, udp)
