"""What run directories tell, merged over hosts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from iovirt_dist.runtime.rundir import SUPERVISOR, RunDir
from iovirt_dist.runtime.status import ProcessStatus, StatusWriter
from iovirt_dist.runtime.view import View, merge_views, view_run_dir, view_topology
from tests.unit.cli.top_support import HOSTS
from tests.unit.cli.top_support import topology as checked


def written(folder: Path, name: str, **content: Any) -> StatusWriter:
    """The status file of a process, which is this very one."""
    run_dir = RunDir(folder)
    run_dir.create()
    writer = StatusWriter(run_dir, name, "hypervisor", 1, time.time_ns())
    writer.update(time.time_ns(), **content)
    return writer


def dead(name: str) -> ProcessStatus:
    """A status that a process left behind."""
    return ProcessStatus(name=name, pid=1 << 30, start_ticks=1, state="running")


def test_run_dir_that_does_not_exist_tells_nothing(tmp_path: Path) -> None:
    """Nothing was ever up there."""
    assert view_run_dir(RunDir(tmp_path / "none")) == View()


def test_view_tells_the_living_from_the_dead(tmp_path: Path) -> None:
    """By process number and start time."""
    written(tmp_path, "hv0", state="running")
    (tmp_path / "status" / "hv1.json").write_text('{"name":"hv1","pid":1073741824,"start_ticks":1}')

    view = view_run_dir(RunDir(tmp_path))

    assert set(view.statuses) == {"hv0", "hv1"}
    assert (set(view.alive), set(view.living())) == ({"hv0"}, {"hv0"})


def test_view_has_the_supervisors_rows(tmp_path: Path) -> None:
    """Those that are rows."""
    written(tmp_path, SUPERVISOR, processes={"hv0": {"restarts": 2}, "hv1": 7})
    assert view_run_dir(RunDir(tmp_path)).supervised == {"hv0": {"restarts": 2}}


def test_malformed_files_tell_nothing(tmp_path: Path) -> None:
    """No traceback for whoever looks, however deep it is nested."""
    written(tmp_path, SUPERVISOR, processes=[1])
    (tmp_path / "status" / "hv0.json").write_text('{"name":7}')
    (tmp_path / "status" / "hv1.json").write_text('{"x":' * 100_000)
    assert view_run_dir(RunDir(tmp_path)) == View()


def test_merged_view_prefers_the_living() -> None:
    """A host may hold the leftovers of a process that runs on another one now."""
    alive = ProcessStatus(name="hv0", pid=1, state="running")
    here = View({"hv0": alive}, frozenset({"hv0"}), {"hv0": {"restarts": 1}})
    there = View({"hv0": dead("hv0"), "hv1": dead("hv1")})

    assert merge_views([here, there]) == merge_views([there, here])
    assert merge_views([here, there]).living() == {"hv0": alive}
    assert set(merge_views([here, there]).statuses) == {"hv0", "hv1"}


def test_topology_is_seen_on_all_hosts_that_are_here(tmp_path: Path) -> None:
    """As with network namespaces; a host's own part sees only itself."""
    topology = checked(tmp_path, HOSTS)
    written(topology.at("a").run_dir, "hv0", state="running")
    written(topology.at("b").run_dir, "hv1", state="running")

    assert view_topology(topology).alive == {"hv0", "hv1"}
    assert view_topology(topology.at("b")).alive == {"hv1"}
