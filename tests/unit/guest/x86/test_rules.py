"""The architecture's rules without an engine: paging, nested faults, string decode."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.x86.faults import Fault, combine
from iovirt_dist.guest.x86.paging import Mmu
from iovirt_dist.guest.x86.state import CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, DS, ES, FS
from iovirt_dist.guest.x86.strings import StringInstruction, decode


class Ram:
    """64 KiB of RAM at 0."""

    def __init__(self) -> None:
        self.data = bytearray(0x10000)

    def read_memory(self, address: int, length: int) -> bytes:
        """Read."""
        if address + length > len(self.data):
            raise LocalError("outside")
        return bytes(self.data[address : address + length])

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write."""
        self.data[address : address + len(data)] = data

    def is_ram(self, address: int, length: int) -> bool:
        """Whether it is inside."""
        return address + length <= len(self.data)


def controls(cr4: int = 0, cr0: int = CR0_PG | CR0_WP) -> Any:
    """Paging on, top table at 1000h."""
    return SimpleNamespace(cr0=cr0, cr3=0x1000, cr4=cr4)


def test_translate_without_paging_is_identity() -> None:
    """Linear is physical."""
    assert Mmu(Ram()).translate(controls(cr0=0), 0x12345, write=True, user=True) == 0x12345


def test_translate_small_page_sets_accessed_and_dirty() -> None:
    """Both levels get A, the page D on a write."""
    ram = Ram()
    ram.write_memory(0x1004, struct.pack("<I", 0x2007))
    ram.write_memory(0x2008, struct.pack("<I", 0x9007))
    assert Mmu(ram).translate(controls(), 0x402ABC, write=True, user=True) == 0x9ABC
    assert struct.unpack("<I", ram.read_memory(0x1004, 4)) == (0x2027,)
    assert struct.unpack("<I", ram.read_memory(0x2008, 4)) == (0x9067,)


def test_translate_4_mib_page_needs_pse() -> None:
    """With CR4.PSE the directory entry is the page."""
    ram = Ram()
    ram.write_memory(0x1004, struct.pack("<I", 0x0080_0087))
    assert Mmu(ram).translate(controls(CR4_PSE), 0x412345, write=False, user=True) == 0x812345


def test_translate_pae_pages() -> None:
    """Three levels, 64-bit entries, 4 KiB and 2 MiB pages."""
    ram = Ram()
    ram.write_memory(0x1000, struct.pack("<Q", 0x2001))
    ram.write_memory(0x2000, struct.pack("<QQ", 0x3007, 0x1_0020_0087))
    ram.write_memory(0x3008, struct.pack("<Q", 0x8007))
    mmu = Mmu(ram)
    assert mmu.translate(controls(CR4_PAE), 0x1234, write=True, user=True) == 0x8234
    assert mmu.translate(controls(CR4_PAE), 0x23_4567, write=False, user=True) == 0x1_0023_4567


@pytest.mark.parametrize(
    ("flags", "write", "user", "error_code"),
    [(6, False, False, 0), (6, True, True, 6), (5, True, True, 7), (3, False, True, 5), (1, True, False, 3)],
)
def test_translate_refused_raises_page_fault(flags: int, write: bool, user: bool, error_code: int) -> None:
    """Error code and address are those of the processor."""
    ram = Ram()
    ram.write_memory(0x1004, struct.pack("<I", 0x2007))
    ram.write_memory(0x2008, struct.pack("<I", 0x9000 | flags))
    with pytest.raises(Fault) as caught:
        Mmu(ram).translate(controls(), 0x402ABC, write=write, user=user)
    assert (caught.value.vector, caught.value.error_code, caught.value.address) == (14, error_code, 0x402ABC)


def test_supervisor_writes_read_only_page_without_wp() -> None:
    """CR0.WP clear."""
    ram = Ram()
    ram.write_memory(0x1004, struct.pack("<I", 0x2007))
    ram.write_memory(0x2008, struct.pack("<I", 0x9001))
    assert Mmu(ram).translate(controls(cr0=CR0_PG), 0x402ABC, write=True, user=False) == 0x9ABC


@pytest.mark.parametrize(
    ("first", "second", "following"),
    [
        (6, 13, 13),
        (13, 6, 6),
        (13, 11, 8),
        (0, 10, 8),
        (13, 14, 14),
        (14, 13, 8),
        (14, 14, 8),
        (14, 6, 6),
        (8, 13, None),
        (8, 14, None),
        (8, 6, 6),
    ],
)
def test_combine_follows_double_fault_table(first: int, second: int, following: int | None) -> None:
    """Intel SDM volume 3, table 7-5."""
    assert combine(first, second) == following


@pytest.mark.parametrize(
    ("code", "big", "expected"),
    [
        ("6c", True, StringInstruction(False, False, 1, ES, 0xFFFF_FFFF)),
        ("f36d", True, StringInstruction(False, True, 4, ES, 0xFFFF_FFFF)),
        ("66f36d", True, StringInstruction(False, True, 2, ES, 0xFFFF_FFFF)),
        ("f366676f", False, StringInstruction(True, True, 4, DS, 0xFFFF_FFFF)),
        ("64f26e", False, StringInstruction(True, True, 1, FS, 0xFFFF)),
        ("f3676c", True, StringInstruction(False, True, 1, ES, 0xFFFF)),
        ("ec", True, None),
        ("66ed", True, None),
        ("f3", True, None),
        ("", True, None),
    ],
)
def test_decode_knows_prefixes_and_default_sizes(code: str, big: bool, expected: StringInstruction | None) -> None:
    """Operand size, address size, REP and segment overrides in any order."""
    attributes = 1 << 22 if big else 0
    segment = SimpleNamespace(attributes=attributes)
    state: Any = SimpleNamespace(segments=[segment] * 6, protected=True, virtual_8086=False)
    assert decode(bytes.fromhex(code), state) == expected
