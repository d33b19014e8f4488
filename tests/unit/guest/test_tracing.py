"""Trace points of a guest's core."""

from __future__ import annotations

from iovirt_dist.guest.bus import IoPrivilege, SystemCallOutcome
from iovirt_dist.guest.events import (
    CompleteCall,
    CompleteTrap,
    Note,
    SetLines,
    SystemCallRaised,
    TimerFired,
    TrapRaised,
)
from iovirt_dist.guest.tracing import guest_points
from iovirt_dist.step import TracePoint
from iovirt_dist.wire.messages import TrapKind
from iovirt_dist.wire.syscall_messages import Disposition


def test_trap_that_completes_at_once_is_raised_and_completed_under_one_number() -> None:
    """Data that was sent ahead needs nobody else."""
    event = TrapRaised(TrapKind.PORT_IN, 0x1F0, 2, 1, 0, b"", IoPrivilege(0))

    points = guest_points("alice", 47, event, [CompleteTrap(5, b"", -1, 0)])

    assert points == [
        TracePoint("alice", 47, "raise", {"kind": "port_in", "address": 0x1F0, "width": 2, "count": 1, "value": 0}),
        TracePoint("alice", 47, "complete", {"value": 5, "bytes": 0, "fault": -1}),
    ]


def test_system_call_is_raised_and_completed() -> None:
    """With who made it, and how much went which way."""
    event = SystemCallRaised(4096, 3, (1, 2, 3), (0,), b"ab")
    outcome = SystemCallOutcome(Disposition.DONE, 512, (512,), bytes(512), ())

    points = [*guest_points("alice", 9, event, []), *guest_points("alice", 9, TimerFired(), [CompleteCall(outcome)])]

    assert points == [
        TracePoint("alice", 9, "raise", {"kind": "system_call", "caller": 4096, "call": 3, "bytes": 2}),
        TracePoint("alice", 9, "complete", {"result": 512, "bytes": 512, "disposition": "done"}),
    ]


def test_interrupt_lines_belong_to_no_trap() -> None:
    """What is not about I/O gives nothing."""
    points = guest_points("alice", 9, TimerFired(), [SetLines(3), Note("hello")])

    assert points == [TracePoint("alice", 0, "lines", {"asserted": 3})]
