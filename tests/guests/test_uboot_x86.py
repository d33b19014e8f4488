"""Unmodified U-Boot on the `pc` machine: it drives our ATA disk with its own driver, typed into from outside."""

from __future__ import annotations

import re
import zlib

from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.guests.support import KIB, MIB, PROMPT, UBOOT_X86, disk, fill, machine, needs, pattern, topology_of, typed

pytestmark = needs(UBOOT_X86)

LENGTH = 128 * KIB
ADDRESS = "1000000"
SECTORS = 16
"""To write: U-Boot sends each word with an OUT of its own."""
BOOT_S = 30.0


async def _at_prompt(iovirt: TopologyFactory) -> LiveTopology:
    """Boot, and save the seconds of the autoboot countdown by a key."""
    guest = machine("pc", UBOOT_X86, {"disk": "disk0/all", "console": "tty0"}, memory="128MiB")
    topology = iovirt.prepare(topology_of({"uboot": guest}))
    fill(topology, pattern(MIB))
    await topology.start()
    await topology.console().expect(r"Hit any key to stop autoboot", BOOT_S)
    await typed(topology, "uboot", "\r", PROMPT)
    return topology


async def test_uboot_reads_and_writes_the_disk_and_boots_again(iovirt: TopologyFactory) -> None:
    """`ide read` gets what is in the image, `ide write` puts it there, `reset` comes back to the prompt."""
    topology = await _at_prompt(iovirt)

    reset = await typed(topology, "uboot", "ide reset\r", PROMPT)
    read = await typed(topology, "uboot", f"ide read {ADDRESS} 0 {LENGTH // 512:x}\r", r"blocks read: \w+\s+=> ")
    checked = await typed(topology, "uboot", f"crc32 {ADDRESS} {LENGTH:x}\r", r"==> [0-9a-f]{8}\s+=> ")
    await typed(topology, "uboot", f"ide write {ADDRESS} 1000 {SECTORS:x}\r", r"blocks written: OK\s+=> ")
    written = disk(topology).read_bytes()[0x1000 * 512 :]
    again = await typed(topology, "uboot", "reset\r", r"Hit any key to stop autoboot", BOOT_S)
    await typed(topology, "uboot", "\r", PROMPT)
    await topology.hypervisor().wait_log("guest uboot: reset by")

    assert "Model: IOVIRT DISK" in reset
    assert "256 blocks read: OK" in read
    found = re.search(r"==> ([0-9a-f]{8})", checked)
    assert found is not None
    assert int(found[1], 16) == zlib.crc32(pattern(MIB)[:LENGTH])
    assert written == pattern(SECTORS * 512) + bytes(len(written) - SECTORS * 512)
    assert "U-Boot 20" in again
