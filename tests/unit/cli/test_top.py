"""``iovirt top`` without processes: looking again and again, and what is refused."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.cli.top import Watch
from iovirt_dist.errors import ConfigError
from iovirt_dist.runtime.rundir import RunDir
from iovirt_dist.runtime.status import StatusWriter
from iovirt_dist.topology import Topology
from tests.unit.cli.top_support import HOSTS, SECOND, TEXT, topology


@pytest.fixture
def known(tmp_path: Path) -> Topology:
    """A topology that is not up."""
    return topology(tmp_path)


@pytest.fixture
def disk0(known: Topology) -> StatusWriter:
    """The status file of its block controller, which is this very process."""
    run_dir = RunDir(known.run_dir)
    run_dir.create()
    return StatusWriter(run_dir, "disk0", "block", os.getpid(), time.time_ns())


def loads(*results: Topology | ConfigError) -> Callable[[], Topology]:
    """What loading gives, one time after the other."""
    left = iter(results)

    def load() -> Topology:
        result = next(left)
        if isinstance(result, ConfigError):
            raise result
        return result

    return load


def test_second_look_has_rates(known: Topology, disk0: StatusWriter) -> None:
    """By what the process said in between."""
    watch = Watch(lambda: known)
    disk0.update(0, state="running", commands=0)
    first = watch.look()
    disk0.update(2 * SECOND, state="running", commands=50)
    second = watch.look()

    assert [row.commands_per_s for row in first.controllers] == [None, None]
    assert [(row.state, row.commands_per_s) for row in second.controllers] == [("running", 25.0), ("down", None)]


def test_process_that_ends_has_no_rates_any_more(known: Topology, disk0: StatusWriter) -> None:
    """Its file is gone with it."""
    watch = Watch(lambda: known)
    disk0.update(0, state="running", commands=0)
    watch.look()
    disk0.update(SECOND, state="running", commands=50)
    watch.look()
    disk0.remove()

    assert [(row.state, row.commands_per_s) for row in watch.look().controllers] == [("down", None)] * 2


def test_guests_follow_the_topology(known: Topology, tmp_path: Path) -> None:
    """It is read again, as guests come and go; while it cannot be read, what was known stays."""
    more = topology(tmp_path, TEXT + '[guest.b]\nkind = "script"\nhypervisor = "hv0"\nscript = "x:main"\n')
    watch = Watch(loads(known, known, more, ConfigError("half written", "t.toml")))

    names = [[guest.name for guest in watch.look().guests] for _ in range(3)]

    assert names == [["a"], ["a", "b"], ["a", "b"]]


def test_hosts_that_cannot_be_asked_any_more_are_a_problem(known: Topology, tmp_path: Path) -> None:
    """What was seen last stays; who never saw anything is told at once."""
    locked = topology(tmp_path, HOSTS + '[topology]\nkeys = "none"\n')
    watch = Watch(loads(known, known, locked))

    first, second = watch.look(), watch.look()

    assert (second.guests, list(first.problems), list(second.problems)) == (first.guests, [], ["t.toml"])
    assert "no host's key is here" in second.problems["t.toml"]
    with pytest.raises(ConfigError, match="no host's key is here"):
        Watch(lambda: locked).look()


def test_topology_that_is_down_cannot_be_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what to do."""
    (tmp_path / "t.toml").write_text(TEXT)
    assert main(["top", "--file", str(tmp_path / "t.toml"), "--once"]) == 1
    assert capsys.readouterr().err == (
        f"iovirt: error: {tmp_path}/.iovirt: nothing is up; start it with 'iovirt up -d', then watch\n"
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--interval", "0"], 'iovirt: error: Invalid value "0.0" for --interval. Must be >= 0.1'),
        (["-n", "0"], 'iovirt: error: Invalid value "0" for -n. Must be >= 1'),
        (["--sort", "size"], 'iovirt: error: Invalid value "size" for --sort.'),
    ],
)
def test_wrong_options_are_usage_errors(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is looked at."""
    assert main(["top", *argv]) == 2
    assert capsys.readouterr().err.startswith(message)
