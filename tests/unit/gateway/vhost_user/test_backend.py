"""The back end, message by message."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.gateway.vhost_user.actions import (
    CallChanged,
    CloseFds,
    Disconnect,
    KickChanged,
    MemoryChanged,
    Note,
    QueueStarted,
    QueueStopping,
    Reset,
    Send,
    SendRequest,
    Signal,
    StatusChanged,
)
from iovirt_dist.gateway.vhost_user.backend import MAX_NOTES, MAX_WAITING, Backend
from iovirt_dist.gateway.vhost_user.inflight import queue_bytes
from iovirt_dist.gateway.vhost_user.memory import MAX_SLOTS
from iovirt_dist.gateway.vhost_user.messages import NEED_REPLY, Region, Request
from tests.unit.gateway.vhost_user.front_end import (
    ALL_PROTOCOL,
    BAD_FD,
    FACTS,
    GUEST,
    PROTOCOL,
    REGION,
    USER,
    VERSION_1,
    FakeMapper,
    FrontEnd,
    ack,
    address,
    config,
    inflight,
    message,
    number,
    reply_of,
    single,
    state,
    table,
)

OTHER = Region(0, 0x1000, 0x1000, 0)


@pytest.fixture
def front_end() -> FrontEnd:
    """One that has negotiated everything."""
    made = FrontEnd()
    made.negotiate()
    return made


def u64(value: int) -> bytes:
    """A payload."""
    return struct.pack("=Q", value)


def the(fd: int | None) -> int:
    """Return a descriptor that is there."""
    assert fd is not None
    return fd


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


# --- rings


def test_queue_starts_when_everything_is_known(front_end: FrontEnd) -> None:
    """Addresses are the guest's then."""
    actions = front_end.start(queue=1)
    vring = front_end.backend.queues[1]

    assert actions == [QueueStarted(1)]
    assert (vring.size, vring.base, vring.started, vring.enabled) == (8, 5, True, True)
    assert (vring.descriptors, vring.driver_area, vring.device_area) == (GUEST, GUEST + 0x1000, GUEST + 0x2000)
    assert front_end.open == {vring.kick, vring.call}


def test_queue_starts_when_it_is_enabled_before_its_kick(front_end: FrontEnd) -> None:
    """The order of the messages does not matter."""
    front_end.set_up()
    enabled = front_end.send(state(Request.SET_VRING_ENABLE, 0, 1))
    kicked = front_end.send(number(Request.SET_VRING_KICK, 0), front_end.fd())

    assert (enabled, kicked) == ([], [QueueStarted(0)])


def test_queue_is_enabled_from_the_start_without_protocol_features() -> None:
    """The front end cannot say so."""
    front_end = FrontEnd()
    front_end.send(number(Request.SET_FEATURES, VERSION_1))
    front_end.set_up()

    assert front_end.send(number(Request.SET_VRING_KICK, 0), front_end.fd()) == [QueueStarted(0)]


