"""Trace points of the hypervisor among its other actions."""

from __future__ import annotations

from iovirt_dist.hypervisor.events import SendToController, SendToGuest
from iovirt_dist.step import TracePoint
from tests.unit.hypervisor.support import complete_bench
from tests.unit.hypervisor.test_core import read_sector


def test_point_precedes_the_message_that_others_answer() -> None:
    """A time stamp is taken when the action is performed: cause before effect, also for a process that is slow."""
    bench = complete_bench()
    guest = bench.guest()
    guest.inb(0x1F7)
    bench.core.trace(on=True)
    del bench.performed[:]

    read_sector(guest)

    def first(wanted: object) -> int:
        return next(at for at, action in enumerate(bench.performed) if wanted in (type(action), label(action)))

    assert first("trap") < first("submit") < first(SendToController)
    assert first("trap") < first(SendToGuest)


def label(action: object) -> str:
    """Event of a trace point; empty for other actions."""
    return action.event if isinstance(action, TracePoint) else ""
