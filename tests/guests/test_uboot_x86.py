"""Unmodified U-Boot on the `pc` machine: it drives our ATA disk with its own driver, typed into from outside.

The disk is the file system that test_uboot_virtio.py and test_programs.py read at the other two levels.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.guests.support import (
    FILE_BYTES,
    KIB,
    MIB,
    MKFS_EXT4,
    PROMPT,
    UBOOT_X86,
    data_offset,
    disk,
    ext4_image,
    machine,
    needs,
    pattern,
    topology_of,
    typed,
)

pytestmark = needs(UBOOT_X86, MKFS_EXT4)

LENGTH = 128 * KIB
ADDRESS = "1000000"
WRITE_AT = 0x5000
SECTORS = 16
"""To write: U-Boot sends each word with an OUT of its own."""
BOOT_S = 30.0


async def _at_prompt(iovirt: TopologyFactory, image: bytes) -> LiveTopology:
    """Boot, and save the seconds of the autoboot countdown by a key."""
    guest = machine("pc", UBOOT_X86, {"disk": "disk0/all", "console": "tty0"}, memory="128MiB")
    topology = iovirt.prepare(topology_of({"uboot": guest}))
    disk(topology).write_bytes(image)
    await topology.start()
    await topology.console().expect(r"Hit any key to stop autoboot", BOOT_S)
    await typed(topology, "uboot", "\r", PROMPT)
    return topology


async def test_uboot_reads_and_writes_the_disk_and_boots_again(iovirt: TopologyFactory, tmp_path: Path) -> None:
    """`ide read` gets what is in the image, `ide write` puts it there, `reset` comes back to the prompt."""
    image = ext4_image(tmp_path).ljust(16 * MIB, b"\0")
    first = data_offset(image) // 512
    topology = await _at_prompt(iovirt, image)

    reset = await typed(topology, "uboot", "ide reset\r", PROMPT)
    command = f"ide read {ADDRESS} {first:x} {LENGTH // 512:x}\r"
    read = await typed(topology, "uboot", command, r"blocks read: \w+\s+=> ")
    checked = await typed(topology, "uboot", f"crc32 {ADDRESS} {LENGTH:x}\r", r"==> [0-9a-f]{8}\s+=> ")
    await typed(topology, "uboot", f"ide write {ADDRESS} {WRITE_AT:x} {SECTORS:x}\r", r"blocks written: OK\s+=> ")
    written = disk(topology).read_bytes()
    again = await typed(topology, "uboot", "reset\r", r"Hit any key to stop autoboot", BOOT_S)
    await typed(topology, "uboot", "\r", PROMPT)
    await topology.hypervisor().wait_log("guest uboot: reset by")

    assert "Model: IOVIRT DISK" in reset
    assert "256 blocks read: OK" in read
    found = re.search(r"==> ([0-9a-f]{8})", checked)
    assert found is not None
    assert int(found[1], 16) == zlib.crc32(pattern(FILE_BYTES)[:LENGTH])
    at = WRITE_AT * 512
    assert written == image[:at] + pattern(SECTORS * 512) + image[at + SECTORS * 512 :]
    assert "U-Boot 20" in again
