"""Unmodified U-Boot on a switch: its own virtio-net driver, our switch, and other machines at the far end."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iovirt_dist.controllers.net.pcap import FILE_HEADER, MAGIC_NANOSECONDS, RECORD_HEADER
from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from iovirt_dist.topology.net_specs import NetSpec
from iovirt_dist.topology.resolve_net import derived_mac
from tests.guests.support import KIB, UBOOT_RISCV_M, machine, needs, pattern

pytestmark = needs(UBOOT_RISCV_M)

BOOT_S = 30.0
LOAD_S = 60.0
ADDRESS = 0x8400_0000
FILE = pattern(300 * KIB + 77)
NOBODY = "10.0.0.99"
CONTROL_C = b"\x03"
BROADCAST = b"\xff" * 6
ICMP, ECHO_REPLY, ECHO_REQUEST = 1, 0, 8
ARP, IPV4 = b"\x08\x06", b"\x08\x00"


def tables(switch: dict[str, Any], *guests: str) -> dict[str, Any]:
    """A topology of U-Boots on one switch."""
    return {
        "hypervisor": {"hv0": {}},
        "controller": {"tty0": {"kind": "console"}, "sw0": {"kind": "net", "tap": "sw0.pcap", **switch}},
        "guest": {
            name: machine("virt", UBOOT_RISCV_M, {"console": "tty0", "net": "sw0"}, memory="128MiB") for name in guests
        },
    }


async def at_prompt(iovirt: TopologyFactory, content: dict[str, Any]) -> LiveTopology:
    """Start the topology; every guest is at its prompt."""
    topology = await iovirt.up(content)
    for guest in content["guest"]:
        await topology.console(guest).expect(r"Hit any key to stop autoboot", BOOT_S)
        await run(topology, guest, "")
    return topology


async def run(topology: LiveTopology, guest: str, line: str, timeout_s: float = 20.0) -> str:
    """Let a guest execute a line; returns what it printed up to its prompt."""
    console = topology.console(guest)
    console.send_line(line)
    return (await console.expect(r"[^\0]*?^=> ", timeout_s))[0]


async def ping(topology: LiveTopology, guest: str, address: str, answering: str) -> str:
    """Let a guest ping another one, which answers as long as it waits for an answer itself."""
    other = topology.console(answering)
    other.send_line(f"ping {NOBODY}")
    await other.expect(r"^Using .* device")
    text = await run(topology, guest, f"ping {address}")
    other.send(CONTROL_C)
    await other.expect(r"^=> ")
    return text


def tap(topology: LiveTopology) -> Path:
    """The capture file of the switch."""
    spec = topology.topology.controller("sw0")
    assert isinstance(spec, NetSpec)
    assert spec.tap is not None
    return spec.tap


def captured(path: Path) -> Iterator[bytes]:
    """Frames of a capture file, read as draft-ietf-opsawg-pcap has it."""
    content = path.read_bytes()
    magic, major, minor, _, _, _, link = FILE_HEADER.unpack_from(content)
    assert (magic, major, minor, link) == (MAGIC_NANOSECONDS, 2, 4, 1)
    at = FILE_HEADER.size
    while at < len(content):
        _, nanoseconds, length, original = RECORD_HEADER.unpack_from(content, at)
        assert nanoseconds < 1_000_000_000
        assert length == original
        yield content[at + RECORD_HEADER.size :][:length]
        at += RECORD_HEADER.size + length


async def test_two_uboots_ping_each_other_over_the_switch(iovirt: TopologyFactory) -> None:
    """Requests and answers cross the switch both ways, and the tap has them."""
    topology = await at_prompt(iovirt, tables({}, "alice", "bob"))
    await run(topology, "alice", "setenv ipaddr 10.0.0.1")
    await run(topology, "bob", "setenv ipaddr 10.0.0.2")

    from_bob = await ping(topology, "bob", "10.0.0.1", "alice")
    from_alice = await ping(topology, "alice", "10.0.0.2", "bob")

    assert "host 10.0.0.1 is alive" in from_bob
    assert "host 10.0.0.2 is alive" in from_alice
    alice, bob = derived_mac("alice"), derived_mac("bob")
    frames = list(captured(tap(topology)))
    echoes = [(f[6:12], f[:6], f[34]) for f in frames if f[12:14] == IPV4 and f[23] == ICMP]
    assert echoes == [
        (bob, alice, ECHO_REQUEST),
        (alice, bob, ECHO_REPLY),
        (alice, bob, ECHO_REQUEST),
        (bob, alice, ECHO_REPLY),
    ]
    assert (bob, BROADCAST, ARP) in [(f[6:12], f[:6], f[12:14]) for f in frames]


async def test_uboot_pings_on_after_the_switch_was_killed(iovirt: TopologyFactory) -> None:
    """The supervisor's part is the test's: the link goes down and up again, and frames cross as before."""
    topology = await at_prompt(iovirt, tables({"responder": {"address": "10.0.0.1/24"}}, "alice"))
    switch, hypervisor = topology.controller("sw0"), topology.hypervisor()
    await run(topology, "alice", "setenv ipaddr 10.0.0.2")
    before = await run(topology, "alice", "ping 10.0.0.1")

    switch.kill()
    await hypervisor.wait_status(lambda s: not s.content["guests"]["alice"]["network"]["link_up"])
    await switch.restart()
    await hypervisor.wait_status(lambda s: s.content["guests"]["alice"]["network"]["link_up"])
    after = await run(topology, "alice", "ping 10.0.0.1")

    assert "host 10.0.0.1 is alive" in before
    assert "host 10.0.0.1 is alive" in after


async def test_uboot_gets_an_address_pings_and_loads_a_file_from_the_built_in_host(
    iovirt: TopologyFactory, tmp_path: Path
) -> None:
    """`dhcp`, `ping` and `tftpboot` of a lone guest; what it loaded is what the host has."""
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "data.bin").write_bytes(FILE)
    responder = {"address": "10.0.0.1/24", "dhcp": "10.0.0.100-10.0.0.199", "tftp": str(tmp_path)}
    topology = await at_prompt(iovirt, tables({"responder": responder}, "alice"))
    await run(topology, "alice", "setenv autoload no")

    leased = await run(topology, "alice", "dhcp")
    pinged = await run(topology, "alice", "ping 10.0.0.1")
    loaded = await run(topology, "alice", f"tftpboot {ADDRESS:x} boot/data.bin", LOAD_S)
    summed = await run(topology, "alice", f"crc32 {ADDRESS:x} {len(FILE):x}")
    missing = await run(topology, "alice", f"tftpboot {ADDRESS:x} ../etc/passwd", LOAD_S)
    status = await topology.controller("sw0").wait_status(lambda s: s.content["responder"]["tftp"]["failed"] == 1)

    assert "DHCP client bound to address 10.0.0.100" in leased
    assert "host 10.0.0.1 is alive" in pinged
    assert f"Bytes transferred = {len(FILE)} " in loaded
    assert f"==> {zlib.crc32(FILE):08x}" in summed
    assert "TFTP error" in missing
    assert status.content["responder"]["dhcp"]["leases"] == {"10.0.0.100": derived_mac("alice").hex(":")}
    assert status.content["responder"]["tftp"] == {"started": 2, "finished": 1, "failed": 1}
    assert status.content["ports"]["alice"]["spoofed"] == 0
    assert sum(len(frame) for frame in captured(tap(topology))) > len(FILE)
