"""Pages, their protection, and the page tables that say so: walked here as the architectures do."""

from __future__ import annotations

from random import Random

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.program.address_space import AddressSpace, OutOfMemoryError
from iovirt_dist.guest.program.tables import LONG_MODE, PAE, PAGE_BYTES, SV39, TableFormat
from iovirt_dist.wire.codec import Buffer

BASE = 0x8000_0000
USER_END = 0x4000_0000
FORMATS = {"long": LONG_MODE, "pae": PAE, "sv39": SV39}


class Ram:
    """Physical memory of `pages` pages at `BASE`."""

    def __init__(self, pages: int = 64) -> None:
        self.content = bytearray(pages * PAGE_BYTES)

    def read_memory(self, address: int, length: int) -> bytes:
        """Read."""
        return bytes(self.content[address - BASE : address - BASE + length])

    def write_memory(self, address: int, data: Buffer) -> None:
        """Write; outside is an error."""
        start = address - BASE
        if start < 0 or start + len(data) > len(self.content):
            raise LocalError("outside")
        self.content[start : start + len(data)] = data


def space(ram: Ram, layout: TableFormat = LONG_MODE, flushed: list[int] | None = None) -> AddressSpace:
    """An empty address space over all of `ram`."""
    log = [] if flushed is None else flushed
    return AddressSpace(ram, BASE, len(ram.content), layout, USER_END, lambda: log.append(1))


def walk(ram: Ram, found: AddressSpace, layout: TableFormat, address: int) -> int:
    """The leaf entry for an address, 0 if a table on the way is missing."""
    table = found.root
    entry = 0
    for index in layout.indices(address):
        entry = int.from_bytes(ram.read_memory(table + 8 * index, 8), "little")
        if not entry & 1:
            return 0
        table = (entry << layout.shift) & 0x00FF_FFFF_FFFF_F000
    return entry


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("long", {1: 1 << 63 | 5, 3: 1 << 63 | 7, 5: 5, 7: 7, 0: 0}),
        ("pae", {1: 1 << 63 | 5, 3: 1 << 63 | 7, 5: 5, 7: 7, 0: 0}),
        ("sv39", {1: 0x13, 2: 0x17, 3: 0x17, 4: 0x19, 5: 0x1B, 7: 0x1F, 0: 0}),
    ],
)
def test_entries_say_what_the_protection_is(name: str, flags: dict[int, int]) -> None:
    """Present, user, writable and no-execute of x86; V, R, W, X and U of RISC-V; accessed and dirty aside."""
    ram, layout = Ram(), FORMATS[name]
    found = space(ram, layout)
    mask = 1 << 63 | 7 if name != "sv39" else 0x1F
    for protection, expected in flags.items():
        assert found.map(0x20_0000, PAGE_BYTES, protection)
        assert walk(ram, found, layout, 0x20_0000) & mask == expected


@pytest.mark.parametrize("name", list(FORMATS))
def test_tables_lead_to_the_memory(name: str) -> None:
    """A range over the border of a table: each page's entry names the frame that holds its bytes."""
    ram, layout = Ram(), FORMATS[name]
    found = space(ram, layout)
    start = 0x3F_E000
    assert found.map(start, 4 * PAGE_BYTES, 3)
    for page in range(4):
        found.write(start + page * PAGE_BYTES, bytes([page + 1]) * 8)
        entry = walk(ram, found, layout, start + page * PAGE_BYTES)
        frame = (entry << layout.shift) & 0x00FF_FFFF_FFFF_F000
        assert ram.read_memory(frame, 8) == bytes([page + 1]) * 8


def test_unmap_takes_entries_away_and_frames_come_back_zeroed() -> None:
    """A small memory is used over and over; nothing of an old page is seen in a new one."""
    ram = Ram(16)
    found = space(ram)
    for _ in range(20):
        assert found.map(0x10_0000, 8 * PAGE_BYTES, 3)
        assert found.read(0x10_0000, 8 * PAGE_BYTES) == bytes(8 * PAGE_BYTES)
        found.write(0x10_0000, b"\xff" * 8 * PAGE_BYTES)
        assert found.unmap(0x10_0000, 8 * PAGE_BYTES)
        assert walk(ram, found, LONG_MODE, 0x10_0000) == 0
        assert found.accessible(0x10_0000, 1, write=False) == 0


def test_map_over_mapped_memory_zeroes_it() -> None:
    """As MAP_FIXED does."""
    found = space(Ram())
    found.map(0x10_0000, PAGE_BYTES, 3)
    found.write(0x10_0000, b"old")
    found.map(0x10_0000, PAGE_BYTES, 1)
    assert found.read(0x10_0000, 3) == bytes(3)
    assert found.accessible(0x10_0000, 3, write=True) == 0


