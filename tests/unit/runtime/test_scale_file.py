"""The file of `iovirt scale`: one writer at a time, and processes that follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.scale_file import ScalingFollower, write_scaling
from iovirt_dist.testing.documents import write_topology
from iovirt_dist.topology import Topology
from iovirt_dist.topology.scaling import Scaling, read_scaling


class Bench:
    """A topology that is up, and a process that follows it.

    Attributes:
        applied: The counts of each topology that the process was given.
    """

    def __init__(self, folder: Path) -> None:
        self.topology = write_topology(None, folder, {"guest": {"guest": {"devices": {"disk": ""}}}})
        self.run_dir = RunDir(self.topology.run_dir)
        self.run_dir.create()
        self.applied: list[dict[str, int]] = []
        self.follower = self.follow(lambda topology: self.applied.append(dict(topology.counts)))

    def follow(self, apply: Callable[[Topology], None]) -> ScalingFollower:
        """Another process."""
        return ScalingFollower(self.topology, apply)

    def scale(self, revision: int, count: int, digest: str = "") -> bool:
        """What ``iovirt scale`` does, from the revision before."""
        scaling = Scaling(revision, digest or self.topology.digest, {"guest": count})
        return write_scaling(self.run_dir, revision - 1, scaling)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Nothing was scaled."""
    return Bench(tmp_path)


def test_change_is_followed_once(bench: Bench) -> None:
    """A look without a change costs nothing."""
    before = bench.follower.poll()
    bench.scale(1, 3)
    first, second = bench.follower.poll(), bench.follower.poll()

    assert (before, first, second) == (False, True, False)
    assert bench.applied == [{"guest": 3}]
    assert bench.follower.status() == {"revision": 1}
    assert list(bench.follower.topology.guests) == ["guest", "guest-2", "guest-3"]


def test_slower_of_two_changes_is_refused(bench: Bench) -> None:
    """It was made from a revision that is not the last one any more; nothing is changed."""
    first, second = bench.scale(1, 2), bench.scale(1, 5)

    assert (first, second) == (True, False)
    assert read_scaling(bench.run_dir.path).counts == {"guest": 2}


def test_change_of_another_topology_file_is_not_followed(bench: Bench) -> None:
    """It says so in the status until a change comes that it can follow."""
    bench.scale(1, 2, digest="other")
    bench.follower.poll()
    told = bench.follower.status()
    bench.scale(2, 2)
    bench.follower.poll()

    assert told["revision"] == 0
    assert "the topology file was changed since the topology came up" in str(told["scale_problem"])
    assert bench.follower.status() == {"revision": 2}


def test_process_that_cannot_follow_says_why_and_stays_as_it_is(bench: Bench) -> None:
    """Its topology is the one that it serves."""

    def refuse(_: Topology) -> None:
        raise ConfigError("no queue pair", "hv0")

    follower = bench.follow(refuse)
    bench.scale(1, 2)

    assert not follower.poll()
    assert follower.status() == {"revision": 0, "scale_problem": "hv0: no queue pair"}
    assert list(follower.topology.guests) == ["guest"]


def test_file_goes_with_the_topology(bench: Bench) -> None:
    """As sockets and status files do."""
    bench.scale(1, 2)

    assert [path.name for path in bench.run_dir.leftovers()] == ["scale.json"]
    assert bench.run_dir.clean()
    assert read_scaling(bench.run_dir.path).revision == 0


def test_run_directory_that_is_not_there_is_a_line(tmp_path: Path) -> None:
    """Nothing is up there."""
    with pytest.raises(LocalError, match="is the topology up"):
        write_scaling(RunDir(tmp_path / "none"), 0, Scaling(1))
