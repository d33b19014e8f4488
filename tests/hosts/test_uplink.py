"""A switch with an uplink: the host's own network stack talks to guests through a TAP interface."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.testing.processes import eventually
from tests.guests.support import UBOOT_RISCV_M, machine
from tests.hosts.conftest import Hosts, HostsFactory
from tests.hosts.networks import ip
from tests.hosts.support import NOTICE_S, uboot_prompt

UPLINK = "guests0"
HOST, GUEST = "10.0.0.1", "10.0.0.2"


def tables(**switch: Any) -> dict[str, Any]:
    """One U-Boot on a switch with an uplink and a built-in host at 10.0.0.9."""
    devices = {"console": "tty0", "net": "sw0"}
    responder = {"address": "10.0.0.9/24"}
    return {
        "hypervisor": {"hv0": {}},
        "controller": {
            "tty0": {"kind": "console"},
            "sw0": {"kind": "net", "uplink": UPLINK, "mtu": 1400, "responder": responder, **switch},
        },
        "guest": {"alice": machine("virt", UBOOT_RISCV_M, devices, memory="128MiB")},
    }


def on_host(alone: Hosts, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the host's network."""
    enter = alone.networks.enter("a")
    return subprocess.run([*enter, *command], capture_output=True, text=True, timeout=30, check=False)


def give_address(alone: Hosts) -> None:
    """Do what the user of an uplink does once it is there."""
    ip("-n", alone.networks.namespace("a"), "address", "add", f"{HOST}/24", "dev", UPLINK)


@pytest.mark.skipif(not UBOOT_RISCV_M.is_file(), reason="no U-Boot: install the Debian package u-boot-qemu")
async def test_uboot_pings_the_host_and_the_host_pings_what_is_on_the_switch(hosts: HostsFactory) -> None:
    """The host's interface has the switch's MTU; its `ping` reaches the built-in host and a U-Boot that listens."""
    alone = await hosts.up(tables(), ("a",))
    live = alone.at("a")
    give_address(alone)
    alice = live.console("alice")
    await uboot_prompt(alice, GUEST)

    alice.send_line(f"ping {HOST}")
    pinged = await alice.expect(rf"host {HOST} is (not )?alive", 30.0)
    built_in = on_host(alone, "ping", "-c", "1", "-W", "10", "10.0.0.9")
    alice.send_line("ping 10.0.0.99")
    await alice.expect(r"^Using .* device")
    guest = on_host(alone, "ping", "-c", "1", "-W", "10", GUEST)

    assert pinged[1] is None
    assert (built_in.returncode, guest.returncode) == (0, 0), f"{built_in}\n{guest}"
    assert "mtu 1400" in ip("-n", alone.networks.namespace("a"), "link", "show", UPLINK)
    switch = await live.controller("sw0").wait_status(lambda s: s.content["ports"]["(uplink)"]["frames_in"] > 3)
    assert switch.content["uplink"] == {"interface": UPLINK, "up": True, "dropped": 0}


async def test_uplink_comes_and_goes_with_the_switch(hosts: HostsFactory) -> None:
    """Also when it is killed; the next life makes it again."""
    alone = hosts.prepare(tables(), ("a",))
    switch = alone.at("a").controller("sw0")
    await alone.at("a").start("sw0")

    there = on_host(alone, "ip", "link", "show", UPLINK).returncode
    switch.kill()
    await eventually(lambda: on_host(alone, "ip", "link", "show", UPLINK).returncode != 0, NOTICE_S, lambda: "it stays")
    await switch.restart()
    give_address(alone)
    pinged = on_host(alone, "ping", "-c", "1", "-W", "10", "10.0.0.9")

    assert (there, pinged.returncode) == (0, 0)


async def test_uplink_of_a_switch_in_a_driver_domain_is_the_same(hosts: HostsFactory) -> None:
    """One of the host's own drivers that the domain uses; killed, it makes the interface again."""
    alone = hosts.prepare({**tables(driver="dom0"), "driver_domain": {"dom0": {}}}, ("a",))
    domain = alone.at("a").process("dom0")
    await alone.at("a").start("dom0")

    give_address(alone)
    pinged = on_host(alone, "ping", "-c", "1", "-W", "10", "10.0.0.9")
    await domain.restart()
    give_address(alone)
    pinged_again = on_host(alone, "ping", "-c", "1", "-W", "10", "10.0.0.9")

    assert (pinged.returncode, pinged_again.returncode) == (0, 0)


async def test_uplink_that_is_deleted_is_a_link_that_is_down_until_it_is_back(hosts: HostsFactory) -> None:
    """Here by whoever owned it; the switch looks for it, and does not make it itself."""
    alone = hosts.prepare(tables(), ("a",))
    inside = alone.networks.namespace("a")
    ip("-n", inside, "tuntap", "add", "dev", UPLINK, "mode", "tap")
    ip("-n", inside, "link", "set", "dev", UPLINK, "up")
    await alone.at("a").start("sw0")
    switch = alone.at("a").controller("sw0")

    ip("-n", inside, "link", "del", UPLINK)
    await switch.wait_status(lambda s: not s.content["uplink"]["up"])
    absent = on_host(alone, "ip", "link", "show", UPLINK).returncode
    ip("-n", inside, "tuntap", "add", "dev", UPLINK, "mode", "tap")
    ip("-n", inside, "link", "set", "dev", UPLINK, "up")
    await switch.wait_status(lambda s: bool(s.content["uplink"]["up"]))
    give_address(alone)
    pinged = on_host(alone, "ping", "-c", "1", "-W", "10", "10.0.0.9")

    assert (absent, pinged.returncode) == (1, 0)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (f"ip tuntap add dev {UPLINK} mode tun", "the interface is no TAP interface, or one of several queues; take"),
        ("", "cannot have the interface: this user may not; run as root, or once: sudo ip tuntap add"),
    ],
    ids=["no-tap", "not-permitted"],
)
async def test_switch_that_cannot_have_its_uplink_says_so_in_one_line(
    hosts: HostsFactory, prepare: str, said: str, tmp_path: Path
) -> None:
    """What, where and what to do; it does not serve without it."""
    alone = hosts.prepare(tables(), ("a",))
    without = "exec setpriv --bounding-set=-net_admin --inh-caps=-net_admin" if not prepare else "exec"
    switch = next(process.argv for process in alone.at("a").topology.processes() if process.name == "sw0")
    environ = " ".join(f"{key}={value}" for key, value in alone.at("a").topology.environment().items())

    ended = on_host(alone, "sh", "-c", f"{prepare or ':'}; {without} env {environ} {' '.join(switch)}")

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"iovirt: error: net: uplink {UPLINK}: {said}")
