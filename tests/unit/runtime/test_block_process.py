"""From a topology to a block controller, and following one that is scaled."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.controllers.block.extents import Durability, Extent
from iovirt_dist.controllers.block.overlay_units import OverlaysAllowed
from iovirt_dist.runtime.block_process import BlockProcess, block_config
from iovirt_dist.topology import BlockSpec, Topology, load_topology

TOPOLOGY = """
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
durability = "write-back"
overlays = "cow"
extents.os = { size = "512KiB" }
extents.data = { offset = "512KiB", size = "512KiB", read_only = true }
[guest.w]
kind = "script"
hypervisor = "hv0"
count = COUNT
script = "x.py:main"
devices = { disk = "disk0/os", overlay = true }
"""


def _topology(folder: Path, count: int = 2) -> Topology:
    path = folder / "t.toml"
    path.write_text(TOPOLOGY.replace("COUNT", str(count)))
    return load_topology(path)


def _spec(topology: Topology) -> BlockSpec:
    spec = topology.controller("disk0")
    assert isinstance(spec, BlockSpec)
    return spec


def test_block_config_says_what_the_topology_says(tmp_path: Path) -> None:
    """With the overlays of its guests."""
    topology = _topology(tmp_path)

    config = block_config(topology, _spec(topology))

    assert (config.image, config.size_bytes, config.durability) == (tmp_path / "d.img", 1 << 20, Durability.WRITE_BACK)
    assert config.extents == (Extent("os", 0, 1 << 19), Extent("data", 1 << 19, 1 << 19, read_only=True))
    assert (config.overlays, config.allowed_overlays) == (tmp_path / "cow", frozenset({"os@w-1", "os@w-2"}))


async def test_reload_allows_the_overlays_of_the_guests_that_there_are_now(tmp_path: Path) -> None:
    """As an event for the core; no file is made before it is used."""
    topology = _topology(tmp_path)
    process = BlockProcess(topology, _spec(topology))
    hands = process.open_hands(lambda _: pytest.fail("nothing is under way"))

    event = process.reload(_topology(tmp_path, 3))
    told = process.status()
    hands.close()

    assert event == OverlaysAllowed(frozenset({"os@w-1", "os@w-2", "os@w-3"}))
    assert (told["overlays"], told["overlay_problems"]) == ([], {})
    assert not (tmp_path / "cow").exists()
