"""The DHCP server, by RFC 2131."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface
from typing import NamedTuple

import pytest

from iovirt_dist.controllers.net.dhcp import LEASE_S, OFFER_NS, DhcpReply, DhcpServer, MessageType
from tests.unit.controllers.net.support import SECOND, A, B, C, D

COOKIE = bytes((99, 130, 83, 99))
XID = bytes((1, 2, 3, 4))
POOL = [bytes((10, 0, 0, number)) for number in (100, 101, 102)]
OWN = bytes((10, 0, 0, 1))
NONE = bytes(4)


class Answer(NamedTuple):
    """A reply as a client sees it."""

    kind: int
    address: bytes
    options: dict[int, bytes]
    sent_to: bytes | None


def server() -> DhcpServer:
    """Three addresses to lease."""
    return DhcpServer(IPv4Interface("10.0.0.1/24"), IPv4Address(POOL[0]), IPv4Address(POOL[2]))


def message(
    kind: int, mac: bytes, *, requested: bytes = b"", server_: bytes = b"", client: bytes = NONE, flags: int = 0
) -> bytes:
    """A client's message."""
    options = bytes((53, 1, kind))
    options += bytes((50, 4)) + requested if requested else b""
    options += bytes((54, 4)) + server_ if server_ else b""
    head = bytes((1, 1, 6, 0)) + XID + bytes(2) + flags.to_bytes(2, "big") + client + bytes(12) + mac.ljust(16, b"\0")
    return head + bytes(192) + COOKIE + options + b"\xff"


