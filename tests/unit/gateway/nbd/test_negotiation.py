"""The handshake, message by message."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import PeerError
from iovirt_dist.gateway.nbd import protocol as nbd
from iovirt_dist.gateway.nbd.inbox import Inbox
from iovirt_dist.gateway.nbd.negotiation import MAX_OPTION_BYTES, MAX_OPTIONS, Negotiation, Phase, parse_info
from tests.unit.gateway.nbd.client import EXPORT, FLAGS, HELLO, info, option, put, replies

Option, Reply, Info = nbd.Option, nbd.Reply, nbd.Info
EXPORT_INFO = nbd.INFO_EXPORT.pack(Info.EXPORT, EXPORT.size_bytes, FLAGS)
SIZES = nbd.INFO_BLOCK_SIZE.pack(Info.BLOCK_SIZE, 512, 4096, 32 << 20)


class Client:
    """A handshake with what was answered, without the greeting."""

    def __init__(self, *said: bytes) -> None:
        self.inbox = Inbox(1 << 18)
        self.core = Negotiation(EXPORT)
        self.greeting = self.core.out.pop()
        for message in said:
            self.say(message)

    def say(self, message: bytes) -> None:
        """Send, and let the server take it."""
        put(self.inbox, message)
        self.core.take(self.inbox)

    @property
    def replies(self) -> list[tuple[int, int, bytes]]:
        """What was answered to options."""
        return replies(b"".join(self.core.out))


def test_greeting_offers_fixed_newstyle_without_zeroes() -> None:
    """Both magic numbers, and both flags."""
    assert Client().greeting == b"NBDMAGICIHAVEOPT\x00\x03"


@pytest.mark.parametrize(("flags", "padding"), [(1, 124), (3, 0)])
def test_export_name_is_answered_with_size_and_flags(flags: int, padding: int) -> None:
    """The zeroes are left out for a client that said so."""
    client = Client(nbd.CLIENT_FLAGS.pack(flags), option(Option.EXPORT_NAME, b"disk"))
    assert client.core.out == [nbd.EXPORT.pack(EXPORT.size_bytes, FLAGS) + bytes(padding)]
    assert client.core.phase is Phase.CHOSEN


def test_go_tells_size_and_block_sizes_and_what_was_asked_for() -> None:
    """Name and description are told to those who ask."""
    client = Client(HELLO, option(Option.GO, info(b"", Info.NAME, Info.DESCRIPTION, 77)))
    assert client.replies == [
        (Option.GO, Reply.INFO, EXPORT_INFO),
        (Option.GO, Reply.INFO, SIZES),
        (Option.GO, Reply.INFO, b"\0\1disk"),
        (Option.GO, Reply.INFO, b"\0\2a disk"),
        (Option.GO, Reply.ACK, b""),
    ]
    assert client.core.phase is Phase.CHOSEN


def test_info_tells_the_same_and_the_client_goes_on() -> None:
    """INFO is GO without going."""
    client = Client(HELLO, option(Option.INFO, info(b"disk")))
    assert [reply for _, reply, _ in client.replies] == [Reply.INFO, Reply.INFO, Reply.ACK]
    assert client.core.phase is Phase.OPTIONS


def test_structured_replies_bring_the_flag_for_unfragmented_reads() -> None:
    """SEND_DF may be set only then."""
    client = Client(HELLO, option(Option.STRUCTURED_REPLY), option(Option.EXPORT_NAME))
    _, answer = client.core.out
    assert client.core.structured
    assert nbd.EXPORT.unpack(answer) == (EXPORT.size_bytes, FLAGS | nbd.TransmissionFlag.SEND_DF)


def test_list_names_the_export() -> None:
    """There is one."""
    client = Client(HELLO, option(Option.LIST))
    assert client.replies == [(Option.LIST, Reply.SERVER, b"\0\0\0\4disk"), (Option.LIST, Reply.ACK, b"")]


def test_abort_is_acknowledged_and_ends_it() -> None:
    """The client has taken its leave."""
    client = Client(HELLO, option(Option.ABORT))
    assert (client.replies, client.core.phase) == ([(Option.ABORT, Reply.ACK, b"")], Phase.ABORTED)


@pytest.mark.parametrize(
    ("kind", "data", "reply"),
    [
        (Option.STARTTLS, b"", Reply.ERR_UNSUP),
        (Option.SET_META_CONTEXT, b"x" * 9, Reply.ERR_UNSUP),
        (Option.LIST_META_CONTEXT, b"", Reply.ERR_UNSUP),
        (0xFFFF_FFFF, b"", Reply.ERR_UNSUP),
        (Option.LIST, b"x", Reply.ERR_INVALID),
        (Option.STRUCTURED_REPLY, b"x", Reply.ERR_INVALID),
        (Option.GO, b"", Reply.ERR_INVALID),
        (Option.GO, info(b"disk") + b"x", Reply.ERR_INVALID),
        (Option.GO, info(b"other"), Reply.ERR_UNKNOWN),
        (Option.INFO, info(b"Disk"), Reply.ERR_UNKNOWN),
    ],
)
def test_option_refused_is_answered_and_the_client_goes_on(kind: int, data: bytes, reply: int) -> None:
    """Each with the protocol's own error."""
    client = Client(HELLO, option(kind, data))
    assert [found[:2] for found in client.replies] == [(kind, reply)]
    assert client.core.phase is Phase.OPTIONS


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (nbd.CLIENT_FLAGS.pack(4), "client-flags"),
        (HELLO + b"IHAVENOT" + bytes(8), "option-magic"),
        (HELLO + nbd.OPTION.pack(nbd.OPTION_MAGIC, 99, MAX_OPTION_BYTES + 1), "option-length"),
        (HELLO + option(Option.EXPORT_NAME, b"other"), "export-unknown"),
        (HELLO + option(99) * (MAX_OPTIONS + 1), "options"),
    ],
)
def test_client_that_breaks_the_protocol_is_refused_with_a_reason(said: bytes, reason: str) -> None:
    """There is nothing that it could be answered."""
    client = Client()
    with pytest.raises(PeerError) as caught:
        client.say(said)
    assert caught.value.reason == reason


def test_message_in_single_bytes_is_the_same_message() -> None:
    """Nothing is taken before it is whole, and nothing of what follows."""
    said = HELLO + option(Option.LIST) + option(Option.GO, info(b"disk"))
    client = Client(*(said[at : at + 1] for at in range(len(said))))
    put(client.inbox, b"rest")
    client.core.take(client.inbox)
    assert [reply for _, reply, _ in client.replies] == [Reply.SERVER, Reply.ACK, Reply.INFO, Reply.INFO, Reply.ACK]
    assert client.inbox.end - client.inbox.start == 4


@pytest.mark.parametrize("data", [b"", b"\0\0\0\1", b"\0\0\x10\1" + bytes(5000), info(b"a", 1)[:-1]])
def test_information_requests_whose_lengths_are_wrong_are_none(data: bytes) -> None:
    """Lengths that do not add up, or a name that is too long."""
    assert parse_info(data) is None
