"""The topologies that ship do what their first lines say."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.testing.live import TopologyFactory
from iovirt_dist.topology import load_topology
from tests.guests.support import BUSYBOX, UBOOT_RISCV_M, typed

DEPLOY = Path(__file__).parents[2] / "deploy"
RESULT = r"^job: result sha256=([0-9a-f]{64}) "


def tables(name: str) -> dict[str, Any]:
    """What a file says; its disk images are made anew in the test's folder."""
    return tomllib.loads((DEPLOY / name).read_text("utf-8"))


def test_every_topology_is_in_the_list_of_what_ships() -> None:
    """By its file name."""
    text = (DEPLOY / "README.md").read_text("utf-8")
    assert [path.name for path in DEPLOY.glob("*.toml") if f"`{path.name}`" not in text] == []


@pytest.mark.parametrize("name", ["two-hosts.toml", "rack.toml"])
def test_every_host_of_a_topology_has_a_part(name: str) -> None:
    """And the parts together are all of it."""
    topology = load_topology(DEPLOY / name)
    parts = [{spec.name for spec in topology.at(host).specs()} for host in topology.hosts]
    assert all(parts)
    assert sorted(spec for part in parts for spec in part) == sorted(spec.name for spec in topology.specs())


async def test_levels_do_one_job_three_times(iovirt: TopologyFactory) -> None:
    """A smaller one than the file says; the three disks are equal, so the checksums are."""
    names = ("operation", "driver", "syscall")
    smaller = {name: {"command_line": "run=job kib=64"} for name in names}
    topology = await iovirt.up(tables("levels.toml"), guest=smaller)
    found = {name: await topology.console(name).expect(RESULT, 60.0) for name in names}
    assert len({match[1] for match in found.values()}) == 1


async def test_two_guests_do_their_jobs_side_by_side(iovirt: TopologyFactory) -> None:
    """Smaller ones than the file says; and both are refused what user programs may not."""
    names = ("alice", "bob")
    smaller = {name: {"command_line": "run=job,poke kib=64"} for name in names}
    topology = await iovirt.up(tables("two-guests.toml"), guest=smaller)
    for name in names:
        await topology.console(name).expect(RESULT, 60.0)
        await topology.console(name).expect(r"^poke: 9 of 9 refused$", 60.0)


async def test_load_says_what_it_reached(iovirt: TopologyFactory) -> None:
    """For a shorter time."""
    parameters = {"seconds": 0.2, "warm_up_seconds": 0.0}
    topology = await iovirt.up(tables("load.toml"), guest={"load": {"parameters": parameters}})
    status = await topology.guest().wait_state("stopped")
    assert status.reason == "script ended"
    assert status.content["results"]["requests"] > 0
    assert "script: requests=" in topology.guest().log


async def test_driver_domain_serves_both_guests_and_is_killed_without_harm(iovirt: TopologyFactory) -> None:
    """For a shorter time than the file says: the guest OS reads its disk, the script checks what it wrote."""
    parameters = {"seconds": 2.0}
    topology = await iovirt.up(tables("driver-domain.toml"), guest={"writer": {"parameters": parameters}})
    await topology.guest("writer").wait_status(lambda status: status.content["results"].get("requests", 0) > 0)
    await topology.driver_domain().restart()
    writer = await topology.guest("writer").wait_state("stopped", 60.0)
    await topology.console("guest").expect(r"^job: read \d+ KiB", 60.0)
    found = writer.content["results"]
    assert (found["wrong"], found["failed"], found["repeats"]) == (0, 0, 0)
    assert found["checked"] > 0
    assert [process.name for process in topology.processes] == ["dom0", "hv0", "guest", "writer"]


@pytest.mark.firmware
@pytest.mark.skipif(not BUSYBOX["amd64"].is_file(), reason="no busybox: run .ci/fetch-programs")
async def test_busybox_sums_disk_and_file(iovirt: TopologyFactory) -> None:
    """Both files that the topology gives it."""
    topology = iovirt.prepare(tables("busybox.toml"), guest={"hash": {"image": str(BUSYBOX["amd64"])}})
    (topology.run_dir.path / "busybox.toml").write_bytes((DEPLOY / "busybox.toml").read_bytes())
    await topology.start()
    await topology.console().expect(r"^[0-9a-f]{64}  /dev/vda$\n^[0-9a-f]{64}  /etc/topology.toml$", 60.0)


@pytest.mark.firmware
@pytest.mark.skipif(not UBOOT_RISCV_M.is_file(), reason="no U-Boot: install the Debian package u-boot-qemu")
async def test_uboot_finds_its_virtio_disk(iovirt: TopologyFactory) -> None:
    """As the file's first lines promise."""
    topology = iovirt.prepare(tables("uboot-virt.toml"))
    await topology.start("disk0", "tty0", "hv0", "uboot")
    await topology.console("uboot").expect(r"Hit any key to stop autoboot", 30.0)
    await typed(topology, "uboot", "\r", r"^=> ")
    read = await typed(topology, "uboot", "virtio read 84000000 0 100\r", r"blocks read: \w+\s+=> ")
    assert "256 blocks read: OK" in read


@pytest.mark.firmware
@pytest.mark.skipif(not UBOOT_RISCV_M.is_file(), reason="no U-Boot: install the Debian package u-boot-qemu")
async def test_network_leases_an_address_and_serves_its_own_file(iovirt: TopologyFactory) -> None:
    """As the file's first lines promise."""
    content = tables("network.toml")
    content["controller"]["sw0"]["responder"]["tftp"] = str(DEPLOY)
    content["controller"]["sw0"]["tap"] = "sw0.pcap"
    content["controller"]["sw0"]["ports"]["bob"]["tap"] = "bob.pcap"
    topology = await iovirt.up(content)
    await topology.console("alice").expect(r"Hit any key to stop autoboot", 60.0)
    await typed(topology, "alice", "\r", r"^=> ")
    await typed(topology, "alice", "setenv autoload no\r", r"^=> ")
    await typed(topology, "alice", "dhcp\r", r"bound to address 10\.0\.0\.1\d\d[^=]*^=> ")
    size = len((DEPLOY / "network.toml").read_bytes())
    await typed(topology, "alice", "tftpboot 84000000 network.toml\r", rf"Bytes transferred = {size} [^=]*^=> ")
