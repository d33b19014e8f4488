"""Two hosts with a hypervisor each: guests on both use one disk, one terminal server and one switch over the wire."""

from __future__ import annotations

from typing import Any

import pytest

from tests.guests.support import UBOOT_RISCV_M, machine
from tests.hosts.conftest import HostsFactory

MIB = 1 << 20
NOBODY = "10.0.0.99"
CONTROL_C = b"\x03"


def tables(guests: dict[str, Any], **topology: Any) -> dict[str, Any]:
    """Hypervisors hva and hvb; disk0 and tty0 on host a, sw0 on host b; an extent of 1 MiB for each guest."""
    extents = {name: {"offset": at * MIB, "size": MIB} for at, name in enumerate(guests)}
    disk = {"kind": "block", "image": "disk0.img", "size": len(guests) * MIB, "extents": extents}
    return {
        "topology": topology,
        "hypervisor": {"hva": {"host": "a"}, "hvb": {"host": "b"}},
        "controller": {
            "disk0": {**disk, "host": "a"},
            "tty0": {"kind": "console", "host": "a"},
            "sw0": {"kind": "net", "host": "b"},
        },
        "guest": guests,
    }


def bundled(hypervisor: str, job: str) -> dict[str, Any]:
    """The bundled OS on a hypervisor."""
    devices = {"disk": "disk0/{name}", "console": "tty0"}
    keys = {"hypervisor": hypervisor, "command_line": f"run={job}"}
    return machine("pc", "bundled:guestos", devices, **keys)


def uboot(hypervisor: str) -> dict[str, Any]:
    """U-Boot with a card."""
    devices = {"console": "tty0", "net": "sw0", "disk": "disk0/{name}"}
    return machine("virt", UBOOT_RISCV_M, devices, memory="128MiB", hypervisor=hypervisor)


async def test_guests_of_two_hosts_do_their_jobs_on_one_disk(hosts: HostsFactory) -> None:
    """One is beside the disk, the other across the wire; what they read is the same."""
    both = await hosts.up(tables({"near": bundled("hva", "job,halt"), "far": bundled("hvb", "job,halt")}))

    results = [
        await both.at("a").console(name).expect(r"^job: result sha256=([0-9a-f]{64}) ", 60.0)
        for name in ("near", "far")
    ]

    assert results[0][1] == results[1][1]
    status = both.at("a").controller("disk0").status()
    assert status is not None
    assert status.content["hypervisors"] == ["hva", "hvb"]


@pytest.mark.skipif(not UBOOT_RISCV_M.is_file(), reason="no U-Boot: install the Debian package u-boot-qemu")
async def test_uboots_on_two_hosts_ping_each_other(hosts: HostsFactory) -> None:
    """Each answers while it waits for an answer itself."""
    both = await hosts.up(tables({"alice": uboot("hva"), "bob": uboot("hvb")}))
    alice, bob = both.at("a").console("alice"), both.at("a").console("bob")
    for console, address in ((alice, "10.0.0.1"), (bob, "10.0.0.2")):
        await console.expect(r"Hit any key to stop autoboot", 60.0)
        console.send_line("")
        await console.expect(r"^=> ")
        console.send_line(f"setenv ipaddr {address}")
        await console.expect(r"^=> ")

    alice.send_line(f"ping {NOBODY}")
    await alice.expect(r"^Using .* device")
    bob.send_line("ping 10.0.0.1")
    pinged = await bob.expect(r"host 10\.0\.0\.1 is (not )?alive", 30.0)

    assert pinged[1] is None
    alice.send(CONTROL_C)
    await alice.expect(r"^=> ")
