"""Controllers shared for real: hypervisors' weights, and requests that become one command."""

from __future__ import annotations

from typing import Any

from iovirt_dist.testing.live import LiveTopology, TopologyFactory

LOAD = "iovirt_dist.guest.script.load:main"
MIB = 1 << 20


def tables(guests: dict[str, str], parameters: dict[str, Any], **block: Any) -> dict[str, Any]:
    """A topology with a loaded guest for each name, at the hypervisor that it maps to."""
    extents = {name: {"offset": at * MIB, "size": MIB} for at, name in enumerate(guests)}
    disk = {"kind": "block", "image": "disk0.img", "size": len(guests) * MIB, "extents": extents, **block}
    load = {"depth": 64, "warm_up_seconds": 1.0, "interrupts": True, **parameters}
    return {
        "topology": {"lease": "2s"},
        "hypervisor": {hypervisor: {} for hypervisor in guests.values()},
        "controller": {"disk0": disk},
        "guest": {
            name: {
                "kind": "script",
                "hypervisor": hypervisor,
                "script": LOAD,
                "parameters": load,
                "devices": {"disk": f"disk0/{name}"},
            }
            for name, hypervisor in guests.items()
        },
    }


async def results(topology: LiveTopology, *names: str) -> list[dict[str, Any]]:
    """What the load generators found."""
    statuses = [await topology.guest(name).wait_state("stopped", timeout=60) for name in names]
    return [status.content["results"] for status in statuses]


async def test_sequential_writes_become_fewer_commands(iovirt: TopologyFactory) -> None:
    """What hypervisor and controller count: requests that were merged are commands that were not sent."""
    parameters = {"request": "write", "pattern": "sequential", "batch": 16, "seconds": 1.0}
    topology = await iovirt.up(tables({"a": "hv0"}, parameters, merge=True))

    (found,) = await results(topology, "a")
    status = await topology.hypervisor("hv0").wait_status(
        lambda status: status.content["controllers"]["disk0"]["merged"] > found["requests"] / 2
    )

    pair = status.content["controllers"]["disk0"]
    assert found["failed"] == 0
    assert pair["submitted"] < pair["merged"]


async def test_hypervisors_with_weights_share_a_disk(iovirt: TopologyFactory) -> None:
    """Nobody starves or fails. What their shares are depends on whether the disk is what they wait for: unit tests."""
    parameters = {"request": "write", "seconds": 1.0}
    topology = await iovirt.up(tables({"a": "hv0", "b": "hv1"}, parameters, arbitration={"hv1": 3}))

    light, heavy = await results(topology, "a", "b")
    shares = (await topology.controller("disk0").wait_running()).content["shares"]

    assert (light["failed"], heavy["failed"]) == (0, 0)
    assert min(light["requests"], heavy["requests"]) > 0
    assert {name: share["weight"] for name, share in shares.items()} == {"hv0": 1, "hv1": 3}
