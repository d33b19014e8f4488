"""What waits for a guest's machine, within bounds."""

from __future__ import annotations

from iovirt_dist.hypervisor.backlog import MAX_STORES, Backlog
from iovirt_dist.wire.messages import GuestState, Power, PowerAction, TrapKind
from tests.unit.hypervisor.support import report, trap

STORE = trap(TrapKind.MMIO_STORE, 0x1000, 4, 1)
LOAD = trap(TrapKind.MMIO_LOAD, 0x1000, 4, number=2)


def test_backlog_keeps_the_order_and_is_empty_afterwards() -> None:
    """Stores before the load before the report that counts them."""
    backlog = Backlog()
    said = report(GuestState.RUNNING)

    kept = [backlog.add(STORE, ()), backlog.add(LOAD, ()), backlog.add(said, ())]

    assert kept == [True, True, True]
    assert [body for body, _ in backlog.take()] == [STORE, LOAD, said]
    assert len(backlog) == 0


def test_backlog_full_of_stores_has_a_place_for_the_trap_that_waits() -> None:
    """A lost store is a lost store; a lost load is a guest that hangs."""
    backlog = Backlog()
    kept = sum(backlog.add(STORE, ()) for _ in range(MAX_STORES + 5))

    assert kept == MAX_STORES
    assert backlog.add(LOAD, ())
    assert backlog.take()[-1][0] is LOAD


def test_backlog_takes_one_waiting_trap_only() -> None:
    """A CPU has one; a second one is the invention of a guest process."""
    backlog = Backlog()
    backlog.add(LOAD, ())

    assert not backlog.add(LOAD, ())


def test_backlog_takes_a_waiting_trap_again_after_it_was_emptied() -> None:
    """The bound is on what waits, not on what ever waited."""
    backlog = Backlog()
    backlog.add(LOAD, ())
    backlog.take()

    assert backlog.add(LOAD, ())


def test_backlog_keeps_the_last_of_several_reports() -> None:
    """It says it all, however long the wait."""
    backlog = Backlog()
    for count in range(1000):
        backlog.add(report(GuestState.RUNNING, count), ())

    assert [body for body, _ in backlog.take()] == [report(GuestState.RUNNING, 999)]


def test_backlog_takes_neither_stores_with_payload_nor_other_messages() -> None:
    """A store has no payload, and a guest switches no power."""
    backlog = Backlog()

    assert not backlog.add(STORE, (b"x" * 4096,))
    assert not backlog.add(Power(PowerAction.RESET, ""), ())
