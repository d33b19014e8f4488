"""Adding up the status files of a placement."""

from __future__ import annotations

from typing import Any

import pytest

from iovirt_dist.compare.placement_counts import (
    Passed,
    agreed,
    classes_of,
    code_of,
    devices_of,
    passed,
    servers_of,
    since,
)


def session(messages_in: int, messages_out: int) -> dict[str, int]:
    """One end of a session."""
    return {"messages_in": messages_in, "messages_out": messages_out}


def both(placement: str) -> dict[str, dict[str, Any]]:
    """Statuses of a guest that used its disk, in either placement."""
    disk = {"sessions": {"hv0": session(30, 20)}}
    others = {"sessions": {"hv0": session(0, 0)}}
    hypervisor = {
        "cpu_ns": 700,
        "guests": {"a": session(10, 12), "b": session(99, 99)},
        "controllers": {"disk0": session(20, 30), "tty0": session(0, 0), "rng0": session(0, 0)},
    }
    served: dict[str, dict[str, Any]] = {
        "native": {"disk0": {**disk, "cpu_ns": 50}, "tty0": {**others, "cpu_ns": 1}, "rng0": {**others, "cpu_ns": 2}},
        "dom0": {"dom0": {"cpu_ns": 53, "devices": {"disk0": disk, "tty0": others, "rng0": others}}},
    }
    return {"a": {"cpu_ns": 9, **session(12, 10)}, "hv0": hypervisor, **served[placement]}


def test_servers_are_the_controllers_or_the_domain() -> None:
    """By controller."""
    assert servers_of(both("native")) == {"disk0": "disk0", "tty0": "tty0", "rng0": "rng0"}
    assert servers_of(both("dom0")) == dict.fromkeys(("disk0", "tty0", "rng0"), "dom0")


@pytest.mark.parametrize("placement", ["native", "dom0"])
def test_devices_tell_the_same_wherever_they_are(placement: str) -> None:
    """A domain's status has a part for each."""
    assert devices_of(both(placement))["disk0"]["sessions"] == {"hv0": session(30, 20)}


def test_passed_counts_each_message_at_both_ends() -> None:
    """Of one guest, and of all devices; the domain's are one process."""
    native, domain = passed(both("native"), "a"), passed(both("dom0"), "a")
    assert native.messages == {"a": 22, "hv0": 72, "disk0": 50, "tty0": 0, "rng0": 0}
    assert domain.messages == {"a": 22, "hv0": 72, "dom0": 50}
    assert domain.cpu_ns == {"a": 9, "hv0": 700, "dom0": 53}


def test_passed_of_a_guest_that_is_not_there_is_nothing_of_its_own() -> None:
    """The way to the devices has been used by others."""
    before = passed({name: status for name, status in both("dom0").items() if name != "a"}, "a")
    assert before.messages["a"] == 0
    assert since(passed(both("dom0"), "a"), before) == Passed(
        {"a": 22, "hv0": 0, "dom0": 0}, {"a": 9, "hv0": 0, "dom0": 0}
    )


@pytest.mark.parametrize("placement", ["native", "dom0"])
def test_agreed_only_when_both_ends_of_both_sessions_tell_the_same(placement: str) -> None:
    """Otherwise something is on its way, or one file is older."""
    statuses = both(placement)
    assert agreed(statuses, "a")
    assert not agreed({**statuses, "a": session(12, 11)}, "a")
    assert not agreed({name: one for name, one in statuses.items() if name != "hv0"}, "a")
    statuses["hv0"]["controllers"]["disk0"] = session(19, 30)
    assert not agreed(statuses, "a")


def test_code_counts_each_module_once() -> None:
    """Two classes of one module."""
    module = "iovirt_dist.drivers.disk"
    one = code_of({"DiskDriver": module})
    assert one.lines > 40
    assert code_of({"DiskDriver": module, "Other": module}).lines == one.lines


def test_classes_of_a_hypervisors_drivers_are_named_once() -> None:
    """A guest may have two terminals."""
    row = {"class": "TerminalDriver", "module": "iovirt_dist.drivers.terminal"}
    assert classes_of([row, row]) == {"TerminalDriver": "iovirt_dist.drivers.terminal"}
