"""What ``iovirt disk`` copies: media that fail, or know less than a file does."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from iovirt_dist.controllers.block.overlay_format import SAMPLES
from iovirt_dist.controllers.block.storage import FileStorage
from tests.unit.cli.disk_support import Run, disk_command

KIB = 1024
TOPOLOGY = """
[hypervisor.hv0]
[controller.disk0]
kind = "block"
image = "d.img"
size = "128KiB"
[controller.disk0.extents]
os = { offset = 0, size = "64KiB" }
data = { offset = "64KiB", size = "64KiB" }
[guest.g]
kind = "script"
hypervisor = "hv0"
script = "x.py:main"
devices = { disk = "disk0/os", overlay = true }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A topology that is not up, with a base and no overlay, and an image to import."""
    (tmp_path / "t.toml").write_text(TOPOLOGY)
    (tmp_path / "d.img").write_bytes(b"o" * 64 * KIB + b"d" * 64 * KIB)
    (tmp_path / "in.img").write_bytes(b"n" * 64 * KIB)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """Run ``iovirt disk`` in that folder."""
    return disk_command(folder)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _fail_seek_data(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """Let no file tell where its data is."""
    real = os.lseek

    def lseek(fd: int, position: int, whence: int) -> int:
        if whence == os.SEEK_DATA:
            raise OSError(error, os.strerror(error))
        return real(fd, position, whence)

    monkeypatch.setattr(os, "lseek", lseek)


def _break(monkeypatch: pytest.MonkeyPatch, path: Path, reads: int) -> None:
    """Let a file fail to be read after so many reads."""
    real, inode, left = os.pread, path.stat().st_ino, iter(range(reads))

    def pread(fd: int, length: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == inode and next(left, None) is None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, length, offset)

    monkeypatch.setattr(os, "pread", pread)


def _hide(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let nobody look at files of a name, as in a folder that may not be searched."""
    real = os.stat

    def look(path: int | str | Path, *, dir_fd: int | None = None, follow_symlinks: bool = True) -> os.stat_result:
        if isinstance(path, str | Path) and Path(path).name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "stat", look)


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP])
def test_import_of_what_knows_no_holes_copies_all_of_it(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """A block device says EINVAL; the image's other extent stays as well."""
    _fail_seek_data(monkeypatch, error)

    status = run("import", folder / "in.img", "disk0/data")

    assert status == 0
    assert (folder / "d.img").read_bytes() == b"o" * 64 * KIB + b"n" * 64 * KIB


def test_import_of_what_cannot_say_where_its_data_is_fails(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a line, and the disk is as it was."""
    _fail_seek_data(monkeypatch, errno.EIO)

    status = run("import", folder / "in.img", "disk0/data")

    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (1, 1)
    assert "Input/output error" in said
    assert (folder / "d.img").read_bytes() == b"o" * 64 * KIB + b"d" * 64 * KIB
    assert _names(folder) == ["d.img", "in.img", "t.toml"]


def test_ls_of_an_image_that_cannot_be_read_fails_with_a_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which names it."""
    _fail_seek_data(monkeypatch, errno.EIO)

    status = run("ls")

    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (1, 1)
    assert "d.img: cannot be read (Input/output error)" in said


def _fail_sync(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Let nothing of a file become stable."""
    real, inode = os.fdatasync, path.stat().st_ino

    def fdatasync(fd: int) -> None:
        if os.fstat(fd).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)


def test_export_of_an_overlay_that_cannot_be_synced_fails_with_a_line(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which names the overlay."""
    run("create", "disk0/os@g")
    capsys.readouterr()
    _fail_sync(monkeypatch, folder / "d.img.overlays" / "os@g.cow")

    status = run("export", "disk0/os@g", folder / "out.img")

    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (1, 1)
    assert "os@g.cow: cannot be synced (Input/output error)" in said


def test_import_does_not_care_whether_the_old_image_can_be_synced(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been replaced."""
    _fail_sync(monkeypatch, folder / "d.img")

    status = run("import", folder / "in.img", "disk0/data")

    assert status == 0
    assert (folder / "d.img").read_bytes() == b"o" * 64 * KIB + b"n" * 64 * KIB


def test_create_on_a_full_file_system_fails_with_a_line(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Making the file's length stable may find that."""
    (folder / "d.img").unlink()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    status = run("create", "disk0/os")

    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (1, 1)
    assert "d.img: cannot be made (No space left on device)" in said


def test_import_keeps_an_image_that_a_controller_made_meanwhile(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its guest would write to a file without a name."""
    image = folder / "d.img"
    image.unlink()
    real = os.fsync

    def fsync(fd: int) -> None:
        image.write_bytes(b"c" * 128 * KIB)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    status = run("import", folder / "in.img", "disk0/data")

    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (1, 1)
    assert f"disk0/data ({image}): somebody else has just made it" in said
    assert image.read_bytes() == b"c" * 128 * KIB
    assert _names(folder) == ["d.img", "in.img", "t.toml"]


def test_export_onto_an_image_that_another_topology_uses_is_refused(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its controller would go on with a file without a name."""
    held = FileStorage(folder / "in.img")

    status = run("export", "disk0/os", folder / "in.img")
    held.close()

    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (1, 1)
    assert f"({folder / 'in.img'}): is in use by process {os.getpid()}" in said
    assert (folder / "in.img").read_bytes() == b"n" * 64 * KIB


@pytest.mark.parametrize(
    ("words", "hidden"),
    [
        (["create", "disk0/os@g"], "os@g.cow"),
        (["export", "disk0/os@g", "out.img"], "os@g.cow"),
        (["import", "in.img", "disk0/os@g"], "os@g.cow"),
        (["rm", "disk0/os@g"], "os@g.cow"),
        (["ls"], "os@g.cow"),
        (["import", "in.img", "disk0/data"], "d.img"),
        (["resize", "disk0/data", "1MiB"], "d.img"),
        (["export", "disk0/os", "out.img"], "out.img"),
    ],
)
def test_work_on_what_the_user_may_not_look_at_fails_with_a_line(
    folder: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    hidden: str,
) -> None:
    """It is neither there nor absent; nothing is made in its place."""
    monkeypatch.chdir(folder)
    _hide(monkeypatch, hidden)

    status = run(*words)

    said = capsys.readouterr().err
    assert (status, said.count("\n")) == (1, 1)
    assert f"{hidden}: cannot be looked at (Permission denied)" in said
    assert _names(folder) == ["d.img", "in.img", "t.toml"]


def test_export_does_not_mind_an_image_that_the_user_may_not_look_at(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another controller, which is not what is written."""
    (folder / "t.toml").write_text(f'{TOPOLOGY}[controller.o]\nkind = "block"\nimage = "o.img"\nsize = "64KiB"\n')
    (folder / "out.img").write_bytes(b"old")
    _hide(monkeypatch, "o.img")

    status = run("export", "disk0/os", folder / "out.img")

    assert (status, (folder / "out.img").read_bytes()) == (0, b"o" * 64 * KIB)


@pytest.mark.parametrize(
    ("words", "broken", "said"),
    [
        (["import", "in.img", "disk0/data"], "in.img", "in.img: cannot be read"),
        (["import", "in.img", "disk0/data"], "d.img", "d.img: cannot be read"),
        (["import", "in.img", "disk0/os@g"], "in.img", "in.img: cannot be read"),
        (["export", "disk0/os", "out.img"], "d.img", "d.img): cannot be read"),
    ],
)
def test_file_that_cannot_be_read_is_named(
    folder: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    broken: str,
    said: str,
) -> None:
    """Not the one that is written; nothing is left of that."""
    monkeypatch.chdir(folder)
    _break(monkeypatch, folder / broken, reads=0)

    status = run(*words)

    assert status == 1
    assert f"{said} (Input/output error)\n" in capsys.readouterr().err
    assert [name for name in _names(folder) if name != "d.img.overlays"] == ["d.img", "in.img", "t.toml"]


def test_base_that_cannot_be_read_during_an_import_is_named(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its fingerprint was made before."""
    _break(monkeypatch, folder / "d.img", reads=SAMPLES)

    status = run("import", folder / "in.img", "disk0/os@g")

    assert status == 1
    assert f"{folder / 'd.img'}: cannot be read (Input/output error)\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "replaced"),
    [
        (["import", "in.img", "disk0/data"], "d.img"),
        (["import", "in.img", "disk0/os@g"], "d.img.overlays/os@g.cow"),
        (["export", "disk0/data", "out.img"], "out.img"),
    ],
)
def test_new_file_is_as_private_as_the_one_it_replaces_from_the_start(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str], replaced: str
) -> None:
    """Whoever had opened it before it has its name could read it later."""
    monkeypatch.chdir(folder)
    run("create", "disk0/os@g")
    Path("out.img").touch()
    Path(replaced).chmod(0o600)
    modes: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        modes.extend(path.stat().st_mode & 0o777 for path in Path(replaced).parent.glob("*.new"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    run(*words)

    assert set(modes) == {0o600}
    assert Path(replaced).stat().st_mode & 0o777 == 0o600
