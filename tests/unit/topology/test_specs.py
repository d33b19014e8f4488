"""Questions that processes and the command line ask a topology."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import Origin, Topology, topology_from_text

TEXT = """
[hypervisor.hv0]
[hypervisor.hv1]
[controller.disk0]
kind = "block"
image = "d.img"
size = "1MiB"
[controller.tty0]
kind = "console"
[guest.alice]
kind = "machine"
hypervisor = "hv0"
image = "a.elf"
payload = "p.elf"
restart = "never"
devices.console = "tty0"
devices.disk = "disk0"
[guest.bob]
kind = "machine"
machine = "pc"
hypervisor = "hv1"
image = "bundled:guestos"
devices.console = "tty0"
"""


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    """Two hypervisors, two controllers, two guests."""
    return topology_from_text(TEXT, Origin("t.toml", tmp_path / "t.toml", tmp_path))


def test_processes_come_in_starting_order_with_policy(topology: Topology) -> None:
    """Servers before clients; only guests may stay down."""
    rows = [(process.name, process.kind, process.restart) for process in topology.processes()]
    assert rows == [
        ("disk0", "block", "always"),
        ("tty0", "console", "always"),
        ("hv0", "hypervisor", "always"),
        ("hv1", "hypervisor", "always"),
        ("alice", "guest", "never"),
        ("bob", "guest", "on-failure"),
    ]
    assert topology.processes()[0].argv == (sys.executable, "-P", "-m", "services.block", "disk0")


def test_relations_follow_the_references(topology: Topology) -> None:
    """A hypervisor opens queue pairs only to controllers that its guests use."""
    assert [guest.name for guest in topology.guests_of("hv0")] == ["alice"]
    assert [controller.name for controller in topology.controllers_of("hv0")] == ["disk0", "tty0"]
    assert [controller.name for controller in topology.controllers_of("hv1")] == ["tty0"]
    assert topology.terminals_of("tty0") == ["alice", "bob"]


def test_guest_unknown_raises_and_lists_guests(topology: Topology) -> None:
    """A mistyped guest name on the command line is answered with the list."""
    with pytest.raises(ConfigError, match=r"t\.toml: no guest 'carol'; guests: alice, bob"):
        topology.guest("carol")


def test_missing_images_names_image_and_payload(topology: Topology, tmp_path: Path) -> None:
    """Each absent file is one error; a present one is none."""
    (tmp_path / "a.elf").touch()
    assert [str(error) for error in topology.missing_images()] == [
        f"guest alice: {tmp_path}/p.elf: no such image file; set payload"
    ]
