"""The overlay's header and layout, and the fingerprint of a base."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.controllers.block.overlay_format import (
    NO_LIFE,
    Layout,
    OverlayHeader,
    boot_id,
    fingerprint,
)
from iovirt_dist.errors import ImageError
from iovirt_dist.testing.storage import MemoryStorage

HEADER = OverlayHeader(1 << 20, bytes(range(32)), "/images/base.img")


def _changed(offset: int, data: bytes) -> bytes:
    packed = HEADER.pack()
    return packed[:offset] + data + packed[offset + len(data) :]


def test_header_unpacked_equals_what_was_packed() -> None:
    """4096 bytes hold everything."""
    assert len(HEADER.pack()) == 4096
    assert OverlayHeader.unpack(HEADER.pack(), "x.cow") == HEADER


def test_header_with_a_long_path_keeps_its_begin() -> None:
    """It is for messages only."""
    header = OverlayHeader(512, bytes(32), "/a" * 4000)

    assert OverlayHeader.unpack(header.pack(), "x.cow").base == ("/a" * 4000)[:4034]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no overlay"),
        (b"#!/bin/sh\n", "is no overlay"),
        (_changed(0, b"iovcow\n\n"), "is no overlay"),
        (HEADER.pack()[:4095], "header is damaged"),
        (_changed(20, b"\xff"), "header is damaged"),
        (OverlayHeader.pack(HEADER)[:-4] + bytes(4), "header is damaged"),
    ],
)
def test_header_that_is_none_is_refused_with_a_line(data: bytes, message: str) -> None:
    """Whatever a file holds."""
    with pytest.raises(ImageError, match=message) as raised:
        OverlayHeader.unpack(data, "x.cow")

    assert str(raised.value).startswith("x.cow: ")


def test_check_base_accepts_the_same_content_under_another_path() -> None:
    """An image may be moved."""
    HEADER.check_base(1 << 20, HEADER.fingerprint, "x.cow")


@pytest.mark.parametrize(
    ("size", "mark", "message"),
    [(512, HEADER.fingerprint, "for a base of 1048576 bytes, the extent has 512"), (1 << 20, bytes(32), "has changed")],
)
def test_check_base_refuses_another_base_and_names_the_right_one(size: int, mark: bytes, message: str) -> None:
    """The user learns where it was."""
    with pytest.raises(ImageError, match=message) as raised:
        HEADER.check_base(size, mark, "x.cow")

    assert "/images/base.img" in str(raised.value)


def test_layout_puts_maps_and_data_in_whole_blocks() -> None:
    """A disk of 129 MiB and a sector needs two blocks of map; its last cluster is whole in the file."""
    layout = Layout((129 << 20) + 512)

    assert layout.clusters == 129 * 256 + 1
    assert (layout.map_bytes, layout.recent_map_offset, layout.data_offset) == (8192, 16384, 24576)
    assert layout.file_bytes == 24576 + (129 << 20) + 4096


def test_fingerprint_tells_bases_apart_and_knows_its_own_again() -> None:
    """Content, length, and the last bytes count; where it lies does not."""
    content = bytes(range(256)) * 256
    base = MemoryStorage(len(content) + 512, bytes(512) + content)
    other = MemoryStorage(len(content), content[:-1] + b"x")

    mark = fingerprint(base, 512, len(content))

    assert mark == fingerprint(MemoryStorage(len(content), content), 0, len(content))
    assert len({mark, fingerprint(other, 0, len(content)), fingerprint(base, 512, len(content) - 512)}) == 3


def test_fingerprint_of_a_disk_of_one_sector_is_possible() -> None:
    """Shorter than a cluster."""
    assert len(fingerprint(MemoryStorage(512), 0, 512)) == 32


def test_boot_id_of_a_system_that_does_not_tell_is_none(tmp_path: Path) -> None:
    """Then only what is stable counts."""
    (tmp_path / "odd").write_text("no uuid\n")

    assert boot_id(tmp_path / "absent") == boot_id(tmp_path / "odd") == NO_LIFE
    assert boot_id() == boot_id()
    assert len(boot_id()) == 16
