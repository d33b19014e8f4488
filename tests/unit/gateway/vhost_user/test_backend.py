"""The back end: features, what the device is, and connections that come and go."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.gateway.vhost_user.actions import (
    CloseFds,
    Disconnect,
    Note,
    QueueStarted,
    QueueStopping,
    Reset,
    Send,
    SendRequest,
    StatusChanged,
)
from iovirt_dist.gateway.vhost_user.backend import MAX_NOTES, MAX_WAITING, Backend
from iovirt_dist.gateway.vhost_user.memory import MAX_SLOTS
from iovirt_dist.gateway.vhost_user.messages import NEED_REPLY, Request
from tests.unit.gateway.vhost_user.front_end import (
    ALL_PROTOCOL,
    FACTS,
    GUEST,
    PROTOCOL,
    REGION,
    VERSION_1,
    FakeMapper,
    FrontEnd,
    ack,
    config,
    message,
    number,
    reply_of,
    single,
    state,
    the,
    u64,
)

# --- features


def test_get_features_offers_what_the_device_does_and_the_protocol_can() -> None:
    """Not the packed layout, and protocol features besides."""
    front_end = FrontEnd()

    assert front_end.send(message(Request.GET_FEATURES)) == [
        Send(reply_of(Request.GET_FEATURES, u64(VERSION_1 | 1 << 9 | PROTOCOL)))
    ]


def test_set_features_keeps_what_the_device_has_to_know(front_end: FrontEnd) -> None:
    """The protocol's own bit is none of its."""
    front_end.send(number(Request.SET_FEATURES, VERSION_1 | PROTOCOL))

    assert front_end.backend.features == VERSION_1


@pytest.mark.parametrize("request_", [Request.SET_FEATURES, Request.SET_PROTOCOL_FEATURES])
def test_features_that_are_not_offered_are_refused(front_end: FrontEnd, request_: Request) -> None:
    """The packed layout, and in-band notifications, among others; what was chosen before stays."""
    assert front_end.send(number(request_, 1 << 34 | 1 << 14, NEED_REPLY))[-1] == ack(request_, 1)
    assert front_end.backend.features == VERSION_1
    assert front_end.backend.protocol_features == ALL_PROTOCOL


def test_get_protocol_features_offers_all_of_ours() -> None:
    """Before anything is negotiated."""
    assert FrontEnd().send(message(Request.GET_PROTOCOL_FEATURES)) == [
        Send(reply_of(Request.GET_PROTOCOL_FEATURES, u64(ALL_PROTOCOL)))
    ]


def test_set_protocol_features_is_acknowledged_if_it_brings_that_about() -> None:
    """User-Mode Linux wants the reply to this very message."""
    front_end = FrontEnd()

    assert front_end.send(number(Request.SET_PROTOCOL_FEATURES, 1 << 3, NEED_REPLY)) == [
        ack(Request.SET_PROTOCOL_FEATURES)
    ]


def test_need_reply_without_its_feature_is_ignored() -> None:
    """The front end would take the reply for that to the next message."""
    assert FrontEnd().send(message(Request.SET_OWNER, flags=NEED_REPLY)) == []


def test_need_reply_with_a_reply_of_its_own_is_one_reply(front_end: FrontEnd) -> None:
    """Not two."""
    assert front_end.send(message(Request.GET_QUEUE_NUM, flags=NEED_REPLY)) == [
        Send(reply_of(Request.GET_QUEUE_NUM, u64(2)))
    ]


def test_get_max_mem_slots_tells_how_many_regions_there_may_be(front_end: FrontEnd) -> None:
    """More than in one table."""
    assert front_end.send(message(Request.GET_MAX_MEM_SLOTS)) == [
        Send(reply_of(Request.GET_MAX_MEM_SLOTS, u64(MAX_SLOTS)))
    ]


@pytest.mark.parametrize(
    "data",
    [
        config(Request.SET_CONFIG, 0, b"x", NEED_REPLY),
        message(Request.RESET_DEVICE, flags=NEED_REPLY),
        single(Request.REM_MEM_REG, REGION, NEED_REPLY),
        number(Request.SET_STATUS, 1, NEED_REPLY),
    ],
)
def test_request_without_its_protocol_feature_is_refused(data: bytes) -> None:
    """Also one that could be carried out."""
    front_end = FrontEnd()
    front_end.negotiate(protocol=1 << 3)

    assert front_end.send(data)[-1] == ack(struct.unpack_from("=I", data)[0], 1)
    assert front_end.backend.counts.rejects == {"protocol-feature": 1}


# --- the device


def test_get_config_is_padded_behind_the_end(front_end: FrontEnd) -> None:
    """Drivers know more fields than the device has."""
    assert front_end.send(config(Request.GET_CONFIG, 10, bytes(10))) == [
        Send(reply_of(Request.GET_CONFIG, struct.pack("=III", 10, 10, 0) + b"abcdef" + bytes(4)))
    ]


