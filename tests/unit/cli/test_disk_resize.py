"""``iovirt disk resize``, without processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.disk_support import Run, disk_command

MIB = 1 << 20
TOPOLOGY = """
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "d.img"
size = "2MiB"
[controller.disk0.extents]
os = { offset = 0, size = "1MiB" }
data = { offset = "1MiB", size = "1MiB" }
[controller.base]
kind = "block"
image = "base.img"
size = "1MiB"
[controller.rules]
kind = "block"
image = "rules.img"
size = "1MiB"
read_only = true
[controller.absent]
kind = "block"
image = "absent.img"
size = "1MiB"
[guest.g]
kind = "script"
hypervisor = "hv0"
script = "x.py:main"
devices = { disk = "base", overlay = true }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A topology that is not up, with its images."""
    (tmp_path / "t.toml").write_text(TOPOLOGY)
    (tmp_path / "d.img").write_bytes(b"x" * 2 * MIB)
    (tmp_path / "base.img").write_bytes(bytes(MIB))
    (tmp_path / "rules.img").write_bytes(bytes(MIB))
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """Run ``iovirt disk`` in that folder."""
    return disk_command(folder)


def test_resize_lets_the_image_grow_and_keeps_what_is_there(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The size is the disk's, not the image's; the new part is zeroes and takes no space."""
    status = run("resize", "disk0/data", "5MiB", "--json")
    told = json.loads(capsys.readouterr().out)

    assert status == 0
    assert told == {"resized": "disk0/data", "bytes": 5 * MIB}
    assert (folder / "d.img").read_bytes() == b"x" * 2 * MIB + bytes(4 * MIB)
    assert (folder / "d.img").stat().st_blocks * 512 <= 3 * MIB


def test_resized_disk_is_listed_and_exported_with_its_size(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And can grow once more."""
    run("resize", "disk0/data", "5MiB")
    again = run("resize", "disk0/data", "6MiB")
    run("export", "disk0/data", folder / "out.img")
    capsys.readouterr()
    run("ls", "--json")
    disks = json.loads(capsys.readouterr().out)["disks"]

    assert again == 0
    assert (folder / "out.img").stat().st_size == 6 * MIB
    assert next(row["size_bytes"] for row in disks if row["disk"] == "data") == 6 * MIB


def test_resize_to_the_size_that_it_has_is_done(run: Run, folder: Path) -> None:
    """Nothing changes."""
    assert run("resize", "disk0/data", "1MiB") == 0
    assert (folder / "d.img").stat().st_size == 2 * MIB


@pytest.mark.parametrize(
    ("disk", "size", "status", "message"),
    [
        ("disk0/data", "512KiB", 1, "disk0/data: has 1MiB and cannot be made smaller"),
        ("disk0/os", "5MiB", 1, "disk0/os: does not alone reach to the end of its image"),
        ("base/all", "5MiB", 1, "base/all: overlays lie over it: all@g"),
        ("base/all@g", "5MiB", 2, "an overlay is as large as its base"),
        ("rules", "5MiB", 1, "rules/all: is read-only"),
        ("absent", "5MiB", 1, "has no image yet"),
        ("disk0/data", "1000001", 2, "1000001 bytes are no disk"),
        ("disk0/data", "0", 2, "0 bytes are no disk"),
        ("disk0/data", "much", 2, "expected a size"),
        ("disk0/data", "1000TiB", 2, "are no disk"),
    ],
)
def test_resize_that_cannot_be_is_refused_with_one_line(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str], disk: str, size: str, status: int, message: str
) -> None:
    """And changes nothing."""
    assert run("resize", disk, size) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert (folder / "d.img").stat().st_size == 2 * MIB
