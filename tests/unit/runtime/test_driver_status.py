"""Which host-side drivers a guest has, and where they are placed."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.hypervisor.virtual_machine import VirtualMachine
from iovirt_dist.runtime.driver_status import driver_status
from iovirt_dist.topology import Origin, Topology, topology_from_text
from tests.unit.hypervisor.support import complete_bench

TEXT = """
[hypervisor.hv0]
[driver_domain.dom0]
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
driver = "dom0"
[controller.tty0]
kind = "console"
"""


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    """The disk's driver is in a domain, the terminal's is native."""
    return topology_from_text(TEXT, Origin("t.toml", tmp_path / "t.toml", tmp_path))


def vm_of_alice(*, powered: bool) -> VirtualMachine:
    """A guest with disk and terminal."""
    bench = complete_bench()
    if powered:
        bench.guest()
    return bench.core.guests["alice"].vm


def test_drivers_are_named_with_their_place(topology: Topology) -> None:
    """Native and in a domain, side by side."""
    assert driver_status(vm_of_alice(powered=True), topology) == {
        "disk": {
            "controller": "disk0",
            "driver": "dom0",
            "class": "DiskDriver",
            "module": "iovirt_dist.drivers.disk",
        },
        "console": {
            "controller": "tty0",
            "driver": "native",
            "class": "TerminalDriver",
            "module": "iovirt_dist.drivers.terminal",
        },
    }


def test_guest_without_power_has_no_driver_of_its_disk_yet(topology: Topology) -> None:
    """The terminal's outlives the machine, so it is there before it."""
    assert list(driver_status(vm_of_alice(powered=False), topology)) == ["console"]