def test_queue_of_user_mode_linux_starts() -> None:
    """Its messages, in its order: the call first, no size of the table that fits, everything acknowledged."""
    front_end = FrontEnd()
    flags = NEED_REPLY
    front_end.send(message(Request.SET_OWNER))
    front_end.send(message(Request.GET_FEATURES))
    front_end.send(message(Request.GET_PROTOCOL_FEATURES))
    region = Region(0x5000, 0x12345, 0x5000, 0x5000)
    sent = [
        front_end.send(number(Request.SET_PROTOCOL_FEATURES, 1 << 3 | 1 << 5 | 1 << 9, flags)),
        front_end.send(message(Request.SET_BACKEND_REQ_FD, flags=flags), front_end.fd()),
        front_end.send(number(Request.SET_FEATURES, VERSION_1 | PROTOCOL, flags)),
        front_end.send(table([region], flags, room=1), memory := front_end.fd()),
        front_end.send(number(Request.SET_VRING_CALL, 0, flags), front_end.fd()),
        front_end.send(state(Request.SET_VRING_NUM, 0, 256, flags)),
        front_end.send(state(Request.SET_VRING_BASE, 0, 0, flags)),
        front_end.send(address(0, 0x6000, 0x7000, 0x8000, flags)),
        front_end.send(number(Request.SET_VRING_KICK, 0, flags), front_end.fd()),
        front_end.send(state(Request.SET_VRING_ENABLE, 0, 1, flags)),
    ]

    assert sent == [
        [ack(Request.SET_PROTOCOL_FEATURES)],
        [ack(Request.SET_BACKEND_REQ_FD)],
        [ack(Request.SET_FEATURES)],
        [CloseFds((memory,)), ack(Request.SET_MEM_TABLE)],
        [ack(Request.SET_VRING_CALL)],
        [ack(Request.SET_VRING_NUM)],
        [ack(Request.SET_VRING_BASE)],
        [ack(Request.SET_VRING_ADDR)],
        [ack(Request.SET_VRING_KICK)],
        [QueueStarted(0), ack(Request.SET_VRING_ENABLE)],
    ]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (state(Request.SET_VRING_NUM, 2, 8, NEED_REPLY), "queue-number"),
        (state(Request.SET_VRING_NUM, 0, 0, NEED_REPLY), "queue-size"),
        (state(Request.SET_VRING_NUM, 0, 7, NEED_REPLY), "queue-size"),
        (state(Request.SET_VRING_NUM, 1, 128, NEED_REPLY), "queue-size"),
        (state(Request.SET_VRING_NUM, 0, 0xFFFF_FFFF, NEED_REPLY), "queue-size"),
        (state(Request.SET_VRING_BASE, 0xFFFF_FFFF, 0, NEED_REPLY), "queue-number"),
        (state(Request.SET_VRING_BASE, 0, 0x1_0000, NEED_REPLY), "queue-base"),
        (state(Request.SET_VRING_ENABLE, 0, 2, NEED_REPLY), "queue-enable"),
        (state(Request.SET_VRING_ENABLE, 2, 1, NEED_REPLY), "queue-number"),
        (number(Request.SET_VRING_KICK, 0x100, NEED_REPLY), "queue-polled"),
        (number(Request.SET_VRING_CALL, 0x102, NEED_REPLY), "queue-number"),
        (address(2, USER, USER, USER, NEED_REPLY), "queue-number"),
        (address(0, USER - 1, USER, USER, NEED_REPLY), "queue-memory"),
        (address(0, USER, USER + 0x1_0000, USER, NEED_REPLY), "queue-memory"),
        (address(0, USER, USER, (1 << 64) - 1, NEED_REPLY), "queue-memory"),
        (address(0, USER + 0x1_0000 - 127, USER, USER, NEED_REPLY), "queue-memory"),
        (number(Request.SET_STATUS, 0x100, NEED_REPLY), "status"),
        (config(Request.SET_CONFIG, 0, b"x", NEED_REPLY), "config-read-only"),
        (message(33, b"", NEED_REPLY), "unknown-request"),
    ],
)
def test_request_that_cannot_be_is_refused_with_its_reason(front_end: FrontEnd, data: bytes, reason: str) -> None:
    """The front end is told, and the connection stays."""
    front_end.set_up()

    note, told = front_end.send(data)

    assert isinstance(note, Note)
    assert told == ack(struct.unpack_from("=I", data)[0], 1)
    assert front_end.backend.counts.rejects == {reason: 1}


def test_queue_size_too_large_for_its_areas_is_refused(front_end: FrontEnd) -> None:
    """Addresses may come before the size."""
    front_end.send(table([REGION]), front_end.fd())
    front_end.send(address(0, USER + 0x1_0000 - 16 * 8, USER, USER))

    assert front_end.send(state(Request.SET_VRING_NUM, 0, 8, NEED_REPLY))[-1] == ack(Request.SET_VRING_NUM)
    assert front_end.send(state(Request.SET_VRING_NUM, 0, 16, NEED_REPLY))[-1] == ack(Request.SET_VRING_NUM, 1)
    assert front_end.backend.queues[0].size == 8


