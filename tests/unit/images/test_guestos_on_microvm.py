"""The bundled guest OS and its virtio drivers on devices that are not ours: QEMU's, over MMIO."""

import hashlib
import re
from pathlib import Path

import pytest

from tests.unit.images.on_qemu import DISK_WINDOW, NEEDS_QEMU, SECOND_WINDOW, boot_microvm, new_disk

WINDOWS = f"{DISK_WINDOW} {SECOND_WINDOW}"

pytestmark = NEEDS_QEMU


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk whose every sector differs from the others."""
    return new_disk(tmp_path / "disk.img")


def test_job_on_a_virtio_disk_reads_hashes_and_stores_the_result(disk: Path) -> None:
    """The disk is found by the command line and chosen by itself; data and result are as with ATA."""
    digest = hashlib.sha256(disk.read_bytes()[: 1536 * 1024]).hexdigest()

    lines = boot_microvm(f"run=job,halt kib=1536 bs=1048576 {WINDOWS}", f"file={disk},format=raw")

    assert lines[1:] == [
        "vda: virtio disk, 4096 sectors",
        "hwrng: virtio entropy device",
        f"job: read 1536 KiB in 2 requests, sha256 {digest}",
        "job: result block at sector 3072 written and read back, ok",
        f"job: result sha256={digest} bytes_read=1572864 bytes_written=0 reads=2 writes=0 calls=9",
        "job: done",
        "kernel: halted",
    ]
    expected = f"iovirt-dist job result\nsha256 {digest}\nkib 1536\n".encode().ljust(512, b"\0")
    assert disk.read_bytes()[1536 * 1024 :][:512] == expected


@pytest.mark.parametrize(
    "properties",
    [
        "",
        ",event_idx=off",
        ",indirect_desc=off,queue-size=16",
        ",queue-size=4",
        ",logical_block_size=4096,physical_block_size=4096",
    ],
)
def test_check_holds_whatever_the_device_offers(disk: Path, properties: str) -> None:
    """Reads and writes of all sizes, with and without either ring feature, large and tiny rings, large blocks."""
    before = disk.read_bytes()

    lines = boot_microvm(f"run=check,halt {WINDOWS}", f"file={disk},format=raw", properties)

    assert [line for line in lines if line.startswith(("check:", "init:"))] == ["check: 50 of 50 as expected"]
    assert disk.read_bytes() == before


def test_job_that_writes_back_leaves_the_disk_as_it_was(disk: Path) -> None:
    """Of 100 blocks 30 are written, with what was read."""
    before = disk.read_bytes()

    lines = boot_microvm(f"run=job,halt kib=400 bs=4096 write=30 result=none {WINDOWS}", f"file={disk},format=raw")

    digest = hashlib.sha256(before[: 400 * 1024]).hexdigest()
    report = f"job: result sha256={digest} bytes_read=409600 bytes_written=122880 reads=100 writes=30 calls=133"
    assert report in lines
    assert disk.read_bytes() == before


def test_read_only_disk_is_read_and_refuses_writes(disk: Path) -> None:
    """VIRTIO_BLK_F_RO is EPERM for the program that writes, and nothing for the one that reads."""
    drive = f"file={disk},format=raw,readonly=on"

    lines = boot_microvm(f"run=job,check,halt kib=64 {WINDOWS}", drive)

    assert lines[1] == "vda: virtio disk, 4096 sectors, read-only"
    assert "job: cannot write /dev/vda: error 1" in lines
    assert "check: 45 of 45 as expected" in lines


def test_failed_request_is_an_error_of_the_call(disk: Path, tmp_path: Path) -> None:
    """VIRTIO_BLK_S_IOERR is EIO, said with the sector, and the disk goes on."""
    rules = tmp_path / "rules"
    rules.write_text('[inject-error]\nevent = "read_aio"\nerrno = "5"\nonce = "on"\nsector = "128"\n', encoding="utf-8")

    lines = boot_microvm(f"run=job,job,halt kib=128 {WINDOWS}", f"file=blkdebug:{rules}:{disk},format=raw")

    assert lines[3:6] == [
        "vda: read of sector 128 failed: status 1",
        "job: cannot read /dev/vda: error 5",
        "init: job exited with status 1",
    ]
    assert lines[-2] == "job: done"


def test_poke_at_the_registers_of_a_virtio_device_is_refused(disk: Path) -> None:
    """Device pages are the kernel's: a program's load and its doorbell fault in its own address space."""
    lines = boot_microvm(f"run=poke,halt {WINDOWS}", f"file={disk},format=raw")

    assert "poke: read of virtio device page: refused (signal 11)" in lines
    assert "poke: store to virtio notify register: refused (signal 11)" in lines
    assert "poke: 11 of 11 refused" in lines


def test_random_reads_entropy_that_does_not_repeat(disk: Path) -> None:
    """/dev/hwrng is the entropy device."""
    lines = boot_microvm(f"run=random,random,halt {WINDOWS}", f"file={disk},format=raw")

    read = [match[1] for line in lines if (match := re.fullmatch(r"random: ([0-9a-f]{64})", line))]
    assert len(set(read)) == 2


def test_programs_without_the_devices_get_errors(disk: Path) -> None:
    """What the command line does not announce, or announces wrongly, is not there."""
    wrong = "virtio_mmio.device=512@0xfeb00e00:99 virtio_mmio.device=512@0x1000:5 virtio_mmio.device=4K@0xfeb10000:5"

    lines = boot_microvm(f"run=job,random,halt {wrong} virtio_mmio.device=0xg@0:5", f"file={disk},format=raw")

    assert lines[1:8] == [
        "virtio: cannot use virtio_mmio.device=512@0xfeb00e00:99",
        "virtio: cannot use virtio_mmio.device=512@0x1000:5",
        "virtio: no version 2 device at 0xfeb10000",
        "virtio: cannot use virtio_mmio.device=0xg@0:5",
        "vda: no disk",
        "job: cannot open /dev/vda: error 6",
        "init: job exited with status 1",
    ]
    assert lines[8] == "random: cannot open /dev/hwrng: error 6"


@pytest.mark.parametrize(("name", "found"), [("virtio", "vda: virtio disk, 4096 sectors"), ("ata", "vda: no disk")])
def test_disk_option_chooses_the_driver(disk: Path, name: str, found: str) -> None:
    """With disk= no other driver is tried."""
    lines = boot_microvm(f"run=halt disk={name} {WINDOWS}", f"file={disk},format=raw")

    assert lines[1] == found
