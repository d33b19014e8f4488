"""A DHCP server (RFC 2131) for one network without relays; options are those of RFC 2132.

Theory of operation. An address is free, offered, leased or declined; all but the first end by themselves with time. A
client is known by its Ethernet address, which must be the one that its frame came from: where the switch lets nobody
use another's address, a guest can hold one address and have declined one, no more. It gets the address that it has or
had, else the one that it wishes, else the first free one. Leases are forgotten when the switch's process ends; a client
that renews one which nobody else has got since gets it again.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import Final, NamedTuple

from iovirt_dist.controllers.net.config import NS_PER_S

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
LEASE_S: Final = 3600
OFFER_NS: Final = 60 * NS_PER_S
"""For so long an offered address is kept for the client."""

_MESSAGE: Final = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
"""RFC 2131, figure 1, with the magic cookie of section 3: op, htype, hlen, hops, xid, secs, flags, ciaddr, yiaddr,
siaddr, giaddr, chaddr, sname, file."""
_COOKIE: Final = bytes((99, 130, 83, 99))
_BOOT_REQUEST, _BOOT_REPLY, _ETHERNET = 1, 2, 1
_MESSAGE_MIN_BYTES: Final = 300
"""Shorter ones are padded, as BOOTP clients expect (RFC 1542, section 2.1)."""
_ZERO: Final = bytes(4)


class _Option(enum.IntEnum):
    """Option codes."""

    PAD = 0
    SUBNET_MASK = 1
    REQUESTED_ADDRESS = 50
    LEASE_TIME = 51
    MESSAGE_TYPE = 53
    SERVER = 54
    RENEWAL_TIME = 58
    REBINDING_TIME = 59
    END = 255


class MessageType(enum.IntEnum):
    """Values of option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


class DhcpReply(NamedTuple):
    """What to send to a client.

    Attributes:
        payload: For UDP.
        address: Where to, 4 bytes; None for a broadcast.
    """

    payload: bytes
    address: bytes | None


class _Request(NamedTuple):
    """The parts of a client's message that count."""

    kind: MessageType
    xid: int
    flags: int
    client: bytes
    mac: bytes
    requested: bytes
    server: bytes


@dataclass(slots=True)
class _Lease:
    """Who has an address, or has declined it because somebody else seems to have it, and until when."""

    mac: bytes
    until_ns: int
    declined: bool = False