@pytest.mark.parametrize(
    "data",
    [
        state(Request.SET_VRING_NUM, 0, 16, NEED_REPLY),
        state(Request.SET_VRING_BASE, 0, 0, NEED_REPLY),
        address(0, USER + 0x3000, USER + 0x1000, USER + 0x2000, NEED_REPLY),
        number(Request.SET_FEATURES, VERSION_1 | PROTOCOL | 1 << 9, NEED_REPLY),
    ],
)
def test_queue_that_runs_is_not_changed(front_end: FrontEnd, data: bytes) -> None:
    """It must be stopped before."""
    front_end.start()
    before = front_end.backend.queues[0]

    assert front_end.send(data)[-1] == ack(struct.unpack_from("=I", data)[0], 1)
    assert front_end.backend.queues[0] is before
    assert (before.size, before.base, before.descriptors) == (8, 5, GUEST)


def test_queue_that_runs_may_be_told_what_it_knows(front_end: FrontEnd) -> None:
    """The same addresses, the same features."""
    front_end.start()

    assert front_end.send(address(0, USER, USER + 0x1000, USER + 0x2000)) == []
    assert front_end.send(number(Request.SET_FEATURES, VERSION_1 | PROTOCOL)) == []


def test_get_vring_base_waits_until_the_queue_has_stopped(front_end: FrontEnd) -> None:
    """Then the base is told, and the kick is closed."""
    front_end.start()
    kick = the(front_end.backend.queues[0].kick)

    asked = front_end.send(state(Request.GET_VRING_BASE, 0, 0))
    later = front_end.send(message(Request.GET_QUEUE_NUM))
    stopped = front_end.did(front_end.backend.queue_stopped(0, 77))

    assert (asked, later) == ([QueueStopping(0)], [])
    assert stopped == [
        CloseFds((kick,)),
        Send(reply_of(Request.GET_VRING_BASE, struct.pack("=II", 0, 77))),
        Send(reply_of(Request.GET_QUEUE_NUM, u64(2))),
    ]
    assert front_end.backend.queues[0].base == 77


def test_get_vring_base_of_a_queue_that_does_not_run_is_what_was_set(front_end: FrontEnd) -> None:
    """There is nothing to wait for."""
    front_end.set_up()

    assert front_end.send(state(Request.GET_VRING_BASE, 0, 0)) == [
        Send(reply_of(Request.GET_VRING_BASE, struct.pack("=II", 0, 5)))
    ]


def test_get_vring_base_of_no_queue_closes_the_connection(front_end: FrontEnd) -> None:
    """There is no reply that would be true."""
    assert front_end.send(state(Request.GET_VRING_BASE, 2, 0))[-1] == Disconnect("queue-number")


def test_queue_stopped_starts_again_with_another_kick(front_end: FrontEnd) -> None:
    """It is still enabled."""
    front_end.start()
    front_end.send(state(Request.GET_VRING_BASE, 0, 0))
    front_end.did(front_end.backend.queue_stopped(0, 9))

    assert front_end.send(number(Request.SET_VRING_KICK, 0), front_end.fd()) == [QueueStarted(0)]
    assert front_end.backend.queues[0].base == 9


def test_queue_disabled_is_stopped_before_that_is_acknowledged(front_end: FrontEnd) -> None:
    """User-Mode Linux frees the ring then; enabled, the queue goes on where it was."""
    front_end.start()

    disabled = front_end.send(state(Request.SET_VRING_ENABLE, 0, 0, NEED_REPLY))
    stopped = front_end.did(front_end.backend.queue_stopped(0, 9))
    enabled = front_end.send(state(Request.SET_VRING_ENABLE, 0, 1))

    assert disabled == [QueueStopping(0)]
    assert stopped == [ack(Request.SET_VRING_ENABLE)]
    assert enabled == [QueueStarted(0)]
    assert front_end.backend.queues[0].base == 9


def test_reset_owner_disables_all_queues(front_end: FrontEnd) -> None:
    """It is deprecated; that is one of two things that it may do."""
    front_end.start()
    front_end.start(1)

    assert front_end.send(message(Request.RESET_OWNER, flags=NEED_REPLY)) == [QueueStopping(0), QueueStopping(1)]
    assert front_end.did(front_end.backend.queue_stopped(1, 0)) == []
    assert front_end.did(front_end.backend.queue_stopped(0, 0)) == [ack(Request.RESET_OWNER)]
    assert not any(vring.enabled for vring in front_end.backend.queues)


