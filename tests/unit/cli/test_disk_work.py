"""``iovirt disk``, without processes: what it makes of files."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from iovirt_dist.controllers.block.overlay_files import Base, OverlayFolder
from iovirt_dist.controllers.block.storage import FileStorage
from tests.unit.cli.disk_support import Run, disk_command

KIB = 1024
BASE = random.Random(2).randbytes(64 * KIB)
TOPOLOGY = """
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "d.img"
size = "128KiB"
[controller.disk0.extents]
os = { offset = 0, size = "64KiB" }
data = { offset = "64KiB", size = "64KiB" }
[controller.big]
kind = "block"
image = "big.img"
size = "3MiB"
[guest.g]
kind = "script"
hypervisor = "hv0"
script = "x.py:main"
devices = { disk = "disk0/os", overlay = true }
[guest.h]
kind = "script"
hypervisor = "hv0"
script = "x.py:main"
devices = { disk = "big" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A topology that is not up, with a base and no overlay."""
    (tmp_path / "t.toml").write_text(TOPOLOGY)
    (tmp_path / "d.img").write_bytes(BASE + b"d" * 64 * KIB)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """Run ``iovirt disk`` in that folder."""
    return disk_command(folder)


def _guest_writes(folder: Path, offset: int, data: bytes) -> None:
    """Write to the overlay of g, as its controller does."""
    image = FileStorage(folder / "d.img", read_only=True)
    overlay = OverlayFolder(folder / "d.img.overlays").open("os@g", Base(image, 0, 64 * KIB, "d.img"))
    overlay.write_at(offset, data)
    overlay.close()
    image.close()


def _listed(run: Run, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    run("ls", "--json")
    return {f"{row['controller']}/{row['disk']}": row for row in json.loads(capsys.readouterr().out)["disks"]}


def _plain(folder: Path) -> list[str]:
    """Names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_export_of_an_overlay_is_the_base_with_what_the_guest_wrote(folder: Path, run: Run) -> None:
    """Nothing else is left in the folder."""
    _guest_writes(folder, 4608, b"w" * 512)

    status = run("export", "disk0/os@g", folder / "out.img")

    assert status == 0
    assert (folder / "out.img").read_bytes() == BASE[:4608] + b"w" * 512 + BASE[5120:]
    assert _plain(folder) == ["d.img", "d.img.overlays", "out.img", "t.toml"]


def test_export_of_an_extent_is_that_range(folder: Path, run: Run) -> None:
    """Not the whole image."""
    run("export", "disk0/data", folder / "out.img")

    assert (folder / "out.img").read_bytes() == b"d" * 64 * KIB


def test_export_of_zeroes_is_sparse(folder: Path, run: Run) -> None:
    """An image that was made and has one cluster of data."""
    run("create", "big")
    with (folder / "big.img").open("r+b") as image:
        image.seek(1 << 20)
        image.write(b"x" * 4096)

    run("export", "big", folder / "out.img")

    assert (folder / "out.img").read_bytes() == (folder / "big.img").read_bytes()
    assert (folder / "out.img").stat().st_blocks * 512 <= 64 * KIB


def test_export_of_an_overlay_that_is_not_there_is_its_base(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """And none is made."""
    status = run("export", "disk0/os@g", folder / "out.img")

    assert (status, (folder / "out.img").read_bytes()) == (0, BASE)
    assert "disk0/os@g is not there yet: it is as its base" in capsys.readouterr().err
    assert not (folder / "d.img.overlays").exists()


@pytest.mark.parametrize("disk", ["disk0/os@g", "disk0/os", "disk0/data", "big"])
@pytest.mark.parametrize("length", [64 * KIB, 20 * KIB + 100, 0])
def test_import_and_export_give_the_image_back_with_zeroes_behind(
    folder: Path, run: Run, disk: str, length: int
) -> None:
    """Whatever was there before."""
    content = random.Random(3).randbytes(length)
    (folder / "in.img").write_bytes(content)
    run("create", disk)

    imported = run("import", folder / "in.img", disk)
    exported = run("export", disk, folder / "out.img")

    found = (folder / "out.img").read_bytes()
    assert (imported, exported) == (0, 0)
    assert found == content + bytes(len(found) - length)
    assert len(found) == (3 << 20 if disk == "big" else 64 * KIB)


def test_import_into_an_extent_keeps_the_others_and_the_mode(folder: Path, run: Run) -> None:
    """The image is another file, and looks like the old one."""
    (folder / "in.img").write_bytes(b"n" * 64 * KIB)
    (folder / "d.img").chmod(0o600)

    run("import", folder / "in.img", "disk0/data")

    assert (folder / "d.img").read_bytes() == BASE + b"n" * 64 * KIB
    assert (folder / "d.img").stat().st_mode & 0o777 == 0o600
    assert _plain(folder) == ["d.img", "in.img", "t.toml"]


def test_import_into_an_overlay_takes_space_for_differences_only(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is as in the base stays there, what is zero is a hole."""
    (folder / "in.img").write_bytes(BASE[:8192] + b"n" * 4096 + bytes(4096) + BASE[16384:])

    run("import", folder / "in.img", "disk0/os@g")

    row = _listed(run, capsys)["disk0/os@g"]
    maps = 8192 + 2 * 4096
    assert (folder / "d.img").read_bytes()[: 64 * KIB] == BASE
    assert row["allocated_bytes"] <= maps + 4096 + 4096
    run("export", "disk0/os@g", folder / "out.img")
    assert (folder / "out.img").read_bytes() == (folder / "in.img").read_bytes()


def test_import_below_overlays_is_refused(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """They would be of another base."""
    _guest_writes(folder, 0, b"w" * 512)
    (folder / "in.img").write_bytes(b"n" * 512)

    status = run("import", folder / "in.img", "disk0/os")

    assert status == 1
    assert "disk0/os: overlays lie over it: os@g; export what is to stay" in capsys.readouterr().err
    assert (folder / "d.img").read_bytes()[: 64 * KIB] == BASE


def test_import_that_fails_half_way_leaves_the_disk(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it was, without a scratch file."""
    (folder / "in.img").write_bytes(b"n" * 512)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    status = run("import", folder / "in.img", "disk0/data")

    assert status == 1
    assert "d.img: cannot be written (No space left on device); it is as it was" in capsys.readouterr().err
    assert (folder / "d.img").read_bytes() == BASE + b"d" * 64 * KIB
    assert _plain(folder) == ["d.img", "in.img", "t.toml"]


def test_create_makes_an_overlay_or_an_image_once(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The second time it is there already."""
    statuses = [run("create", disk) for disk in ("disk0/os@g", "big", "disk0/os@g", "big")]

    assert statuses == [0, 0, 1, 1]
    assert capsys.readouterr().err.count("is there already; put something into it with: iovirt disk import FILE") == 2
    assert (folder / "big.img").stat().st_size == 3 << 20
    assert _plain(folder / "d.img.overlays") == ["os@g.cow"]


def test_create_from_an_image_is_that_image(folder: Path, run: Run) -> None:
    """With zeroes behind its end."""
    (folder / "in.img").write_bytes(b"n" * 512)

    status = run("create", "big", "--from", folder / "in.img")

    assert status == 0
    assert (folder / "big.img").read_bytes() == b"n" * 512 + bytes((3 << 20) - 512)


def test_rm_takes_the_guest_back_to_the_base(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The overlay's file is gone; a second time there is none."""
    _guest_writes(folder, 0, b"w" * 512)

    statuses = [run("rm", "disk0/os@g"), run("rm", "disk0/os@g")]

    assert statuses == [0, 1]
    assert "there is no such overlay" in capsys.readouterr().err
    assert _plain(folder / "d.img.overlays") == []


def test_work_on_a_disk_in_use_is_refused_with_the_process(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is changed, and no file is made."""
    (folder / "in.img").write_bytes(b"n" * 512)
    held = FileStorage(folder / "d.img")

    statuses = [
        run("export", "disk0/os", folder / "out.img"),
        run("import", folder / "in.img", "disk0/data"),
        run("create", "disk0/os@g"),
    ]
    said = capsys.readouterr().err
    held.close()

    assert statuses == [1, 1, 1]
    assert said.count(f"is in use by process {os.getpid()}") == 3
    assert said.count("stop that first: iovirt down") == 3
    assert _plain(folder) == ["d.img", "in.img", "t.toml"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "disk0", "o.img"], "'disk0': controller 'disk0' has 2 extents; name one: os, data"),
        (["export", "disc0", "o.img"], "'disc0': no block controller 'disc0'; did you mean 'disk0'?"),
        (["export", "disk0/oss", "o.img"], "'disk0/oss': controller 'disk0' has no extent 'oss'; did you mean 'os'?"),
        (["export", "disk0/os", "/dev/null"], "'/dev/null': is no plain file; name a file to be written"),
        (["export", "disk0/os", "/dev/stdout"], "'/dev/stdout': is no plain file"),
        (["create", "disk0/os@x"], "'disk0/os@x': no guest 'x' has an overlay over extent 'os'; did you mean"),
        (["create", "big@h"], "'big/all@h': no guest 'h' has an overlay over extent 'all'; set overlay = true"),
        (["rm", "disk0/os"], "'disk0/os': only overlays can be removed; remove its image yourself"),
    ],
)
def test_mistakes_are_usage_errors(
    run: Run, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """One line: what, where, what to do."""
    status = run(*words)

    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (2, 1)
    assert message in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["import", "absent.img", "big"], "absent.img: cannot be read (No such file or directory)"),
        (["import", "/dev/zero", "big"], "/dev/zero: is no file or block device; name a raw disk image"),
        (["import", "d.img", "disk0/data"], "d.img: 128KiB do not fit into disk0/data, which has 64KiB"),
        (["export", "big", "o.img"], "big.img): has no image yet, so there is no base; iovirt disk create big"),
        (["export", "disk0/os", "absent/o.img"], "absent/o.img: cannot be written (No such file or directory)"),
    ],
)
def test_work_that_cannot_be_done_fails_with_a_line(
    folder: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    """And leaves nothing."""
    monkeypatch.chdir(folder)

    status = run(*words)

    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (1, 1)
    assert message in said
    assert _plain(folder) == ["d.img", "t.toml"]


def test_export_onto_an_image_of_the_topology_is_refused(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would take its place."""
    status = run("export", "disk0/os", folder / "d.img")

    assert status == 2
    assert "is of controller 'disk0'; name another file" in capsys.readouterr().err


def test_json_says_what_was_done(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """One object on stdout."""
    (folder / "in.img").write_bytes(b"n" * 1024)

    said = []
    for words in (["create", "disk0/os@g"], ["import", folder / "in.img", "disk0/os@g"], ["rm", "disk0/os@g"]):
        run(*words, "--json")
        said.append(json.loads(capsys.readouterr().out))

    assert said == [
        {"created": "disk0/os@g", "bytes": 65536},
        {"imported": "disk0/os@g", "bytes": 1024, "file": str(folder / "in.img")},
        {"removed": "disk0/os@g", "bytes": 65536},
    ]


def test_ls_tells_extents_and_overlays(folder: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Of guests that are not in the topology any more, too; what is held is in use."""
    _guest_writes(folder, 0, b"w" * 512)
    overlays = folder / "d.img.overlays"
    (overlays / "os@old.cow").write_bytes((overlays / "os@g.cow").read_bytes())
    (overlays / "os@bad.cow").write_bytes(b"junk")
    held = FileStorage(overlays / "os@g.cow")

    rows = _listed(run, capsys)
    held.close()

    assert {name: (row["kind"], row["state"], row["guests"], row["base"]) for name, row in rows.items()} == {
        "disk0/os": ("extent", "free", [], None),
        "disk0/os@bad": ("overlay", "damaged", ["bad"], "disk0/os"),
        "disk0/os@g": ("overlay", "in use", ["g"], "disk0/os"),
        "disk0/os@old": ("overlay", "unused", ["old"], "disk0/os"),
        "disk0/data": ("extent", "free", [], None),
        "big/all": ("extent", "absent", ["h"], None),
    }
    assert rows["disk0/os@g"]["pid"] == os.getpid()
    assert (rows["disk0/os"]["allocated_bytes"], rows["big/all"]["allocated_bytes"]) == (65536, 0)
    assert "is no overlay" in rows["disk0/os@bad"]["problem"]


def test_ls_fits_eighty_columns(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each disk."""
    monkeypatch.setenv("COLUMNS", "80")

    run("ls")

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:]] == ["disk0/os", "disk0/os@g", "disk0/data", "big/all"]
    assert lines[3].split()[-2:] == ["g", "absent"]