class DhcpServer:
    """The server.

    Args:
        interface: Its own address and the network.
        first: First address to lease.
        last: Last one.

    Attributes:
        acknowledged: How often a lease was given or renewed.
        refused: How often one was not, or no address was free.
    """

    def __init__(self, interface: IPv4Interface, first: IPv4Address, last: IPv4Address) -> None:
        self.acknowledged = 0
        self.refused = 0
        self._own = interface.ip.packed
        self._mask = interface.netmask.packed
        self._pool = [IPv4Address(number).packed for number in range(int(first), int(last) + 1)]
        self._leases: dict[bytes, _Lease] = {}
        self._address_of: dict[bytes, bytes] = {}
        self._declined: dict[bytes, bytes] = {}
        """Address that a client has, or has declined, by the client's."""
        self._members = frozenset(self._pool)

    @property
    def leases(self) -> dict[str, str]:
        """Ethernet address by leased or offered address, those that have run out included."""
        return {str(IPv4Address(key)): lease.mac.hex(":") for key, lease in self._leases.items() if not lease.declined}

    def receive(self, payload: bytes, mac: bytes, now_ns: int) -> DhcpReply | None:
        """Take a client's message; returns the answer, None for none.

        Args:
            payload: Of the UDP datagram.
            mac: Where its frame came from.
            now_ns: Monotonic time.
        """
        request = _parse(payload, mac)
        if request is None:
            return None
        if request.kind is MessageType.DISCOVER:
            return self._offer(request, now_ns)
        if request.kind is MessageType.REQUEST:
            return self._acknowledge(request, now_ns)
        if request.kind is MessageType.INFORM:
            return self._reply(request, MessageType.ACK, _ZERO)
        if request.kind is MessageType.RELEASE:
            self._release(request.client, mac)
        elif self._release(request.requested, mac):
            self._decline(request.requested, mac, now_ns)
        return None

    def _offer(self, request: _Request, now_ns: int) -> DhcpReply | None:
        address = self._choose(request, now_ns)
        if address is None:
            self.refused += 1
            return None
        self._grant(address, request.mac, now_ns + OFFER_NS)
        return self._reply(request, MessageType.OFFER, address)

    def _acknowledge(self, request: _Request, now_ns: int) -> DhcpReply | None:
        """A client wants what was offered, what it had, or more time (RFC 2131, section 4.3.2)."""
        if request.server not in (b"", self._own):
            self._release(self._address_of.get(request.mac, b""), request.mac)  # it took another server's
            return None
        address = request.requested or request.client
        if not self._may_have(address, request.mac, now_ns):
            self.refused += 1
            return self._reply(request, MessageType.NAK, _ZERO)
        self._grant(address, request.mac, now_ns + LEASE_S * NS_PER_S)
        self.acknowledged += 1
        return self._reply(request, MessageType.ACK, address)

    def _choose(self, request: _Request, now_ns: int) -> bytes | None:
        """The address for a client (RFC 2131, section 4.3.1); None if there is none."""
        for wish in (self._address_of.get(request.mac, b""), request.requested):
            if self._may_have(wish, request.mac, now_ns):
                return wish
        free = (address for address in self._pool if address not in self._leases)
        old = (address for address in self._pool if self._may_have(address, request.mac, now_ns))
        return next(free, None) or next(old, None)

    def _may_have(self, address: bytes, mac: bytes, now_ns: int) -> bool:
        lease = self._leases.get(address)
        if address not in self._members:
            return False
        return lease is None or lease.until_ns <= now_ns or (lease.mac == mac and not lease.declined)

    def _grant(self, address: bytes, mac: bytes, until_ns: int) -> None:
        """Give an address to a client; what it had, and who had it, are forgotten."""
        self._release(self._address_of.get(mac, b""), mac)
        before = self._leases.get(address)
        if before is not None:
            del (self._declined if before.declined else self._address_of)[before.mac]
        self._leases[address] = _Lease(mac, until_ns)
        self._address_of[mac] = address

    def _release(self, address: bytes, mac: bytes) -> bool:
        """Free an address if it is the client's; whether it was."""
        lease = self._leases.get(address)
        if lease is None or lease.mac != mac or lease.declined:
            return False
        del self._leases[address], self._address_of[mac]
        return True

    def _decline(self, address: bytes, mac: bytes, now_ns: int) -> None:
        """Lease an address to nobody for a while; what the client declined before is free again."""
        before = self._declined.get(mac)
        if before is not None:
            del self._leases[before]
        self._leases[address] = _Lease(mac, now_ns + LEASE_S * NS_PER_S, True)
        self._declined[mac] = address

    def _reply(self, request: _Request, kind: MessageType, address: bytes) -> DhcpReply:
        options = [(_Option.MESSAGE_TYPE, bytes((kind,))), (_Option.SERVER, self._own)]
        if kind is not MessageType.NAK:
            options.append((_Option.SUBNET_MASK, self._mask))
        if address != _ZERO:
            times = ((_Option.LEASE_TIME, 1.0), (_Option.RENEWAL_TIME, 0.5), (_Option.REBINDING_TIME, 0.875))
            options += [(code, int(LEASE_S * part).to_bytes(4, "big")) for code, part in times]
        client = _ZERO if kind is MessageType.NAK else request.client
        head = _MESSAGE.pack(
            _BOOT_REPLY, _ETHERNET, 6, 0, request.xid, 0, request.flags, client, address, self._own, _ZERO,
            request.mac, b"", b"", _COOKIE,
        )  # fmt: skip
        body = b"".join(bytes((code, len(value))) + value for code, value in options) + bytes((_Option.END,))
        payload = (head + body).ljust(_MESSAGE_MIN_BYTES, b"\0")
        if client != _ZERO:
            return DhcpReply(payload, client)
        broadcast = kind is MessageType.NAK or request.flags & 0x8000 or address == _ZERO
        return DhcpReply(payload, None if broadcast else address)


def _parse(payload: bytes, mac: bytes) -> _Request | None:
    """Parse a client's message; None if it is none, came by a relay, or names another client."""
    if len(payload) < _MESSAGE.size:
        return None
    op, hardware, length, _, xid, _, flags, client, _, _, relay, chaddr, _, _, cookie = _MESSAGE.unpack_from(payload)
    if (op, hardware, length, cookie) != (_BOOT_REQUEST, _ETHERNET, 6, _COOKIE) or relay != _ZERO or chaddr[:6] != mac:
        return None
    options = _options(payload[_MESSAGE.size :])
    kind = options.get(_Option.MESSAGE_TYPE, b"")
    requested, server = options.get(_Option.REQUESTED_ADDRESS, b""), options.get(_Option.SERVER, b"")
    if len(kind) != 1 or kind[0] not in _KINDS or len(requested) not in (0, 4) or len(server) not in (0, 4):
        return None
    return _Request(MessageType(kind[0]), xid, flags, client, mac, requested, server)


_KINDS: Final = frozenset(
    {
        MessageType.DISCOVER,
        MessageType.REQUEST,
        MessageType.DECLINE,
        MessageType.RELEASE,
        MessageType.INFORM,
    }
)
"""What clients send."""


def _options(data: bytes) -> dict[int, bytes]:
    """The options up to the first that is cut off; of one that is there twice the last."""
    options: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _Option.END:
        if data[at] == _Option.PAD:
            at += 1
            continue
        end = at + 2 + (data[at + 1] if at + 1 < len(data) else len(data))
        if end > len(data):
            break
        options[data[at]] = data[at + 2 : end]
        at = end
    return options
