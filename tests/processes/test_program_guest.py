"""Programs as guests in processes: terminal, files of /dev, exit status.

The program is made here, instruction by instruction, so that nothing needs to be installed; unmodified third-party ones
are in tests/guests.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from iovirt_dist.cli.main import main
from iovirt_dist.testing.live import TopologyFactory

BASE = 0x40_0000
HEADERS = 64 + 56
BUFFER = BASE + 0x1000
READ_SECTOR = f"""
    48 c7 c0 02 00 00 00            # rax = open
    48 c7 c7 {{path}}               # rdi = path
    48 31 f6                        # rsi = O_RDONLY
    0f 05
    48 89 c7                        # rdi = fd
    48 31 c0                        # rax = read
    48 c7 c6 {struct.pack("<I", BUFFER).hex()}
    48 c7 c2 40 00 00 00            # rdx = 64
    0f 05
    48 89 c2                        # rdx = what was read
    48 c7 c0 01 00 00 00            # rax = write
    48 c7 c7 01 00 00 00            # rdi = stdout
    48 c7 c6 {struct.pack("<I", BUFFER).hex()}
    0f 05
    48 c7 c0 3c 00 00 00            # rax = exit
    48 c7 c7 07 00 00 00            # rdi = 7
    0f 05
"""
"""x86-64: print the first 64 bytes of a file and exit with 7 (System V ABI, AMD64 supplement, appendix A.2.1)."""
CRASH = "c7 04 25 00 00 00 00 01 00 00 00  # [0] = 1"


def program(path: Path, code: str, name: bytes = b"/dev/vda\0") -> Path:
    """Write a static ELF file: one segment of code and data, page-aligned, and a page of zeroes behind it."""
    at = BASE + HEADERS
    text = "".join(line.partition("#")[0] for line in code.splitlines(keepends=True))
    size = len(bytes.fromhex(text.replace("{path}", "00000000")))
    body = bytes.fromhex(text.replace("{path}", struct.pack("<I", at + size).hex())) + name
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, at, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, BASE, BASE, HEADERS + len(body), 0x2000, 0x1000)
    path.write_bytes(header + segment + body)
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Current folder, with a disk image that begins with a line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.img").write_bytes(b"the first line of the disk\n".ljust(64) + bytes(4096 - 64))
    return tmp_path


def test_run_program_reads_the_disk_and_ends_with_its_status(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As ``docker run`` does."""
    image = program(folder / "show", READ_SECTOR)
    assert main(["run", "--program", str(image), "--disk", "d.img", "--timeout", "60"]) == 7
    printed = capfd.readouterr()
    assert "the first line of the disk" in printed.out
    assert printed.err == "iovirt: the guest stopped: exited with status 7\n"


def test_run_program_sees_a_file_of_the_host(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What ``--volume`` names is there."""
    (folder / "motd").write_text("message of the day")
    image = program(folder / "show", READ_SECTOR, b"/etc/motd\0")
    assert main(["run", "--program", str(image), "-v", "motd:/etc/motd", "--timeout", "60"]) == 7
    assert "message of the day" in capfd.readouterr().out


def test_run_program_killed_ends_with_its_signal(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """128 and the number, as shells have it."""
    image = program(folder / "crash", CRASH)
    assert main(["run", "--program", str(image), "--timeout", "60"]) == 128 + 11
    assert "the guest stopped: killed by signal 11" in capfd.readouterr().err


async def test_program_of_a_topology_stays_when_it_has_ended(iovirt: TopologyFactory, folder: Path) -> None:
    """Its process is idle, its counts are equal on both sides, and the disk is as it was."""
    image = program(folder / "show", READ_SECTOR)
    before = hashlib.sha256((folder / "d.img").read_bytes()).hexdigest()
    topology = await iovirt.up(
        {
            "topology": {"lease": "1s"},
            "hypervisor": {"hv0": {}},
            "controller": {
                "disk0": {"kind": "block", "image": str(folder / "d.img"), "size": 4096},
                "tty0": {"kind": "console"},
            },
            "guest": {
                "show": {
                    "kind": "program",
                    "hypervisor": "hv0",
                    "image": str(image),
                    "devices": {"disk": "disk0", "console": "tty0"},
                }
            },
        }
    )

    await topology.console().expect("the first line of the disk")
    status = await topology.guest().wait_state("stopped")
    known = await topology.hypervisor().wait_status(
        lambda known: bool(known.content["guests"]["show"]["state"] == "stopped")
    )

    assert status.reason == "exited with status 7"
    assert status.content["traps"]["system_call"] == 4
    assert known.content["guests"]["show"]["traps"] == status.content["traps"]
    assert hashlib.sha256((folder / "d.img").read_bytes()).hexdigest() == before
