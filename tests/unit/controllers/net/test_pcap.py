"""Capture files: read by tcpdump where it is installed, and byte by byte."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from iovirt_dist.controllers.net.pcap import PcapFile
from tests.unit.controllers.net.support import A, B, frame

WALL_NS = 1_767_225_600_123_456_789
"""2026-01-01 00:00:00.123456789 UTC."""
HEADER = bytes.fromhex("4d3cb2a1 0200 0400 00000000 00000000 ffff0000 01000000")
"""As draft-ietf-opsawg-pcap, section 4, has it: nanoseconds, version 2.4, Ethernet."""


def test_pcap_file_is_as_the_format_says(tmp_path: Path) -> None:
    """One header, then records of seconds, nanoseconds and both lengths."""
    file = PcapFile(tmp_path / "new" / "x.pcap")

    file.write([frame(A, B)], WALL_NS)
    file.close()

    record = bytes.fromhex("00b95569 15cd5b07 15000000 15000000")
    assert (tmp_path / "new" / "x.pcap").read_bytes() == HEADER + record + frame(A, B)


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump: install the Debian package tcpdump")
def test_pcap_file_is_read_by_tcpdump(tmp_path: Path) -> None:
    """Times to the nanosecond, addresses and lengths."""
    file = PcapFile(tmp_path / "x.pcap")
    file.write([frame(A, B), frame(B, A)], WALL_NS)
    file.close()

    read = subprocess.run(
        ["tcpdump", "-nn", "-e", "-tt", "--nano", "-r", tmp_path / "x.pcap"], capture_output=True, text=True, check=True
    )

    lines = [line for line in read.stdout.splitlines() if not line.startswith("\t")]
    assert len(lines) == 2
    assert lines[0].startswith("1767225600.123456789 02:00:00:00:00:01 > 02:00:00:00:00:02")


def test_pcap_file_that_reaches_its_limit_makes_room_for_a_new_one(tmp_path: Path) -> None:
    """The old one is kept once; each begins with a header."""
    path = tmp_path / "x.pcap"
    file = PcapFile(path, limit_bytes=100)

    for number in range(5):
        file.write([frame(A, B, bytes([number]) * 20)], WALL_NS)
    file.close()

    assert path.read_bytes()[:24] == Path(f"{path}.1").read_bytes()[:24] == HEADER
    assert path.read_bytes()[-1] == 4
    assert Path(f"{path}.1").read_bytes()[-1] == 3


def test_pcap_file_is_closed_twice_without_harm(tmp_path: Path) -> None:
    """The second time nothing happens."""
    file = PcapFile(tmp_path / "x.pcap")

    file.close()
    file.close()


def test_pcap_file_whose_header_cannot_be_written_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor stays open."""
    before = len(list(Path("/proc/self/fd").iterdir()))

    def full(fd: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            PcapFile(tmp_path / "x.pcap")

    assert len(list(Path("/proc/self/fd").iterdir())) == before
