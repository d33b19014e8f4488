"""Replicas as `iovirt scale` has left them: names, places, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from iovirt_dist.errors import ConfigError
from iovirt_dist.topology import Origin, Topology, topology_from_text
from iovirt_dist.topology.load import load_running
from iovirt_dist.topology.scaling import NOT_SCALED, Scaling, read_scaling, scaling_path

HOSTS = """
[host.a]
address = "127.0.0.1"
memory = "96MiB"
[host.b]
address = "127.0.0.2"
memory = "64MiB"
[hypervisor.hv-a]
host = "a"
[hypervisor.hv-b]
host = "b"
[controller.rng0]
kind = "rng"
host = "a"
[controller.rng1]
kind = "rng"
host = "b"
"""
GROUPS = """
[guest.x]
kind = "script"
script = "m:f"
hypervisor = ["hv-a", "hv-b"]
devices.rng = "rng0"
[guest.y]
kind = "script"
script = "m:f"
hypervisor = ["hv-a", "hv-b"]
count = 2
devices.rng = "rng1"
"""


def resolve(scaling: Scaling = NOT_SCALED, text: str = HOSTS + GROUPS) -> Topology:
    """Check a topology as it was scaled."""
    return topology_from_text(text, Origin("t.toml", Path("/t.toml"), Path("/")), scaling)


def places(topology: Topology) -> dict[str, str]:
    """Hypervisors by guest."""
    return {str(guest.name): str(guest.hypervisor) for guest in topology.guests.values()}


def test_first_replica_keeps_its_name_however_many_there_are() -> None:
    """A table without a count has a guest of its own name, one with a count has numbers."""
    topology = resolve(Scaling(1, "", {"x": 2, "y": 1}))

    assert sorted(topology.guests) == ["x", "x-2", "y-1"]
    assert dict(topology.counts) == {"x": 2, "y": 1}
    assert topology.groups == {"x": "x", "x-2": "x", "y-1": "y"}
    assert topology.revision == 1


def test_table_may_have_no_guest_at_all() -> None:
    """Its controllers stay within reach of its hypervisors: it may have one again."""
    topology = resolve(Scaling(1, "", {"x": 0}))

    assert sorted(topology.guests) == ["y-1", "y-2"]
    assert topology.reach == {"hv-a": ("rng0", "rng1"), "hv-b": ("rng0", "rng1")}
    assert [spec.name for spec in topology.controllers_of("hv-b")] == ["rng0", "rng1"]


def test_guest_that_is_somewhere_stays_there() -> None:
    """Although it would be placed elsewhere now; what it takes is gone for the others, those before it included."""
    free = places(resolve())
    kept = places(resolve(Scaling(1, "", {"x": 3}, {"y-1": "hv-b", "y-2": "hv-b"})))

    assert free == {"x": "hv-a", "y-1": "hv-b", "y-2": "hv-a"}
    assert kept == {"x": "hv-a", "x-2": "hv-a", "x-3": "hv-a", "y-1": "hv-b", "y-2": "hv-b"}


def test_place_that_a_guest_may_not_have_counts_for_nothing() -> None:
    """The file may have been written by anybody."""
    assert places(resolve(Scaling(1, "", {}, {"x": "nowhere", "stranger": "hv-a"}))) == places(resolve())


def test_more_than_fits_is_refused() -> None:
    """Five guests of 32 MiB fill both hosts."""
    resolve(Scaling(1, "", {"y": 4}))

    with pytest.raises(ConfigError, match=r"guest\.y\.hypervisor: no room for 32MiB on a, b"):
        resolve(Scaling(1, "", {"y": 5}))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"revision": -1}', b'{"counts": {"x": 1025}}', b'{"more": 1}', b"\xff" * 9]
)
def test_file_that_is_none_is_as_if_it_were_not_there(tmp_path: Path, content: bytes) -> None:
    """Whatever is in it."""
    scaling_path(tmp_path).write_bytes(content)

    assert read_scaling(tmp_path) == NOT_SCALED


def test_running_topology_is_that_of_the_host_that_was_told_last(tmp_path: Path) -> None:
    """With a host chosen it is that host's file; tables that the topology has not are left out."""
    file = tmp_path / "t.toml"
    file.write_text(HOSTS + GROUPS)
    for host, scaling in (("a", Scaling(1, "", {"x": 2})), ("b", Scaling(2, "", {"x": 3, "gone": 7}))):
        folder = tmp_path / ".iovirt" / host
        folder.mkdir(parents=True)
        scaling_path(folder).write_bytes(msgspec.json.encode(scaling))

    assert load_running(file, "a").counts["x"] == 2
    assert load_running(file, "").counts == {"x": 3, "y": 2}
