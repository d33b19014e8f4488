"""What ``iovirt compare --drivers`` measures, on real processes; the command itself is the README's."""

from __future__ import annotations

from typing import Any

import pytest

from iovirt_dist.cli.compare_drivers import compare_drivers
from iovirt_dist.compare.placement import placement_json

PATIENCE_S = 200
LOAD_S = 0.3
SERVERS = {"native": 3, "driver_domain": 1}


@pytest.fixture(scope="module")
def placements() -> dict[str, Any]:
    """What was found: no request failed, no read was wrong, and the disks are equal."""
    results = compare_drivers(LOAD_S, lambda _: None)
    assert {name: result.problems for name, result in results.items()} == dict.fromkeys(SERVERS, ())
    found: dict[str, Any] = placement_json(results)["placements"]
    return found


@pytest.mark.timeout(PATIENCE_S + 40)
@pytest.mark.parametrize("name", SERVERS)
def test_request_takes_four_messages_through_three_processes_in_either_placement(
    placements: dict[str, Any], name: str
) -> None:
    """Doorbell, submit, complete, completions: what differs is how many processes serve how many devices."""
    found = placements[name]
    assert found["loads"]["read1"]["requests"] > 0
    assert found["loads"]["read1"]["messages_per_request"] == pytest.approx(4, abs=0.5)
    assert found["loads"]["read1"]["processes"] == 3
    assert found["device_processes"] == SERVERS[name]
    assert found["processes_of_three_devices"] == 2 + SERVERS[name]
    assert found["device_rss_bytes"] > SERVERS[name] << 20


def test_drivers_on_both_sides_are_named_and_counted(placements: dict[str, Any]) -> None:
    """One command protocol, so the hypervisor's classes are the same; only the domain uses the host's drivers."""
    native, domain = placements["native"], placements["driver_domain"]
    assert native["hypervisor_side"] == domain["hypervisor_side"]
    assert native["hypervisor_side"]["classes"] == ["DiskDriver", "TerminalDriver", "EntropyDriver"]
    assert native["hypervisor_side"]["lines"] > 100
    assert (native["host_drivers"], domain["host_drivers"]) == ([], ["files", "pseudo-terminals", "getrandom"])


def test_crash_takes_one_device_natively_and_all_of_a_domain_and_loses_nothing(placements: dict[str, Any]) -> None:
    """The guest waits for what is gone; requests in flight are submitted again."""
    native, domain = placements["native"]["kill"], placements["driver_domain"]["kill"]
    assert (native["process"], native["devices"]) == ("disk0", ["disk"])
    assert (domain["process"], domain["devices"]) == ("dom0", ["disk", "console", "rng"])
    for kill in (native, domain):
        assert kill["errors"] == 0
        assert kill["checked"] > 0
        assert kill["resubmitted"] > 0
        assert kill["pause_ms"]["disk"] > 100
    assert domain["pause_ms"]["rng"] > 100
