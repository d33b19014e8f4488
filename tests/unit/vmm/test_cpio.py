"""Archives: what they hold, byte by byte and as cpio(1) lists it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NamedTuple

from iovirt_dist.vmm.cpio import CpioWriter


class Entry(NamedTuple):
    """One entry of an archive as a reader sees it."""

    name: str
    mode: int
    data: bytes
    device: tuple[int, int]


def entries(archive: bytes) -> Iterator[Entry]:
    """Read an archive up to its trailer, by cpio(5)."""
    position = 0
    while True:
        assert archive[position : position + 6] == b"070701"
        fields = [int(archive[position + 6 + 8 * n : position + 14 + 8 * n], 16) for n in range(13)]
        start = position + 110
        name = archive[start : start + fields[11]].rstrip(b"\0").decode()
        data_at = start + fields[11] + -(start + fields[11]) % 4
        if name == "TRAILER!!!":
            assert data_at == len(archive)
            return
        yield Entry(name, fields[1], archive[data_at : data_at + fields[6]], (fields[9], fields[10]))
        position = data_at + fields[6] + -fields[6] % 4


def written() -> bytes:
    """An archive with one of each."""
    file = io.BytesIO()
    archive = CpioWriter(file)
    archive.add_device("/dev/console", 5, 1)
    archive.add_file("/bin/busybox", b"\x7fELF.", 0o755)
    archive.add_link("bin/sh", "busybox")
    archive.add_file("/bin/../etc/motd", b"")
    archive.add_folder("/dev")
    archive.finish()
    return file.getvalue()


def test_first_entry_is_these_bytes() -> None:
    """The format has 110 bytes of header, a name with a NUL, and padding to 4."""
    header = b"070701" + b"00000001000041ED0000000000000000000000020000000000000000"
    header += b"00000000000000000000000000000000" + b"0000000400000000"

    assert written()[:116] == header + b"dev\0" + b"\0\0"


def test_archive_has_what_was_added_behind_its_folders() -> None:
    """Each folder is there once; paths are normalised."""
    assert list(entries(written())) == [
        Entry("dev", 0o040755, b"", (0, 0)),
        Entry("dev/console", 0o020600, b"", (5, 1)),
        Entry("bin", 0o040755, b"", (0, 0)),
        Entry("bin/busybox", 0o100755, b"\x7fELF.", (0, 0)),
        Entry("bin/sh", 0o120777, b"busybox", (0, 0)),
        Entry("etc", 0o040755, b"", (0, 0)),
        Entry("etc/motd", 0o100644, b"", (0, 0)),
    ]


def test_same_content_makes_the_same_bytes() -> None:
    """No time and no owner of this machine is in it."""
    assert written() == written()
