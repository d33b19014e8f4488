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


async def test_second_hypervisor_of_one_name_replaces_the_first_which_is_told_once(hosts: HostsFactory) -> None:
    """The later life has the queue pairs; nothing of the earlier one is done any more until it begins a new life."""
    both = await hosts.up(tables({"near": verifying("hva"), "far": bundled("hvb", "echo")}))
    a, b, twin = both.at("a"), both.at("b"), both.twin("b", "a")
    first, second, disk = b.hypervisor(), twin.hypervisor(), a.controller("disk0")
    await a.console("far").expect(r"type lines")

    await twin.start("hvb")
    await first.wait_log("controller disk0 lost: fenced: epoch", NOTICE_S)
    await first.wait_log("controller tty0 lost: fenced: epoch", NOTICE_S)
    told = first.log.count("controller disk0 lost")
    await disk.wait_status(lambda s: s.content["hypervisors"] == ["hva", "hvb"])
    replaced = disk.log.count("hypervisor hvb lost: epoch")
    await first.restart()
    await second.wait_log("controller disk0 lost: fenced: epoch", NOTICE_S)
    await a.console("far").expect(r"type lines", 30.0)
    await answers(a, "far", "again")
    found = await verdict(a.guest("near"), a.console("near.hvc0"))

    assert (told, replaced) == (1, 1)
    assert (found["failed"], found["wrong"]) == (0, 0)
    assert "hypervisor hva lost" not in disk.log


async def test_kill_of_all_controllers_of_a_host_is_a_pause_for_guests_on_the_other(hosts: HostsFactory) -> None:
    """The new lives have the old addresses; what was in flight is submitted again; blocks hold what they must."""
    both = await hosts.up(tables({"far": verifying("hvb")}))
    a, far = both.at("a"), both.at("b").guest("far")
    going = await verified(far, 50)

    for name in ("disk0", "tty0"):
        a.controller(name).kill()
    await both.at("b").hypervisor().wait_log("controller disk0 lost", NOTICE_S)
    for name in ("disk0", "tty0"):
        await a.controller(name).restart()
    await verified(far, going + 50)
    await a.controller("tty0").wait_status(lambda s: s.content["hypervisors"] == ["hvb"])
    found = await verdict(far, a.console("far.hvc0"))

    assert (found["failed"], found["wrong"]) == (0, 0)
    assert far.log.count("power on") == 1
