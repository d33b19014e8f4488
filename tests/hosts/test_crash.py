"""Processes of one host die, or appear a second time; the other host's go on."""

from __future__ import annotations

from tests.hosts.conftest import HostsFactory
from tests.hosts.support import NOTICE_S, answers, bundled, tables, verdict, verified, verifying


async def test_kill_of_a_hypervisor_reboots_its_guests_and_leaves_the_other_hosts_alone(hosts: HostsFactory) -> None:
    """The controllers on the other host notice, and serve the new life."""
    both = await hosts.up(tables({"near": verifying("hva"), "far": bundled("hvb", "echo")}))
    a, b = both.at("a"), both.at("b")
    await a.console("far").expect(r"type lines")
    await answers(a, "far", "before")

    b.hypervisor().kill()
    await a.controller("disk0").wait_log("hypervisor hvb lost", NOTICE_S)
    await b.guest("far").wait_log("hypervisor hvb lost", NOTICE_S)
    going = await verified(a.guest("near"), 0)
    await verified(a.guest("near"), going + 50)
    await b.hypervisor().restart()
    await a.console("far").expect(r"type lines", 30.0)
    await answers(a, "far", "after")
    found = await verdict(a.guest("near"), a.console("near.hvc0"))

    assert (found["failed"], found["wrong"]) == (0, 0)
    assert "hypervisor hva lost" not in a.controller("disk0").log
