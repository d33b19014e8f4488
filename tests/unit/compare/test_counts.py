"""Adding up status files."""

from __future__ import annotations

from typing import Any

from iovirt_dist.compare.counts import Counts, counts_of

TRAPS = {"port_in": 5, "doorbell": 2}


def session(messages_in: int, messages_out: int, size: int) -> dict[str, int]:
    """One end of a session."""
    return {"messages_in": messages_in, "messages_out": messages_out, "message_bytes_out": size}


def statuses() -> dict[str, dict[str, Any]]:
    """Status contents of a run that has come to rest."""
    guest = {"state": "halted", "traps": TRAPS, "guest_traps": TRAPS, "interrupts_taken": 3, **session(10, 7, 700)}
    pair = {"in_flight": 0, "completed": 4, "interrupts": 2, **session(2, 3, 300)}
    return {
        "guest": {"traps": TRAPS, **session(7, 10, 1000)},
        "hv0": {"guests": {"guest": guest}, "controllers": {"disk0": pair}},
        "disk0": {"sessions": {"hv0": session(3, 2, 200)}},
    }


def test_counts_add_both_directions_of_both_sessions() -> None:
    """Bytes are told by the end that sends."""
    assert counts_of(statuses()) == Counts(
        traps=TRAPS,
        guest_messages=17,
        guest_bytes=1700,
        disk_messages=5,
        disk_bytes=500,
        interrupts=3,
        disk_interrupts=2,
        commands=4,
    )


def test_counts_of_a_missing_status_are_none() -> None:
    """One that is not written yet."""
    without = statuses()
    del without["disk0"]

    assert counts_of(without) is None
    assert counts_of({}) is None


def test_counts_are_none_while_ends_differ() -> None:
    """A message is on its way between guest and hypervisor, hypervisor and controller; a trap is not told yet."""
    on_its_way, submitted, untold, working = statuses(), statuses(), statuses(), statuses()
    on_its_way["guest"]["messages_out"] = 11
    submitted["hv0"]["controllers"]["disk0"]["messages_out"] = 4
    untold["guest"]["traps"] = {**TRAPS, "port_in": 6}
    working["hv0"]["controllers"]["disk0"]["in_flight"] = 1

    assert [counts_of(each) for each in (on_its_way, submitted, untold, working)] == [None] * 4


def test_counts_difference_is_never_negative() -> None:
    """The run that is subtracted may have had a tick more."""
    some = Counts({"port_in": 5, "port_out": 1}, 10, 100, 3, 30, 2, 1, 1)
    idle = Counts({"port_in": 2, "port_out": 2}, 4, 40, 3, 30, 3, 1, 1)

    left = some - idle

    assert left == Counts({"port_in": 3, "port_out": 0}, 6, 60, 0, 0, 0, 0, 0)
    assert (left.all_traps, left.messages, left.wire_bytes) == (3, 6, 60)
