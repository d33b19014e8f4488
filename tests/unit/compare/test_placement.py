"""The topologies of the two placements, and their results as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.compare.placement import (
    EXTENT_BYTES,
    LOADS,
    PLACEMENTS,
    VERIFIER,
    placement_json,
    placement_topology,
    written_ranges,
)
from iovirt_dist.guest.script.load import load_plan
from iovirt_dist.guest.script.verify import verify_plan
from iovirt_dist.topology import Origin, ScriptSpec, Topology, topology_from_text
from tests.unit.compare.placements import placement


def resolved(driver: str, base: Path) -> Topology:
    """The topology of a placement."""
    text = placement_topology(driver, base, 1.0)
    return topology_from_text(text, Origin("t.toml", base / "t.toml", base))


@pytest.mark.parametrize("driver", PLACEMENTS.values())
def test_topology_has_all_three_devices_placed_there(driver: str, tmp_path: Path) -> None:
    """Nothing else differs."""
    topology = resolved(driver, tmp_path)
    assert {spec.driver for spec in topology.controllers.values()} == {driver}
    assert [spec.kind for spec in topology.controllers.values()] == ["console", "rng", "block"]
    assert set(topology.guests) == {*(load.name for load in LOADS), "idle", VERIFIER}
    assert list(topology.driver_domains) == [name for name in ("dom0",) if driver == name]


def test_topology_gives_scripts_parameters_that_they_take(tmp_path: Path) -> None:
    """A misspelt one would only be found when a guest starts."""
    for guest in resolved("native", tmp_path).guests.values():
        assert isinstance(guest, ScriptSpec)
        check = verify_plan if guest.name == VERIFIER else load_plan
        check(guest.parameters)


def test_written_ranges_are_the_extents_of_guests_that_fill_them(tmp_path: Path) -> None:
    """Their content does not depend on how fast the machine is."""
    topology = resolved("native", tmp_path)
    guest = topology.guest("write64")
    assert guest.disk is not None
    begin = guest.disk.extent.offset_bytes
    assert written_ranges() == [(begin, begin + EXTENT_BYTES)]


def test_json_is_ok_without_problems() -> None:
    """And has everything by name."""
    document = placement_json({"native": placement("native")})
    assert document["ok"]
    native = document["placements"]["native"]
    assert native["loads"]["read1"]["messages_per_request"] == 4.0
    assert native["kill"]["process"] == "disk0"
    assert native["hypervisor_side"] == {"classes": ["DiskDriver", "TerminalDriver", "EntropyDriver"], "lines": 202}
    assert not placement_json({"native": placement("native", problems=("something",))})["ok"]
