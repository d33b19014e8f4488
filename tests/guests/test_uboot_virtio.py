"""Unmodified U-Boot on the `virt` machine reads a disk through its own virtio driver: the driver level.

The disk is a file system that mkfs.ext4 made; whatever U-Boot says it read, the host can check.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import pytest

from iovirt_dist.testing.live import LiveTopology, TopologyFactory
from tests.guests.support import (
    FILE_BYTES,
    MIB,
    MKFS_EXT4,
    PROMPT,
    UBOOT_RISCV_M,
    disk,
    ext4_image,
    machine,
    needs,
    pattern,
    topology_of,
    typed,
)

pytestmark = needs(UBOOT_RISCV_M, MKFS_EXT4)

BOOT_S = 30.0
ADDRESS = 0x8400_0000
FILE = pattern(FILE_BYTES)
READ_SECTORS = 0x400


@pytest.fixture
def file_system(tmp_path: Path) -> bytes:
    """An ext4 file system with a file in a folder."""
    return ext4_image(tmp_path)


async def _at_prompt(iovirt: TopologyFactory, content: bytes) -> LiveTopology:
    guest = machine("virt", UBOOT_RISCV_M, {"disk": "disk0/all", "console": "tty0"}, memory="128MiB")
    topology = iovirt.prepare(topology_of({"riscv": guest}))
    disk(topology).write_bytes(content + bytes(16 * MIB - len(content)))
    await topology.start()
    await topology.console().expect(r"Hit any key to stop autoboot", BOOT_S)
    await typed(topology, "riscv", "\r", PROMPT)
    return topology


async def _crc32(topology: LiveTopology, length: int) -> int:
    """Let U-Boot sum what it has read."""
    text = await typed(topology, "riscv", f"crc32 {ADDRESS:x} {length:x}\r", r"==> [0-9a-f]{8}\s+=> ")
    found = re.search(r"==> ([0-9a-f]{8})", text)
    assert found is not None
    return int(found[1], 16)


async def test_uboot_reads_sectors_and_files_through_its_virtio_driver(
    iovirt: TopologyFactory, file_system: bytes
) -> None:
    """`virtio read`, `ext4ls` and `ext4load` agree with the host, and no request was a trap for each word."""
    topology = await _at_prompt(iovirt, file_system)

    found = await typed(topology, "riscv", "virtio info\r", r"x 512\)\s+=> ")
    read = await typed(topology, "riscv", f"virtio read {ADDRESS:x} 0 {READ_SECTORS:x}\r", r"blocks read: \w+\s+=> ")
    sectors = await _crc32(topology, READ_SECTORS * 512)
    listed = await typed(topology, "riscv", "ext4ls virtio 0:0 /boot\r", r"data\.bin\s+=> ")
    loaded = await typed(topology, "riscv", f"ext4load virtio 0:0 {ADDRESS:x} /boot/data.bin\r", r"bytes read[^=]*^=> ")
    content = await _crc32(topology, len(FILE))
    status = await topology.hypervisor().wait_status(
        lambda s: s.content["guests"]["riscv"]["disk_bytes_read"] >= READ_SECTORS * 512 + len(FILE)
    )

    assert "Capacity: 16.0 MB" in found
    assert f"{READ_SECTORS} blocks read: OK" in read
    assert sectors == zlib.crc32(file_system[: READ_SECTORS * 512])
    assert re.search(rf"{len(FILE)}\s+data\.bin", listed)
    assert f"{len(FILE)} bytes read" in loaded
    assert content == zlib.crc32(FILE)
    guest = status.content["guests"]["riscv"]
    assert 0 < guest["traps"]["doorbell"] <= guest["disk_requests"]
    assert guest["guest_traps"] == guest["traps_at_report"]
    assert guest["touched"]["virtio-blk"] < guest["disk_bytes_read"] / 512


async def test_uboot_writes_sectors_through_its_virtio_driver(iovirt: TopologyFactory, file_system: bytes) -> None:
    """`virtio write` lands in the image, and nowhere else."""
    topology = await _at_prompt(iovirt, file_system)

    await typed(topology, "riscv", f"virtio read {ADDRESS:x} 0 10\r", r"blocks read: OK\s+=> ")
    await typed(topology, "riscv", f"virtio write {ADDRESS:x} 7000 10\r", r"blocks written: OK\s+=> ")

    image = disk(topology).read_bytes()
    assert image[0x7000 * 512 : 0x7010 * 512] == file_system[: 0x10 * 512]
    assert image[: 0x7000 * 512] == (file_system + bytes(16 * MIB - len(file_system)))[: 0x7000 * 512]
