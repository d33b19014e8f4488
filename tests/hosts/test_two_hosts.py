"""Two hosts with a hypervisor each: guests on both use one disk, one terminal server and one switch over the wire."""

from __future__ import annotations

import pytest

from tests.guests.support import UBOOT_RISCV_M
from tests.hosts.conftest import HostsFactory
from tests.hosts.support import bundled, tables, uboot, uboot_prompt

NOBODY = "10.0.0.99"
CONTROL_C = b"\x03"


async def test_guests_of_two_hosts_do_their_jobs_on_one_disk(hosts: HostsFactory) -> None:
    """One is beside the disk, the other across the wire; what they read and write is the same."""
    job = "job,halt kib=256"
    both = await hosts.up(tables({"near": bundled("hva", job), "far": bundled("hvb", job)}))

    consoles = [both.at("a").console(name) for name in ("near", "far")]
    found = [await console.expect(r"^job: result sha256=([0-9a-f]{64}) ", 60.0) for console in consoles]
    disk = await both.at("a").controller("disk0").wait_running()

    assert found[0][1] == found[1][1]
    assert disk.content["hypervisors"] == ["hva", "hvb"]


@pytest.mark.skipif(not UBOOT_RISCV_M.is_file(), reason="no U-Boot: install the Debian package u-boot-qemu")
async def test_uboots_on_two_hosts_ping_each_other(hosts: HostsFactory) -> None:
    """Frames cross the wire to the switch and back; each guest answers while it waits for an answer itself."""
    both = await hosts.up(tables({"alice": uboot("hva"), "bob": uboot("hvb")}))
    alice, bob = (both.at("a").console(name) for name in ("alice", "bob"))
    await uboot_prompt(alice, "10.0.0.1")
    await uboot_prompt(bob, "10.0.0.2")

    alice.send_line(f"ping {NOBODY}")
    await alice.expect(r"^Using .* device")
    bob.send_line("ping 10.0.0.1")
    pinged = await bob.expect(r"host 10\.0\.0\.1 is (not )?alive", 30.0)
    alice.send(CONTROL_C)
    await alice.expect(r"^=> ")

    assert pinged[1] is None