def test_queue_that_was_not_to_stop_says_so_in_vain(front_end: FrontEnd) -> None:
    """An answer without a question changes nothing."""
    front_end.start()

    assert front_end.backend.queue_stopped(0, 9) == []
    assert front_end.backend.queue_stopped(99, 9) == []
    assert front_end.backend.queues[0].started


def test_kick_and_call_of_a_queue_that_runs_are_replaced(front_end: FrontEnd) -> None:
    """The old ones are closed, once who uses them knows."""
    front_end.start()
    vring = front_end.backend.queues[0]
    kick, call = the(vring.kick), the(vring.call)

    kicked = front_end.send(number(Request.SET_VRING_KICK, 0), new_kick := front_end.fd())
    called = front_end.send(number(Request.SET_VRING_CALL, 0), new_call := front_end.fd())
    polled = front_end.send(number(Request.SET_VRING_CALL, 0x100))

    assert kicked == [KickChanged(0), CloseFds((kick,))]
    assert called == [CallChanged(0), CloseFds((call,))]
    assert polled == [CallChanged(0), CloseFds((new_call,))]
    assert (vring.kick, vring.call) == (new_kick, None)


def test_broken_queue_is_told_to_who_wants_to_know(front_end: FrontEnd) -> None:
    """By its error descriptor."""
    front_end.send(number(Request.SET_VRING_ERR, 0), first := front_end.fd())
    assert front_end.send(number(Request.SET_VRING_ERR, 0), second := front_end.fd()) == [CloseFds((first,))]

    assert front_end.backend.queue_broken(0) == [Signal(second)]
    assert front_end.backend.queue_broken(1) == []
    assert front_end.backend.queue_broken(7) == []


@pytest.mark.parametrize("request_", [Request.SET_VRING_KICK, Request.SET_VRING_CALL])
def test_descriptor_that_is_no_event_is_refused(front_end: FrontEnd, request_: Request) -> None:
    """And closed; the one before stays."""
    front_end.start()
    before = front_end.backend.queues[0].fds

    closed, note, told = front_end.send(number(request_, 0, NEED_REPLY), BAD_FD)

    assert (closed, told) == (CloseFds((BAD_FD,)), ack(request_, 1))
    assert isinstance(note, Note)
    assert front_end.backend.queues[0].fds == before


# --- memory


def test_table_closes_its_descriptors(front_end: FrontEnd) -> None:
    """What they map stays."""
    fds = front_end.fd(), front_end.fd()

    assert front_end.send(table([REGION, OTHER]), *fds) == [CloseFds(fds)]
    assert front_end.backend.memory.regions == (OTHER, REGION)


def test_table_that_changes_under_a_queue_is_told(front_end: FrontEnd) -> None:
    """Its areas are where they are now."""
    front_end.start()
    moved = REGION._replace(guest_address=0x4000_0000)

    assert front_end.send(table([moved]), fd := front_end.fd()) == [MemoryChanged(), CloseFds((fd,))]
    assert front_end.backend.queues[0].driver_area == 0x4000_1000


def test_table_without_its_ring_stops_a_queue(front_end: FrontEnd) -> None:
    """The acknowledgement waits; when the region is there again the queue starts."""
    front_end.start()

    gone = front_end.send(table([OTHER], NEED_REPLY), fd := front_end.fd())
    stopped = front_end.did(front_end.backend.queue_stopped(0, 6))
    back = front_end.send(table([REGION]), other := front_end.fd())

    assert gone == [QueueStopping(0), CloseFds((fd,))]
    assert stopped == [ack(Request.SET_MEM_TABLE)]
    assert back == [QueueStarted(0), CloseFds((other,))]


def test_regions_are_added_and_removed(front_end: FrontEnd) -> None:
    """One by one; a queue in what is removed stops."""
    front_end.start()

    added = front_end.send(single(Request.ADD_MEM_REG, OTHER), first := front_end.fd())
    removed = front_end.send(single(Request.REM_MEM_REG, REGION), second := front_end.fd())

    assert added == [MemoryChanged(), CloseFds((first,))]
    assert removed == [QueueStopping(0), CloseFds((second,))]
    assert front_end.backend.memory.regions == (OTHER,)


