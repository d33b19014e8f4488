"""`deploy/virtual-machines.toml` does what its first lines say."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from iovirt_dist.testing.live import TopologyFactory
from tests.guests.linux_vm import Shell
from tests.guests.support import E2FSCK, MKE2FS, needs, needs_vmm

pytestmark = [*needs(MKE2FS, E2FSCK), needs_vmm("uml"), needs_vmm("qemu"), pytest.mark.timeout(600)]

DEPLOY = Path(__file__).parents[2] / "deploy"


async def test_machines_of_both_vmms_reach_each_other_over_the_switch(
    iovirt: TopologyFactory, uml_initrd: Path, plain_initrd: Path
) -> None:
    """And the disk of the third guest is there for NBD clients."""
    document = tomllib.loads((DEPLOY / "virtual-machines.toml").read_text("utf-8"))
    guests = {"alice": {"initrd": str(uml_initrd)}, "bob": {"initrd": str(plain_initrd)}}
    topology = await iovirt.up(document, guest=guests)
    alice, bob = Shell(topology, "alice"), Shell(topology, "bob")
    await alice.ready()
    await bob.ready()
    await alice.run("ip addr add 10.0.0.2/24 dev eth0")
    await bob.run("ip addr add 10.0.0.3/24 dev eth0")

    echoes = await bob.run("ping -c 3 10.0.0.2")

    assert "3 packets transmitted, 3 packets received" in echoes
    assert (await topology.guest("share").wait_state("running")).reason.startswith("nbd+unix:///share?")