def test_protect_keeps_contents() -> None:
    """Down to nothing and up again; holes in the range are no error."""
    found = space(Ram())
    found.map(0x10_0000, PAGE_BYTES, 3)
    found.map(0x10_2000, PAGE_BYTES, 3)
    found.write(0x10_2000, b"kept")
    assert found.protect(0x10_0000, 3 * PAGE_BYTES, 0)
    assert found.accessible(0x10_2000, 4, write=False) == 0
    assert found.protect(0x10_0000, 3 * PAGE_BYTES, 1)
    assert (found.read(0x10_2000, 4), found.accessible(0x10_2000, 4, write=False)) == (b"kept", 4)


def test_access_ends_at_the_first_page_without_the_right() -> None:
    """Writable, readable, absent."""
    found = space(Ram())
    found.map(0x10_0000, PAGE_BYTES, 3)
    found.map(0x10_1000, PAGE_BYTES, 1)
    assert found.accessible(0x10_0FF0, 0x2000, write=True) == 0x10
    assert found.accessible(0x10_0FF0, 0x2000, write=False) == 0x1010
    found.write(0x10_0FFE, b"abcd")
    assert found.read(0x10_0FFE, 4) == b"ab\0\0"


@pytest.mark.parametrize(
    ("address", "length"),
    [(0x10_0001, 1), (0x10_0000, 0), (0x10_0000, -1), (USER_END - PAGE_BYTES, PAGE_BYTES + 1), (1 << 64, 1)],
)
def test_range_that_is_not_the_programs_changes_nothing(address: int, length: int) -> None:
    """Misaligned, empty, or beyond the end."""
    found = space(Ram())
    assert not found.map(address, length, 3)
    assert not found.unmap(address, length)
    assert not found.protect(address, length, 3)


def test_memory_that_is_too_small_is_an_error_and_changes_nothing() -> None:
    """Frames for pages and for their tables are counted beforehand."""
    ram = Ram(16)
    found = space(ram)
    before = bytes(ram.content)
    for length in (13 * PAGE_BYTES, USER_END - 0x10_0000):
        with pytest.raises(OutOfMemoryError):
            found.map(0x10_0000, length, 3)
    assert bytes(ram.content) == before
    assert found.map(0x10_0000, 12 * PAGE_BYTES, 3)  # 16 less the root and three tables
    with pytest.raises(OutOfMemoryError):
        found.map(0x11_0000, 1, 3)


def test_huge_range_costs_only_what_is_mapped() -> None:
    """The whole address space is unmapped at once: in no time, because little is there."""
    ram = Ram()
    found = AddressSpace(ram, BASE, len(ram.content), LONG_MODE, 1 << 47, lambda: None)
    found.map(0x10_0000, PAGE_BYTES, 3)
    assert found.protect(0, 1 << 47, 1)
    assert found.unmap(0, 1 << 47)
    assert found.accessible(0x10_0000, 1, write=False) == 0


def test_every_change_makes_the_cpu_forget_translations() -> None:
    """One flush each."""
    flushed: list[int] = []
    found = space(Ram(), LONG_MODE, flushed)
    found.map(0x10_0000, PAGE_BYTES, 3)
    found.protect(0x10_0000, PAGE_BYTES, 1)
    found.unmap(0x10_0000, PAGE_BYTES)
    assert len(flushed) == 3


def test_system_page_is_not_the_programs() -> None:
    """The CPU finds it by its address; the program has no right to it."""
    ram = Ram()
    found = space(ram)
    frame = found.map_system(0xFFFF_FFFF_FFFF_E000, b"table")
    entry = walk(ram, found, LONG_MODE, 0xFFFF_FFFF_FFFF_E000)
    assert entry & 0x00FF_FFFF_FFFF_F007 == frame | 1
    assert ram.read_memory(frame, 5) == b"table"
    assert found.accessible(0xFFFF_FFFF_FFFF_E000, 1, write=False) == 0


@pytest.mark.parametrize("name", list(FORMATS))
def test_random_changes_agree_with_a_simple_model(name: str) -> None:
    """A thousand maps, unmaps and protections: rights and tables agree with a dictionary."""
    ram, layout, random = Ram(256), FORMATS[name], Random(7)
    found = space(ram, layout)
    model: dict[int, int] = {}
    for _ in range(1000):
        page, count, protection = random.randrange(500, 530), random.randrange(1, 8), random.choice((0, 1, 3, 5))
        pages = range(page, page + count)
        kind = random.choice(("map", "unmap", "protect"))
        getattr(found, kind)(page * PAGE_BYTES, count * PAGE_BYTES, *([] if kind == "unmap" else [protection]))
        held = {p for p in pages if p in model}
        model |= dict.fromkeys({"map": pages, "unmap": (), "protect": held}[kind], protection)
        model = {p: rights for p, rights in model.items() if kind != "unmap" or p not in pages}
    for page in range(490, 545):
        rights = model.get(page, 0)
        assert found.accessible(page * PAGE_BYTES, 1, write=False) == bool(rights & 5 or rights & 2)
        assert found.accessible(page * PAGE_BYTES, 1, write=True) == bool(rights & 2)
        assert bool(walk(ram, found, layout, page * PAGE_BYTES)) == bool(rights)