def test_get_config_out_of_range_has_an_empty_reply(front_end: FrontEnd) -> None:
    """That is how the protocol tells an error."""
    assert front_end.send(config(Request.GET_CONFIG, 247, bytes(10)))[-1] == Send(reply_of(Request.GET_CONFIG, b""))
    assert front_end.backend.counts.rejects == {"config-range": 1}


def test_config_change_is_told_on_the_other_channel(front_end: FrontEnd) -> None:
    """Only if something has changed; later reads see it."""
    front_end.send(message(Request.SET_BACKEND_REQ_FD, flags=NEED_REPLY), fd := front_end.fd())

    told = front_end.backend.describe(FACTS._replace(config=b"new"))
    again = front_end.backend.describe(FACTS._replace(config=b"new"))

    assert told == [SendRequest(fd, struct.pack("=III", 2, 1, 0))]
    assert again == []
    assert front_end.send(config(Request.GET_CONFIG, 0, bytes(3)))[0] == Send(
        reply_of(Request.GET_CONFIG, struct.pack("=III", 0, 3, 0) + b"new")
    )


def test_config_change_without_a_channel_is_seen_later(front_end: FrontEnd) -> None:
    """There is no way to tell it."""
    assert front_end.backend.describe(FACTS._replace(config=b"new")) == []


def test_request_channel_is_replaced(front_end: FrontEnd) -> None:
    """The old one is closed."""
    front_end.send(message(Request.SET_BACKEND_REQ_FD), old := front_end.fd())

    assert front_end.send(message(Request.SET_BACKEND_REQ_FD), front_end.fd()) == [CloseFds((old,))]


def test_device_that_is_another_one_ends_the_connection(front_end: FrontEnd) -> None:
    """Other features, or other queues: the front end has negotiated about something else."""
    front_end.start()

    actions = front_end.did(front_end.backend.describe(FACTS._replace(queue_sizes=(256,))))

    assert actions[0] == QueueStopping(0)
    assert actions[-1] == Disconnect("device-changed")
    assert not front_end.open
    assert len(front_end.backend.queues) == 1


def test_status_is_kept_and_told(front_end: FrontEnd) -> None:
    """It can be read back."""
    assert front_end.send(number(Request.SET_STATUS, 7)) == [StatusChanged(7)]
    assert front_end.send(message(Request.GET_STATUS)) == [Send(reply_of(Request.GET_STATUS, u64(7)))]
    assert front_end.backend.status == 7


def test_reset_waits_for_queues_and_then_for_the_device(front_end: FrontEnd) -> None:
    """Queues are described anew afterwards; memory and calls stay."""
    front_end.start()
    vring = front_end.backend.queues[0]

    asked = front_end.send(message(Request.RESET_DEVICE, flags=NEED_REPLY))
    stopped = front_end.did(front_end.backend.queue_stopped(0, 1))
    waits = front_end.send(message(Request.GET_STATUS))
    reset = front_end.did(front_end.backend.device_reset())

    assert (asked, stopped, waits) == ([QueueStopping(0)], [Reset()], [])
    assert reset == [
        CloseFds((the(vring.kick),)),
        ack(Request.RESET_DEVICE),
        Send(reply_of(Request.GET_STATUS, u64(0))),
    ]
    assert front_end.open == {vring.call}
    assert front_end.backend.queues[0].call == vring.call
    assert front_end.backend.memory.regions == (REGION,)
    assert front_end.start() == [QueueStarted(0)]


def test_reset_that_was_not_asked_for_changes_nothing(front_end: FrontEnd) -> None:
    """An answer without a question."""
    front_end.start()

    assert front_end.backend.device_reset() == []
    assert front_end.backend.queues[0].started


# --- connections


def test_messages_wait_until_the_device_is_known() -> None:
    """A front end may be earlier than the hypervisor."""
    front_end = FrontEnd(facts=None)

    waits = front_end.send(message(Request.GET_FEATURES))
    known = front_end.did(front_end.backend.describe(FACTS))

    assert waits == []
    assert known == [Send(reply_of(Request.GET_FEATURES, u64(VERSION_1 | 1 << 9 | PROTOCOL)))]


def test_messages_that_wait_have_a_bound() -> None:
    """All descriptors are closed."""
    front_end = FrontEnd(facts=None)
    for _ in range(MAX_WAITING):
        assert front_end.send(number(Request.SET_VRING_KICK, 0), front_end.fd()) == []

    assert front_end.send(number(Request.SET_VRING_KICK, 0), front_end.fd())[-1] == Disconnect("flood")
    assert not front_end.open
    assert front_end.backend.counts.rejects == {"flood": 1}


