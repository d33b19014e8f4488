"""Raw image files."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from iovirt_dist.controllers.block import storage as storage_module
from iovirt_dist.controllers.block.storage import FileStorage
from iovirt_dist.errors import ImageError


def test_absent_image_with_size_is_created_sparse(tmp_path: Path) -> None:
    """The file and its folder come into being, without taking space."""
    path = tmp_path / "run" / "disk.img"

    FileStorage(path, 64 << 20).close()

    assert path.stat().st_size == 64 << 20
    assert path.stat().st_blocks * 512 < 1 << 20


def test_existing_image_keeps_its_content_and_its_larger_size(tmp_path: Path) -> None:
    """The size asked for is a minimum."""
    path = tmp_path / "disk.img"
    path.write_bytes(b"a" * 2048)

    storage = FileStorage(path, 1024)

    assert storage.size_bytes == 2048
    assert storage.read_at(0, 2048) == b"a" * 2048
    storage.close()


def test_image_left_empty_by_a_killed_creator_gets_its_size(tmp_path: Path) -> None:
    """A start that was cut between creating and sizing is made good."""
    path = tmp_path / "disk.img"
    path.touch()

    storage = FileStorage(path, 1024)

    assert storage.size_bytes == 1024
    storage.close()


def _absent(path: Path) -> None:
    """Leave nothing there."""


def _fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "size_bytes", "words"),
    [
        (_absent, None, ["no such image", "give its size"]),
        (lambda path: path.write_bytes(bytes(1024)), 2048, ["1024 bytes", "2048", "truncate -s 2048"]),
        (lambda path: path.write_bytes(bytes(1000)), 512, ["1000 bytes", "512-byte blocks", "truncate -s %512"]),
        (lambda path: path.touch(), None, ["0 bytes"]),
        (lambda path: path.mkdir(), 512, ["cannot be opened", "directory"]),
        (_fifo, 512, ["no file or block device"]),
    ],
    ids=["absent", "short", "unaligned", "empty", "directory", "fifo"],
)
def test_image_that_cannot_be_used_is_one_line_with_a_fix(
    tmp_path: Path, make: Callable[[Path], object], size_bytes: int | None, words: list[str]
) -> None:
    """What, where and what to do."""
    path = tmp_path / "disk.img"
    make(path)

    with pytest.raises(ImageError) as caught:
        FileStorage(path, size_bytes)

    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert [word for word in words if word not in text.lower()] == []


def test_image_in_use_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    """One image has one owner."""
    path = tmp_path / "disk.img"
    first = FileStorage(path, 1024)

    with pytest.raises(ImageError, match="in use by process"):
        FileStorage(path, 1024)
    first.close()
    FileStorage(path, 1024).close()


def test_read_only_images_are_shared_and_refuse_writes(tmp_path: Path) -> None:
    """Two readers, no writer."""
    path = tmp_path / "disk.img"
    path.write_bytes(b"r" * 1024)
    first, second = FileStorage(path, read_only=True), FileStorage(path, 1024, read_only=True)

    with pytest.raises(OSError, match=r"."):
        first.write_at(0, bytes(512))
    with pytest.raises(ImageError, match="in use"):
        FileStorage(path)

    assert second.read_at(512, 512) == b"r" * 512
    first.close()
    second.close()


def test_read_only_image_is_never_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems without writing (iso9660, squashfs) refuse that; once it is closed there is nothing to sync."""
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1024))
    storage = FileStorage(path, read_only=True)

    def refuse(fd: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fdatasync", refuse)

    storage.sync()
    storage.close()
    with pytest.raises(OSError, match="image is closed"):
        storage.sync()


def test_absent_image_opened_read_only_is_not_created(tmp_path: Path) -> None:
    """Nothing can be read from an image that is not there."""
    with pytest.raises(ImageError, match="no such image"):
        FileStorage(tmp_path / "disk.img", 1024, read_only=True)

    assert not (tmp_path / "disk.img").exists()


def test_image_cut_short_behind_our_back_reads_as_an_io_error(tmp_path: Path) -> None:
    """Bytes that are gone are not zeroes."""
    path = tmp_path / "disk.img"
    storage = FileStorage(path, 2048)
    os.truncate(path, 1024)

    with pytest.raises(OSError, match="shorter") as caught:
        storage.read_at(512, 1024)

    assert caught.value.errno == errno.EIO
    storage.close()


def test_discard_without_holes_writes_zeroes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that cannot punch holes gives the same data."""
    storage = FileStorage(tmp_path / "disk.img", 3 << 20)
    storage.write_at(0, b"x" * (3 << 20))
    monkeypatch.setattr(storage_module, "_fallocate", lambda *_: -1)
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EOPNOTSUPP)

    storage.discard(512, (2 << 20) + 512)

    assert storage.read_at(0, 512) == b"x" * 512
    assert storage.read_at(512, (2 << 20) + 512) == bytes((2 << 20) + 512)
    assert storage.read_at((2 << 20) + 1024, 512) == b"x" * 512
    storage.close()


def test_discard_that_the_medium_refuses_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not about missing support is the command's outcome."""
    storage = FileStorage(tmp_path / "disk.img", 4096)
    monkeypatch.setattr(storage_module, "_fallocate", lambda *_: -1)
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EIO)

    with pytest.raises(OSError, match="Input/output") as caught:
        storage.discard(0, 4096)

    assert caught.value.errno == errno.EIO
    storage.close()


