"""The wire between hosts is cut and healed while guests work: they see a pause and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.hosts.conftest import Hosts, HostsFactory
from tests.hosts.support import NOTICE_S, tables, verdict, verified, verifying

CUT_S = 5.0

CUTS: dict[str, tuple[Callable[[Hosts], None], Callable[[Hosts], None]]] = {
    "silently": (lambda both: both.networks.cut(), lambda both: both.networks.heal()),
    "cable": (lambda both: both.networks.unplug("b"), lambda both: both.networks.plug("b")),
}
"""Ways to cut and to heal: a switch that loses everything, and a cable that is pulled."""


@pytest.mark.parametrize("way", CUTS)
async def test_guest_beyond_a_link_that_is_cut_sees_a_pause_and_no_error(hosts: HostsFactory, way: str) -> None:
    """What was in flight is resumed; all blocks hold what was acknowledged; the guest beside the disk goes on."""
    cut, heal = CUTS[way]
    both = await hosts.up(tables({"near": verifying("hva"), "far": verifying("hvb")}))
    a, b = both.at("a"), both.at("b")
    near, far, hvb = a.guest("near"), b.guest("far"), b.hypervisor("hvb")
    await verified(far, 50)

    cut(both)
    await hvb.wait_log("controller disk0 lost", NOTICE_S)
    await a.controller("disk0").wait_log("hypervisor hvb lost", NOTICE_S)
    stuck, going = await verified(far, 0), await verified(near, 0)
    await asyncio.sleep(CUT_S)  # how long the link is cut, not how long anything takes
    during, gone_on = await verified(far, 0), await verified(near, going)
    heal(both)
    await a.controller("disk0").wait_log("hypervisor hvb is back", NOTICE_S)
    await verified(far, during + 50)
    results = {name: await verdict(guest, a.console(f"{name}.hvc0")) for name, guest in (("near", near), ("far", far))}

    assert during - stuck <= 8
    assert gone_on > going
    assert [(found["failed"], found["wrong"]) for found in results.values()] == [(0, 0), (0, 0)]
    assert results["far"]["pause_ms"]["disk"] > 1000 * CUT_S
    assert results["near"]["pause_ms"]["disk"] < 1000 * CUT_S
    assert far.log.count("power on") == 1
