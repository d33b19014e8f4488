"""The back end: rings, message by message."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.gateway.vhost_user.actions import (
    CallChanged,
    CloseFds,
    Disconnect,
    KickChanged,
    Note,
    QueueStarted,
    QueueStopping,
    Send,
    Signal,
)
from iovirt_dist.gateway.vhost_user.messages import NEED_REPLY, Region, Request
from tests.unit.gateway.vhost_user.front_end import (
    BAD_FD,
    GUEST,
    PROTOCOL,
    REGION,
    USER,
    VERSION_1,
    FrontEnd,
    ack,
    address,
    config,
    message,
    number,
    reply_of,
    state,
    table,
    the,
    u64,
)

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