def test_malformed_message_closes_the_connection(front_end: FrontEnd) -> None:
    """Queues stop, descriptors are closed; no reply, even if one is wanted."""
    front_end.start()

    actions = front_end.send(message(Request.GET_FEATURES, b"x", NEED_REPLY), front_end.fd())

    assert [type(action) for action in actions] == [CloseFds, Note, QueueStopping, CloseFds, Disconnect]
    assert actions[-1] == Disconnect("payload-size")
    assert not front_end.open
    assert front_end.backend.counts.rejects == {"payload-size": 1}


def test_unknown_request_without_a_reply_is_counted(front_end: FrontEnd) -> None:
    """Nothing depends on it; its descriptors are closed."""
    actions = front_end.send(message(19, bytes(8)), fd := front_end.fd())

    assert actions[0] == CloseFds((fd,))
    assert [type(action) for action in actions] == [CloseFds, Note]
    assert front_end.backend.counts.rejects == {"unknown-request": 1}


def test_notes_have_a_bound(front_end: FrontEnd) -> None:
    """A front end cannot fill the log; what happens is counted."""
    noted = [front_end.send(message(19)) for _ in range(MAX_NOTES + 5)]

    assert [len(actions) for actions in noted] == [1] * MAX_NOTES + [0] * 5
    assert front_end.backend.counts.rejects == {"unknown-request": MAX_NOTES + 5}


def test_disconnect_forgets_everything(front_end: FrontEnd) -> None:
    """Queues that run are told to stop, and memory that somebody still has stays valid."""
    front_end.start()
    front_end.send(message(Request.SET_BACKEND_REQ_FD), front_end.fd())
    memory = front_end.backend.memory

    actions = front_end.did(front_end.backend.disconnect())

    assert actions[0] == QueueStopping(0)
    assert not front_end.open
    assert memory.read(GUEST, 1) == b"\0"
    assert front_end.backend.memory.regions == ()
    assert (front_end.backend.features, front_end.backend.protocol_features, front_end.backend.status) == (0, 0, 0)
    assert front_end.backend.disconnect() == []


def test_next_front_end_waits_for_queues_of_the_last(front_end: FrontEnd) -> None:
    """It must not meet somebody who writes to a ring; the base of the last is none of its."""
    front_end.start()
    front_end.did(front_end.backend.disconnect())
    front_end.backend.connect()

    waits = front_end.send(message(Request.GET_QUEUE_NUM))
    stopped = front_end.did(front_end.backend.queue_stopped(0, 99))

    assert waits == []
    assert stopped == [Send(reply_of(Request.GET_QUEUE_NUM, u64(2)))]
    assert front_end.backend.queues[0].base == 0
    front_end.negotiate()
    assert front_end.start() == [QueueStarted(0)]
    assert front_end.backend.counts.connections == 2


def test_disconnect_while_a_queue_stops_leaves_no_reply(front_end: FrontEnd) -> None:
    """What waited is forgotten, and its descriptors are closed."""
    front_end.start()
    front_end.send(state(Request.GET_VRING_BASE, 0, 0))
    front_end.send(number(Request.SET_VRING_CALL, 1), front_end.fd())

    front_end.did(front_end.backend.disconnect())

    assert not front_end.open
    assert front_end.backend.queue_stopped(0, 4) == []


def test_disconnect_while_the_device_is_reset_waits_for_that(front_end: FrontEnd) -> None:
    """The next front end must not start its queues in the midst of it."""
    front_end.send(message(Request.RESET_DEVICE))
    front_end.backend.disconnect()
    front_end.backend.connect()

    waits = front_end.send(message(Request.GET_QUEUE_NUM))

    assert waits == []
    assert front_end.backend.device_reset() == [Send(reply_of(Request.GET_QUEUE_NUM, u64(2)))]


def test_message_of_nobody_is_closed() -> None:
    """Its descriptors, that is."""
    assert Backend(FakeMapper()).receive(message(Request.SET_OWNER), [7, 8]) == [CloseFds((7, 8))]
    assert Backend(FakeMapper()).receive(message(Request.SET_OWNER), []) == []


def test_second_front_end_is_an_error_of_ours(front_end: FrontEnd) -> None:
    """Who listens has to know."""
    with pytest.raises(LocalError):
        front_end.backend.connect()


def test_queue_may_be_enabled_before_features_are_negotiated() -> None:
    """As QEMU's network front end does (hw/net/vhost_net.c, QEMU 7.2)."""
    front_end = FrontEnd()
    front_end.send(state(Request.SET_VRING_ENABLE, 0, 1))
    front_end.negotiate()
    front_end.set_up()

    assert front_end.send(number(Request.SET_VRING_KICK, 0), front_end.fd()) == [QueueStarted(0)]