@pytest.mark.parametrize(
    ("regions", "fd"), [([REGION, REGION], 100), ([REGION._replace(size_bytes=0)], 100), ([OTHER], BAD_FD)]
)
def test_table_that_cannot_be_leaves_the_old(front_end: FrontEnd, regions: list[Region], fd: int) -> None:
    """A queue goes on in it; descriptors are closed."""
    front_end.start()
    fds = tuple(range(fd, fd + len(regions)))

    actions = front_end.send(table(regions, NEED_REPLY), *fds)

    assert actions[0] == CloseFds(fds)
    assert actions[-1] == ack(Request.SET_MEM_TABLE, 1)
    assert front_end.backend.memory.regions == (REGION,)
    assert front_end.backend.queues[0].started


def test_failure_that_cannot_be_told_closes_the_connection() -> None:
    """The front end would go on with memory that we do not have."""
    front_end = FrontEnd()
    front_end.negotiate(protocol=0)

    actions = front_end.send(table([REGION, REGION], NEED_REPLY), front_end.fd(), front_end.fd())

    assert actions[-1] == Disconnect("region-overlap")
    assert not front_end.backend.connected
    assert not front_end.open


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


# --- requests in flight


def test_inflight_memory_is_made_and_taken_back(front_end: FrontEnd) -> None:
    """A queue that starts has its list in it."""
    size = 2 * queue_bytes(64)

    made = front_end.send(inflight(Request.GET_INFLIGHT_FD, 0, 2, 64))
    taken = front_end.send(inflight(Request.SET_INFLIGHT_FD, size, 2, 64, NEED_REPLY), 1000)
    front_end.start()
    log = front_end.backend.queues[0].log
    log.resume(0, 8)
    log.taken([3])

    fields = struct.pack("=QQHHI", size, 0, 2, 64, 0)
    assert made == [Send(reply_of(Request.GET_INFLIGHT_FD, fields), (1000,))]
    assert taken == [CloseFds((1000,)), ack(Request.SET_INFLIGHT_FD)]
    assert front_end.mapper.files[1000][16 + 16 * 3] == 1


def test_inflight_of_a_back_end_that_died_is_found(front_end: FrontEnd) -> None:
    """By the next one, from the same memory."""
    front_end.send(inflight(Request.SET_INFLIGHT_FD, 2 * queue_bytes(64), 2, 64), 500)
    front_end.start()
    front_end.backend.queues[0].log.resume(0, 8)
    front_end.backend.queues[0].log.taken([3, 1])

    second = FrontEnd()
    second.mapper.files[500] = front_end.mapper.files[500]
    second.negotiate()
    second.send(inflight(Request.SET_INFLIGHT_FD, 2 * queue_bytes(64), 2, 64), 500)
    second.start()

    assert second.backend.queues[0].log.resume(0, 8) == [3, 1]


@pytest.mark.parametrize(("queues", "size"), [(3, 8), (0, 8), (2, 0), (2, 0xFFFF)])
def test_inflight_memory_that_cannot_be_is_none(front_end: FrontEnd, queues: int, size: int) -> None:
    """A reply of zeroes: the front end does without."""
    assert front_end.send(inflight(Request.GET_INFLIGHT_FD, 0, queues, size))[-1] == Send(
        reply_of(Request.GET_INFLIGHT_FD, bytes(24))
    )


@pytest.mark.parametrize(("length", "fd"), [(queue_bytes(64), 500), (2 * queue_bytes(64), BAD_FD)])
def test_inflight_memory_that_is_too_small_is_refused(front_end: FrontEnd, length: int, fd: int) -> None:
    """Or is in no file."""
    actions = front_end.send(inflight(Request.SET_INFLIGHT_FD, length, 2, 64, NEED_REPLY), fd)

    assert actions[0] == CloseFds((fd,))
    assert actions[-1] == ack(Request.SET_INFLIGHT_FD, 1)


def test_inflight_memory_comes_before_queues_run(front_end: FrontEnd) -> None:
    """They have their lists already."""
    front_end.start()

    actions = front_end.send(inflight(Request.SET_INFLIGHT_FD, 2 * queue_bytes(64), 2, 64, NEED_REPLY), 500)

    assert actions[-1] == ack(Request.SET_INFLIGHT_FD, 1)


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