def answer(reply: DhcpReply | None) -> Answer:
    """Read a reply, independently of the server's code."""
    assert reply is not None
    data = reply.payload
    assert (data[:4], data[4:8], data[236:240]) == (bytes((2, 1, 6, 0)), XID, COOKIE)
    options, at = {}, 240
    while data[at] != 255:
        options[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return Answer(options[53][0], data[16:20], options, reply.address)


def leased(made: DhcpServer, mac: bytes, now_ns: int = 0) -> bytes:
    """Let a client get a lease; returns its address."""
    offer = answer(made.receive(message(1, mac), mac, now_ns))
    request = message(3, mac, requested=offer.address, server_=OWN)
    return answer(made.receive(request, mac, now_ns)).address


def test_dhcp_client_gets_an_offer_and_then_a_lease() -> None:
    """With mask, server and times."""
    made = server()

    offer = answer(made.receive(message(1, A), A, 0))
    ack = answer(made.receive(message(3, A, requested=offer.address, server_=OWN), A, 0))

    assert (offer.kind, offer.address, offer.sent_to) == (MessageType.OFFER, POOL[0], POOL[0])
    assert (ack.kind, ack.address) == (MessageType.ACK, POOL[0])
    assert (ack.options[1], ack.options[54]) == (bytes((255, 255, 255, 0)), OWN)
    assert [int.from_bytes(ack.options[code], "big") for code in (51, 58, 59)] == [LEASE_S, LEASE_S // 2, 3150]
    assert made.leases == {"10.0.0.100": A.hex(":")}


def test_dhcp_client_that_wants_a_broadcast_gets_one() -> None:
    """Section 4.1: the broadcast bit."""
    assert answer(server().receive(message(1, A, flags=0x8000), A, 0)).sent_to is None


def test_dhcp_clients_get_different_addresses_and_the_last_none() -> None:
    """Three addresses, four clients."""
    made = server()

    got = [leased(made, mac) for mac in (A, B, C)]

    assert got == POOL
    assert made.receive(message(1, D), D, 0) is None
    assert made.refused == 1


def test_dhcp_client_gets_its_address_again_even_if_it_wishes_another() -> None:
    """Section 4.3.1: the current binding first."""
    made = server()
    leased(made, A)
    leased(made, B)

    again = answer(made.receive(message(1, A, requested=POOL[2]), A, SECOND))

    assert again.address == POOL[0]


def test_dhcp_wish_for_a_free_address_is_granted() -> None:
    """A wish for another's is not."""
    made = server()

    wish = answer(made.receive(message(1, A, requested=POOL[2]), A, 0))
    other = answer(made.receive(message(1, B, requested=POOL[2]), B, 0))

    assert (wish.address, other.address) == (POOL[2], POOL[0])


def test_dhcp_lease_that_ran_out_goes_to_another() -> None:
    """Its first holder then gets a refusal, and another address."""
    made = server()
    for mac in (A, B, C):
        leased(made, mac)

    got = leased(made, D, LEASE_S * SECOND)
    refused = answer(made.receive(message(3, A, client=POOL[0]), A, LEASE_S * SECOND))

    assert got == POOL[0]
    assert (refused.kind, refused.address, refused.sent_to) == (MessageType.NAK, NONE, None)


def test_dhcp_offer_that_nobody_takes_is_free_again_after_a_while() -> None:
    """Three offers, then a fourth client."""
    made = server()
    for mac in (A, B, C):
        made.receive(message(1, mac), mac, 0)

    early = made.receive(message(1, D), D, OFFER_NS - 1)
    late = answer(made.receive(message(1, D), D, OFFER_NS))

    assert early is None
    assert late.address == POOL[0]


def test_dhcp_client_that_takes_another_servers_offer_frees_ours() -> None:
    """Section 4.3.2: a server identifier that is not ours."""
    made = server()
    made.receive(message(1, A), A, 0)

    silent = made.receive(message(3, A, requested=POOL[0], server_=bytes((10, 0, 0, 2))), A, 0)

    assert silent is None
    assert made.leases == {}


def test_dhcp_client_renews_also_what_the_server_has_forgotten() -> None:
    """The switch was restarted; nobody else has the address."""
    ack = answer(server().receive(message(3, A, client=POOL[1]), A, 0))

    assert (ack.kind, ack.address, ack.sent_to) == (MessageType.ACK, POOL[1], POOL[1])


@pytest.mark.parametrize("address", [OWN, bytes((192, 168, 0, 1)), POOL[0]], ids=["own", "foreign", "anothers"])
def test_dhcp_request_for_what_cannot_be_leased_is_refused(address: bytes) -> None:
    """A client that comes from another network, or is late."""
    made = server()
    leased(made, B)

    assert answer(made.receive(message(3, A, requested=address), A, 0)).kind == MessageType.NAK


def test_dhcp_released_address_is_free_and_only_its_holder_can_release_it() -> None:
    """Another's release changes nothing."""
    made = server()
    leased(made, A)

    made.receive(message(7, B, client=POOL[0]), B, 0)
    kept = made.leases
    made.receive(message(7, A, client=POOL[0]), A, 0)

    assert kept == {"10.0.0.100": A.hex(":")}
    assert made.leases == {}


def test_dhcp_declined_address_is_leased_to_nobody_for_a_while() -> None:
    """A client can spoil one address at a time, not all."""
    made = server()
    for _ in range(5):
        made.receive(message(4, A, requested=leased(made, A)), A, 0)

    others = [leased(made, mac) for mac in (B, C)]
    later = leased(made, D, LEASE_S * SECOND)

    assert len(set(others)) == 2
    assert made.refused == 0
    assert later in POOL


def test_dhcp_declined_address_is_nobodys_to_release() -> None:
    """Not even that of the client that declined it, which gets another one."""
    made = server()
    made.receive(message(4, A, requested=leased(made, A)), A, 0)

    made.receive(message(7, A, client=POOL[0]), A, 0)

    assert leased(made, A) == POOL[1]


def test_dhcp_inform_is_answered_without_an_address() -> None:
    """Section 4.3.5."""
    ack = answer(server().receive(message(8, A, client=bytes((10, 0, 0, 50))), A, 0))

    assert (ack.kind, ack.address, ack.sent_to) == (MessageType.ACK, NONE, bytes((10, 0, 0, 50)))
    assert 51 not in ack.options


@pytest.mark.parametrize(
    "payload",
    [
        message(1, A)[:239],
        b"\x02" + message(1, A)[1:],
        message(1, B),
        message(1, A).replace(COOKIE, bytes(4)),
        message(2, A),
        message(1, A).replace(bytes((53, 1, 1)), bytes((53, 9, 1))),
        message(1, A)[:24] + bytes((10, 0, 0, 9)) + message(1, A)[28:],
    ],
    ids=["short", "reply", "anothers", "cookie", "servers", "cut", "relayed"],
)
def test_dhcp_message_that_is_no_clients_is_ignored(payload: bytes) -> None:
    """None of these came from A's client."""
    assert server().receive(payload, A, 0) is None
