"""Guests as processes that share a disk controller: shares by weight, limits, and changes while they run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.testing.live import LiveTopology, TopologyFactory

LOAD = "iovirt_dist.guest.script.load:main"


def tables(qos: dict[str, dict[str, Any]], parameters: dict[str, Any]) -> dict[str, Any]:
    """A topology with a loaded guest for each name.

    Writes are made stable one batch after another, so that the controller is what everybody waits for, and few are in
    flight, so that guests wait in front of it.
    """
    size = 1 << 20
    extents = {name: {"offset": at * size, "size": size} for at, name in enumerate(qos)}
    block = {"kind": "block", "image": "disk0.img", "size": len(qos) * size, "depth": 16, "extents": extents}
    load = {"depth": 64, "warm_up_seconds": 1.5, "interrupts": True, **parameters}
    return {
        "topology": {"lease": "2s"},
        "hypervisor": {"hv0": {}},
        "controller": {"disk0": block},
        "guest": {
            name: {
                "kind": "script",
                "hypervisor": "hv0",
                "script": LOAD,
                "parameters": load,
                "devices": {"disk": f"disk0/{name}"},
                "qos": {"disk": share},
            }
            for name, share in qos.items()
        },
    }


async def results(topology: LiveTopology, *names: str) -> list[dict[str, Any]]:
    """What the load generators found."""
    statuses = [await topology.guest(name).wait_state("stopped", timeout=60) for name in names]
    return [status.content["results"] for status in statuses]


async def test_guests_with_weights_share_a_disk_and_both_go_on(iovirt: TopologyFactory) -> None:
    """Nobody starves and nothing fails; how much each gets is the property tests' matter, and the benchmark's."""
    parameters = {"request": "write", "seconds": 4.0}
    topology = await iovirt.up(tables({"a": {"weight": 1}, "b": {"weight": 2}}, parameters))

    light, heavy = await results(topology, "a", "b")

    assert (light["failed"], heavy["failed"]) == (0, 0)
    assert min(heavy["requests"], light["requests"]) > 0


async def test_rate_limit_holds(iovirt: TopologyFactory) -> None:
    """Never more than a thousand operations a second, and what a burst allows, of a guest that could have many more.

    That it is no less is for unit tests in virtual time and for the benchmark: here others want the CPU, too.
    """
    topology = await iovirt.up(tables({"a": {"iops": 1000}}, {"seconds": 4.0}))

    (found,) = await results(topology, "a")

    assert found["failed"] == 0
    assert found["requests"] <= 1000 * (found["seconds"] + 0.1)
    assert found["requests"] > 1000


async def test_set_changes_a_guest_that_runs_and_ps_shows_it(
    iovirt: TopologyFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command returns when it is in force, and a hypervisor that is killed has it again."""
    topology = await iovirt.up(tables({"a": {"iops": 500}}, {"seconds": 60.0, "requests": 1}))
    file = str(topology.topology.source)

    status = main(["set", "a.disk", "iops=250", "weight=3", "--file", file, "--json"])
    answer = json.loads(capsys.readouterr().out)
    hypervisor = topology.hypervisor()
    await hypervisor.restart()
    known = await hypervisor.wait_status(lambda known: known.content.get("qos_revision") == 1)
    main(["ps", "--file", file, "--json"])
    rows = {row["name"]: row["qos"] for row in json.loads(capsys.readouterr().out)["processes"]}

    assert status == 0
    assert (answer["qos"]["iops"], answer["qos"]["weight"]) == (250, 3)
    assert known.content["guests"]["a"]["qos"]["disk"]["iops"] == 250
    assert rows["a"]["disk"]["weight"] == 3
    assert rows["disk0"] is None
