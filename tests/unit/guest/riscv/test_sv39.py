"""Sv39 translation (`iovirt_dist.guest.riscv.sv39`)."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.riscv.sv39 import translate
from tests.unit.guest.riscv.support import HOLE, RAM, SV39, TABLE_PAGES, USER_FRAME, USER_PAGE, page_tables

TABLES = page_tables()


def read_memory(address: int, length: int) -> bytes:
    """Read the page tables; nothing else is RAM here."""
    offset = address - TABLE_PAGES
    if not 0 <= offset <= len(TABLES) - length:
        raise LocalError("not RAM")
    return TABLES[offset : offset + length]


@pytest.mark.parametrize(
    ("satp", "address", "physical"),
    [
        (0, 0x1234_5678, 0x1234_5678),
        (SV39, RAM + 0x123_4567, RAM + 0x123_4567),
        (SV39, USER_PAGE + 0xABC, USER_FRAME + 0xABC),
        (SV39, USER_PAGE + 0x1000, None),
        (SV39, HOLE, None),
        (8 << 60 | 0x1234, RAM, None),
    ],
)
def test_translate_walks_leaves_of_all_sizes(satp: int, address: int, physical: int | None) -> None:
    """Bare mode, a gigapage, a 4 KiB page, holes, and a table outside RAM."""
    assert translate(read_memory, satp, address) == physical
