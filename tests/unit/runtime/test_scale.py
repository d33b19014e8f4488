"""What `iovirt scale` decides before anything is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.scale import make_change, parse_counts, plan_change
from iovirt_dist.runtime.scale_file import write_scaling
from iovirt_dist.runtime.status import StatusWriter
from iovirt_dist.topology import Topology, load_topology
from iovirt_dist.topology.scaling import Scaling, read_scaling

TEXT = """
[hypervisor.hv0]
[hypervisor.hv1]
[controller.rng0]
kind = "rng"
[controller.rng1]
kind = "rng"
[controller.disk-1]
kind = "block"
image = "1.img"
size = "1MiB"
[controller.disk-2]
kind = "block"
image = "2.img"
size = "1MiB"
[guest.web]
kind = "script"
script = "iovirt_dist.guest.script.verify:main"
hypervisor = ["hv0", "hv1"]
count = 2
devices.rng = "rng0"
[guest.own]
kind = "script"
script = "iovirt_dist.guest.script.verify:main"
hypervisor = "hv0"
devices.disk = "disk-{n}"
"""


@pytest.fixture
def topology(tmp_path: Path) -> Topology:
    """A topology that is up, as its supervisor tells."""
    file = tmp_path / "t.toml"
    file.write_text(TEXT)
    topology = load_topology(file)
    run_dir = RunDir(topology.run_dir)
    run_dir.create()
    StatusWriter(run_dir, SUPERVISOR, "supervisor", 1, 1).update(1, digest=topology.digest)
    return topology


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("web", "'web': expected NAME=N; such as guest=4"),
        ("wbe=1", "'wbe=1': no guest table 'wbe'; did you mean 'web'?"),
        ("web-1=1", r"'web-1=1': no guest table 'web-1'; it is one of \[guest.web\]"),
        ("web=-1", "'web=-1': expected a number from 0 to 1024, got '-1'"),
        ("web=1025", "got '1025'"),
        ("web=99999999", "got '99999999'"),
        ("web=²", "got '²'"),
        ("web=", "got ''"),
    ],
)
def test_word_that_is_no_count_is_a_line(topology: Topology, word: str, message: str) -> None:
    """What, where and what to do."""
    with pytest.raises(ConfigError, match=message):
        parse_counts([word], topology)


def test_change_names_who_comes_and_who_goes(topology: Topology) -> None:
    """Hosts are told the whole: what was scaled before, and where everybody is."""
    make_change(topology, plan_change(topology, {"web": 1}))
    change = plan_change(topology, {"web": 3, "own": 0})
    make_change(topology, change)

    assert (change.added, change.removed) == (["web-2", "web-3"], ["own"])
    scaling = read_scaling(topology.run_dir)
    assert scaling.revision == 2
    assert scaling.counts == {"web": 3, "own": 0}
    assert set(scaling.places) == {"web-1", "web-2", "web-3"}


def test_same_counts_change_nothing(topology: Topology) -> None:
    """No host is told anything."""
    change = plan_change(topology, {"web": 2})
    make_change(topology, change)

    assert change.scaling is None
    assert read_scaling(topology.run_dir).revision == 0


def test_controller_that_the_hypervisor_does_not_use_yet_is_refused(topology: Topology) -> None:
    """Queue pairs are made when a hypervisor starts."""
    with pytest.raises(ConfigError, match="guest 'own-2' needs controller 'disk-2', which 'hv0' does not use yet"):
        plan_change(topology, {"own": 2})


def test_slower_of_two_commands_ends_without_a_change(topology: Topology) -> None:
    """It has seen a revision that is not the last one any more."""
    change = plan_change(topology, {"web": 5})
    write_scaling(RunDir(topology.run_dir), 0, Scaling(1, topology.digest, {"web": 1}))

    with pytest.raises(LocalError, match="somebody else scales it; try again"):
        make_change(topology, change)
    assert read_scaling(topology.run_dir).counts == {"web": 1}


def test_topology_that_is_not_up_is_a_line(tmp_path: Path) -> None:
    """There is nobody to tell."""
    file = tmp_path / "t.toml"
    file.write_text(TEXT)

    with pytest.raises(LocalError, match="the topology is not up in"):
        plan_change(load_topology(file), {"web": 1})
