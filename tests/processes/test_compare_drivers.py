"""``iovirt compare --drivers`` on real processes."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PATIENCE_S = 200
SERVERS = {"native": 3, "driver_domain": 1}


@pytest.fixture(scope="module")
def placements() -> dict[str, Any]:
    """What the command found; it must end well, so no request failed, no read was wrong, and the disks are equal."""
    command = (sys.executable, "-m", "iovirt_dist.cli.main", "compare", "--drivers", "--json")
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["placements"]
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
