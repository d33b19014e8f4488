"""The bundled guest OS on a machine that is not ours: QEMU as the reference."""

import hashlib
import re
from pathlib import Path

import pytest

from tests.unit.images.on_qemu import NEEDS_QEMU, boot_pc, new_disk

pytestmark = NEEDS_QEMU


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk whose every sector differs from the others."""
    return new_disk(tmp_path / "disk.img")


def test_job_reads_hashes_and_stores_the_result(disk: Path) -> None:
    """The hash is that of the disk's first bytes, and it lies on the disk behind them."""
    digest = hashlib.sha256(disk.read_bytes()[: 300 * 1024]).hexdigest()

    lines = boot_pc("disk=ata run=job,halt kib=300 bs=65536", disk)

    assert lines[2:] == [
        f"job: read 300 KiB in 5 requests, sha256 {digest}",
        "job: result block at sector 600 written and read back, ok",
        f"job: result sha256={digest} bytes_read=307200 bytes_written=0 reads=5 writes=0 calls=12",
        "job: done",
        "kernel: halted",
    ]
    expected = f"iovirt-dist job result\nsha256 {digest}\nkib 300\n".encode().ljust(512, b"\0")
    assert disk.read_bytes()[300 * 1024 :][:512] == expected


def test_job_with_single_word_accesses_and_odd_reads_gives_the_same_hash(disk: Path) -> None:
    """Neither the kind of I/O instruction nor the size of the reads changes the data."""
    digest = hashlib.sha256(disk.read_bytes()[: 20 * 1024]).hexdigest()

    lines = boot_pc("run=job,halt kib=20 bs=1000 insn=single", disk)

    assert lines[2] == f"job: read 20 KiB in 21 requests, sha256 {digest}"


def test_poke_every_privileged_action_is_refused(disk: Path) -> None:
    """Nine attempts from user mode, nine faults, each named by the kernel."""
    lines = boot_pc("run=poke,halt", disk)

    refused = [line for line in lines if re.fullmatch(r"poke: .*: refused \(signal 11\)", line)]
    assert len(refused) == 9
    assert "poke: 9 of 9 refused" in lines
    assert any(line.endswith("out dx, al port 0x1f7") for line in lines)


def test_check_every_promise_of_the_kernel_holds(disk: Path) -> None:
    """The guest's own checks of its system calls, exceptions, memory and processes."""
    lines = boot_pc("run=check,halt", disk)

    assert [line for line in lines if line.startswith(("check:", "init:"))] == ["check: 47 of 47 as expected"]


def test_spin_parent_runs_beside_a_counting_child() -> None:
    """The timer takes the CPU from a process that makes no system call."""
    lines = boot_pc("run=spin,halt")

    assert "spin: parent ran 3 times while the child was counting" in lines


def test_echo_edits_and_returns_lines() -> None:
    """The console echoes, erases, turns CR into NL and hands over whole lines."""
    lines = boot_pc("run=echo,halt", typed={"echo: type lines, 'exit' ends": "abx\x7fc\r", "echo: abc": "exit\n"})

    assert "echo: abc" in lines
    assert lines[-2:] == ["echo: done", "kernel: halted"]


def test_job_without_a_disk_says_so_and_ends() -> None:
    """A machine without a disk still boots; programs get ENXIO."""
    lines = boot_pc("run=job,nothing,halt")

    assert lines[1:] == [
        "vda: no disk",
        "job: cannot open /dev/vda: error 6",
        "init: job exited with status 1",
        "init: there is no program called 'nothing'",
        "kernel: halted",
    ]


@pytest.mark.parametrize(
    ("how", "last"),
    [
        ("triple", r"kernel: panic=triple"),
        ("fault", r"kernel panic: invalid opcode in the kernel at eip [0-9a-f]{8}"),
        ("stack", r"kernel panic: double fault at eip [0-9a-f]{8}, esp [0-9a-f]{8} \(kernel stack overflow\?\)"),
    ],
)
def test_panic_ends_the_machine_as_asked(how: str, last: str) -> None:
    """A triple fault resets the machine; everything else says what happened and stops."""
    lines = boot_pc(f"panic={how}")

    assert re.fullmatch(last, lines[-1])
