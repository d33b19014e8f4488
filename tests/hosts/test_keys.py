"""Who has no key that the others know gets no session, whatever its name is."""

from __future__ import annotations

from iovirt_dist.transport.keyring import make_keys
from tests.hosts.conftest import HostsFactory
from tests.hosts.support import answers, bundled, tables, verdict, verified, verifying


async def test_hypervisor_with_a_foreign_key_is_refused_and_the_right_one_served(hosts: HostsFactory) -> None:
    """The controllers count it, and go on with the others."""
    both = hosts.prepare(tables({"near": verifying("hva"), "far": bundled("hvb", "echo")}))
    a, b, foreign = both.at("a"), both.at("b"), both.twin("b", "b")
    keys = foreign.topology.keys
    assert keys is not None
    make_keys(keys, ["hvb"], renew=["hvb"])
    await a.start()

    await foreign.start("hvb")
    going = await verified(a.guest("near"), 0)
    await verified(a.guest("near"), going + 50)
    refused = await foreign.hypervisor().wait_running()
    told = await a.controller("disk0").wait_status(lambda s: s.content["refused"].get("unknown-key", 0) > 0)
    foreign.hypervisor().kill()
    await b.start()
    await a.console("far").expect(r"type lines", 30.0)
    await answers(a, "far", "known")
    found = await verdict(a.guest("near"), a.console("near.hvc0"))

    assert not refused.content["controllers"]["disk0"]["connected"]
    assert told.content["hypervisors"] == ["hva"]
    assert (found["failed"], found["wrong"]) == (0, 0)
