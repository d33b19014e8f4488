"""`iovirt scale`: guests come and go while a topology runs, on one host and over two."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from iovirt_dist.topology.scaling import read_scaling
from tests.processes.two_hosts import TwoHosts

ONE_HOST = """
[topology]
lease = "1s"
run_dir = "."
[hypervisor.hv0]
[controller.tty0]
kind = "console"
[controller.rng0]
kind = "rng"
[guest.web]
kind = "script"
script = "iovirt_dist.guest.script.verify:main"
hypervisor = "hv0"
parameters = {{ devices = ["rng", "console"], seconds = 600.0, interval = 0.2 }}
devices = {{ rng = "rng0", virtio_console = "tty0" }}
# ports: {ports}
"""


@pytest.fixture
def two() -> Iterator[TwoHosts]:
    """Two hosts, of which nothing is up."""
    made = TwoHosts()
    yield made
    made.close()


@pytest.fixture
def one() -> Iterator[TwoHosts]:
    """A topology that names no hosts."""
    made = TwoHosts(ONE_HOST)
    yield made
    made.close()


def places(answer: dict[str, Any]) -> dict[str, str]:
    """Where guests are, by name."""
    return {name: guest["hypervisor"] for name, guest in answer["guests"].items()}


def test_scale_adds_and_removes_guests_over_two_hosts_by_their_memory(two: TwoHosts) -> None:
    """New ones do their job; what runs stays where it is; the highest numbers go first, and nothing of them is left."""
    two.up("a", "b")

    more = two.answer("scale", "load=5")
    two.wait(
        lambda: two.verified("a", "load-1", "load-3", "load-5") and two.verified("b", "load-2", "load-4"), "verified"
    )
    full = two.iovirt("scale", "load=6")
    fewer = two.answer("scale", "load=1")

    assert more["added"] == ["load-3", "load-4", "load-5"]
    assert places(more) == {"load-1": "hv-a", "load-2": "hv-b", "load-3": "hv-a", "load-4": "hv-b", "load-5": "hv-a"}
    assert full.returncode == 2
    assert "no room for 32MiB on a, b" in full.stderr
    assert fewer["removed"] == ["load-2", "load-3", "load-4", "load-5"]
    assert set(two.status("a")) == {"disk0", "tty0", "hv-a", "load-1"}
    assert set(two.status("b")) == {"hv-b"}
    assert sorted(path.name for path in two.run_dir("a").path.glob("console/*.tty")) == ["load-1.hvc0.tty"]
    assert two.verified("a", "load-1")


def test_scale_is_known_to_a_hypervisor_that_starts_anew_and_goes_with_the_topology(two: TwoHosts) -> None:
    """After SIGKILL it serves the guests that were added; after 'down' there is nothing of it."""
    two.up("a", "b")
    two.answer("scale", "load=3")
    before = two.status("a")["hv-a"]

    os.kill(before.pid, signal.SIGKILL)
    two.wait(lambda: two.status("a").get("hv-a", before).pid != before.pid, "started again")
    after = two.status("a")["hv-a"]
    two.wait(lambda: two.verified("a", "load-1", "load-3"), "verified after the restart")
    two.answer("down", "--host", "a")

    assert set(after.content["guests"]) == {"load-1", "load-3"}
    assert after.content["revision"] == 1
    assert two.run_dir("a").leftovers() == []
    assert read_scaling(two.run_dir("a").path).revision == 0
    assert read_scaling(two.run_dir("b").path).revision == 1


def test_scale_changes_nothing_if_a_host_is_away_or_has_another_file(two: TwoHosts) -> None:
    """Whoever is away is named; so is a file that was edited since."""
    two.up("a")
    away = two.iovirt("scale", "load=3")
    two.up("b")
    two.file.write_text(two.file.read_text().replace("seconds = 600.0", "seconds = 601.0"))
    edited = two.iovirt("scale", "load=3")

    assert (away.returncode, edited.returncode) == (1, 1)
    assert "host 'b' does not answer at tcp://127.0.0.2:" in away.stderr
    assert "host 'a': is up with another topology file; take it down and up again" in edited.stderr
    assert read_scaling(two.run_dir("a").path).revision == 0


def test_scale_of_one_host_down_to_nothing_and_up_again(one: TwoHosts) -> None:
    """Without hosts in the topology: the run directory is all that it takes; the same number again does nothing."""
    one.up("")

    nothing = one.answer("scale", "web=0")
    gone = set(one.status())
    three = one.answer("scale", "web=3")
    again = one.answer("scale", "web=3")
    shown = one.iovirt("scale")

    assert nothing["removed"] == ["web"]
    assert gone == {"hv0", "tty0", "rng0"}
    assert three["added"] == ["web", "web-2", "web-3"]
    assert set(one.status()) == {"hv0", "tty0", "rng0", "web", "web-2", "web-3"}
    assert (again["added"], again["removed"]) == ([], [])
    assert shown.stderr == "iovirt: web=3\n"
    assert json.loads((one.folder / "scale.json").read_bytes())["revision"] == 2


def test_scale_over_hosts_with_keys(two: TwoHosts) -> None:
    """Host control proves who it is as everybody else over tcp does; a new guest needs no new key."""
    two.file.write_text(two.file.read_text().replace('run_dir = "."', 'run_dir = "."\nkeys = "keys"'))
    two.answer("keys")
    two.up("a", "b")

    more = two.answer("scale", "load=3")
    two.wait(lambda: two.verified("a", "load-1", "load-3"), "verified")
    shutil.rmtree(two.folder / "keys")
    stranger = two.iovirt("scale", "load=1")

    assert more["added"] == ["load-3"]
    assert stranger.returncode == 2
    assert "no host's key is here; make them with 'iovirt keys'" in stranger.stderr
