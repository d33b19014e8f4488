"""`ByteMemory`: guest memory in a bytearray."""

from __future__ import annotations

import pytest

from iovirt_dist.virtio.memory import ByteMemory, MemoryRangeError

BASE = 0x8000_0000


def test_byte_memory_written_can_be_read_and_viewed() -> None:
    """A copy and the memory itself."""
    memory = ByteMemory(64, BASE)
    view = memory.view(BASE + 8, 4)
    memory.write(BASE + 8, b"abcd")
    assert memory.read(BASE + 8, 4) == b"abcd"
    assert bytes(view) == b"abcd"
    assert bytes(memory.data[8:12]) == b"abcd"


def test_byte_memory_view_changed_changes_the_memory() -> None:
    """Both are the same bytes."""
    memory = ByteMemory(64, BASE)
    memory.view(BASE, 2)[:] = b"xy"
    assert memory.read(BASE, 2) == b"xy"


def test_byte_memory_empty_range_at_the_end_is_no_error() -> None:
    """A length of 0 is none of an error anywhere inside RAM."""
    assert ByteMemory(64, BASE).read(BASE + 64, 0) == b""


@pytest.mark.parametrize(
    ("address", "length"),
    [(BASE - 1, 1), (BASE + 64, 1), (BASE + 60, 5), (BASE, 65), (0, 1), ((1 << 64) - 1, 2), (BASE, -1), (-1, 1)],
)
def test_byte_memory_outside_is_refused(address: int, length: int) -> None:
    """Any address and length may be asked for."""
    memory = ByteMemory(64, BASE)
    with pytest.raises(MemoryRangeError):
        memory.view(address, length)


def test_byte_memory_write_across_the_end_writes_nothing() -> None:
    """All or nothing."""
    memory = ByteMemory(4, 0)
    with pytest.raises(MemoryRangeError):
        memory.write(2, b"abc")
    assert memory.data == bytes(4)
