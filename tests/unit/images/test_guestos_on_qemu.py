"""The bundled guest OS on a machine that is not ours: QEMU as the reference."""

import hashlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from iovirt_dist.images import guestos_path

QEMU = "qemu-system-i386"
DISK_BYTES = 2 * 1024 * 1024

pytestmark = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"no {QEMU} here")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk whose every KiB differs from the others."""
    path = tmp_path / "disk.img"
    path.write_bytes(
        b"".join(hashlib.sha512(bytes([i % 256, i // 256])).digest() * 8 for i in range(DISK_BYTES // 512))
    )
    return path


def _boot(options: str, disk: Path | None = None, *, typed: dict[str, str] | None = None) -> list[str]:
    """Run the guest until it halts, panics or resets, and return its console lines.

    `typed` says what to type after which line.
    """
    command = [QEMU, "-M", "pc", "-cpu", "486", "-accel", "tcg", "-m", "16", "-kernel", str(guestos_path())]
    command += ["-append", options, "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot"]
    if disk is not None:
        command += ["-drive", f"file={disk},format=raw,if=ide"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as qemu:
        assert qemu.stdin is not None
        assert qemu.stdout is not None
        lines = []
        try:
            for line in qemu.stdout:
                lines.append(line.rstrip())
                qemu.stdin.write((typed or {}).get(line.rstrip(), ""))
                qemu.stdin.flush()
                if line.startswith(("kernel: halted", "kernel panic:")):
                    break
        finally:
            qemu.kill()
    return lines


def test_job_reads_hashes_and_stores_the_result(disk: Path) -> None:
    """The hash is that of the disk's first bytes, and it lies on the disk behind them."""
    digest = hashlib.sha256(disk.read_bytes()[: 300 * 1024]).hexdigest()

    lines = _boot("disk=ata run=job,halt kib=300 bs=65536", disk)

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

    lines = _boot("run=job,halt kib=20 bs=1000 insn=single", disk)

    assert lines[2] == f"job: read 20 KiB in 21 requests, sha256 {digest}"


def test_poke_every_privileged_action_is_refused(disk: Path) -> None:
    """Nine attempts from user mode, nine faults, each named by the kernel."""
    lines = _boot("run=poke,halt", disk)

    refused = [line for line in lines if re.fullmatch(r"poke: .*: refused \(signal 11\)", line)]
    assert len(refused) == 9
    assert "poke: 9 of 9 refused" in lines
    assert any(line.endswith("out dx, al port 0x1f7") for line in lines)


def test_check_every_promise_of_the_kernel_holds(disk: Path) -> None:
    """The guest's own checks of its system calls, exceptions, memory and processes."""
    lines = _boot("run=check,halt", disk)

    assert [line for line in lines if line.startswith(("check:", "init:"))] == ["check: 36 of 36 as expected"]


def test_spin_parent_runs_beside_a_counting_child() -> None:
    """The timer takes the CPU from a process that makes no system call."""
    lines = _boot("run=spin,halt")

    assert "spin: parent ran 3 times while the child was counting" in lines


def test_echo_edits_and_returns_lines() -> None:
    """The console echoes, erases, turns CR into NL and hands over whole lines."""
    lines = _boot("run=echo,halt", typed={"echo: type lines, 'exit' ends": "abx\x7fc\r", "echo: abc": "exit\n"})

    assert "echo: abc" in lines
    assert lines[-2:] == ["echo: done", "kernel: halted"]


def test_job_without_a_disk_says_so_and_ends() -> None:
    """A machine without a disk still boots; programs get ENXIO."""
    lines = _boot("run=job,nothing,halt")

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
    lines = _boot(f"panic={how}")

    assert re.fullmatch(last, lines[-1])
