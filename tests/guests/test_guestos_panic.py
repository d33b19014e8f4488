"""Guests that run wild stop themselves and nothing else."""

from __future__ import annotations

from typing import Any

from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.guests.support import machine, topology_of, typed


def _beside_a_good_neighbour(how: str) -> dict[str, Any]:
    guests = {
        "wild": machine("pc", "bundled:guestos", {"console": "tty0"}, command_line=f"panic={how}"),
        "good": machine("pc", "bundled:guestos", {"console": "tty0"}, command_line="run=echo"),
    }
    return topology_of(guests)


async def _good_answers(topology: LiveTopology) -> None:
    await topology.console("good").expect(r"^echo: type lines")
    await typed(topology, "good", "fine\r", r"^echo: fine$")


async def test_triple_fault_stops_the_guest_with_its_reason_and_no_other(iovirt: TopologyFactory) -> None:
    """The guest's own status and the hypervisor's both name the triple fault; the neighbour goes on."""
    topology = await iovirt.up(_beside_a_good_neighbour("triple"))

    await topology.console("wild").expect(r"^kernel: panic=triple$")
    status = await topology.guest("wild").wait_state("stopped")
    hypervisor = await topology.hypervisor().wait_status(lambda s: s.content["guests"]["wild"]["state"] == "stopped")
    await _good_answers(topology)

    assert status.reason.startswith("triple fault at 0008:")
    assert hypervisor.content["guests"]["wild"]["reason"] == status.reason


async def test_spinning_guest_with_interrupts_off_harms_no_other_and_still_ends(iovirt: TopologyFactory) -> None:
    """A guest that never traps again stays a running guest; SIGTERM ends its process in order all the same."""
    topology = await iovirt.up(_beside_a_good_neighbour("spin"))

    await topology.console("wild").expect(r"^kernel: panic=spin$")
    await _good_answers(topology)
    await topology.guest("wild").wait_state("running")
    topology.guest("wild").terminate()
    code = await topology.guest("wild").exited()

    assert code == 0