def test_discard_frees_the_blocks(tmp_path: Path) -> None:
    """A hole takes no space."""
    path = tmp_path / "disk.img"
    storage = FileStorage(path, 1 << 20)
    storage.write_at(0, b"x" * (1 << 20))
    storage.sync()
    before = path.stat().st_blocks

    storage.discard(0, 1 << 20)
    storage.sync()

    assert path.stat().st_blocks < before
    storage.close()


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [(BlockingIOError(errno.EAGAIN, "cold"), False), (100, False), (512, True)],
    ids=["cold", "partly-cold", "cached"],
)
def test_read_cached_says_whether_all_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: int | OSError, expected: bool
) -> None:
    """RWF_NOWAIT says EAGAIN or reads less when a page is not in the cache."""
    storage = FileStorage(tmp_path / "disk.img", 4096)
    monkeypatch.setattr(os, "preadv", _Scripted(outcome))

    assert storage.read_cached(0, memoryview(bytearray(512))) is expected
    storage.close()


def test_read_cached_without_kernel_support_reads_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tmpfs does not know the flag; it is asked once."""
    storage = FileStorage(tmp_path / "disk.img", 4096)
    storage.write_at(0, b"t" * 512)
    flags: list[int] = []

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int, asked: int) -> int:
        flags.append(asked)
        if asked:
            raise OSError(errno.EOPNOTSUPP, "flag")
        return real(fd, buffers, offset, asked)

    real = os.preadv
    monkeypatch.setattr(os, "preadv", preadv)
    buffers = bytearray(512), bytearray(512)

    assert [storage.read_cached(0, memoryview(buffer)) for buffer in buffers] == [True, True]
    assert b"".join(buffers) == b"t" * 1024
    assert flags == [os.RWF_NOWAIT, 0, 0]
    storage.close()


class _Scripted:
    """A preadv that always ends the same way."""

    def __init__(self, outcome: int | OSError) -> None:
        self._outcome = outcome

    def __call__(self, *_: object) -> int:
        if isinstance(self._outcome, OSError):
            raise self._outcome
        return self._outcome


def test_file_that_was_made_longer_is_noticed_once(tmp_path: Path) -> None:
    """In whole blocks; a shorter one is none that has grown."""
    storage = FileStorage(tmp_path / "d.img", 4096)
    before = storage.grown()

    os.truncate(tmp_path / "d.img", 8192 + 100)
    after = [storage.grown(), storage.grown()]
    os.truncate(tmp_path / "d.img", 4096)

    assert (before, after, storage.grown()) == (False, [True, False], False)
    assert storage.size_bytes == 8192
    storage.close()
