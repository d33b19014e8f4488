"""Data sent ahead of the INs that ask for it, at the guest's end."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.prefetch import EMPTY, PrefetchBuffer

KERNEL = IoPrivilege(0)
USER = IoPrivilege(3)
PORT = 0x1F0


@pytest.fixture
def buffer() -> PrefetchBuffer:
    """Two words for the kernel's INs of the data port."""
    filled = PrefetchBuffer()
    filled.fill(PORT, 2, KERNEL, b"\x01\x02\x03\x04")
    return filled


def test_prefetched_elements_come_in_order_and_then_no_more(buffer: PrefetchBuffer) -> None:
    """Little-endian words, each once."""
    assert [buffer.take(PORT, 2, 1, KERNEL) for _ in range(4)] == [0x0201, 0x0403, EMPTY, EMPTY]


@pytest.mark.parametrize(
    ("port", "width", "count", "privilege"),
    [(0x1F7, 2, 1, KERNEL), (PORT, 1, 1, KERNEL), (PORT, 4, 1, KERNEL), (PORT, 2, 2, KERNEL), (PORT, 2, 1, USER)],
)
def test_other_access_is_not_answered(
    buffer: PrefetchBuffer, port: int, width: int, count: int, privilege: IoPrivilege
) -> None:
    """What the hypervisor did not say yes to, or might answer otherwise, it is asked."""
    assert buffer.take(port, width, count, privilege) == EMPTY
    assert buffer.take(PORT, 2, 1, KERNEL) == 0x0201


def test_clear_drops_the_data_and_keeps_the_count(buffer: PrefetchBuffer) -> None:
    """What was read must still be told, once."""
    buffer.take(PORT, 2, 1, KERNEL)
    buffer.clear()
    assert buffer.take(PORT, 2, 1, KERNEL) == EMPTY
    assert (buffer.told(), buffer.told()) == (1, 0)


def test_half_an_element_is_dropped() -> None:
    """A hypervisor that sends an odd byte does no harm."""
    buffer = PrefetchBuffer()
    buffer.fill(PORT, 2, KERNEL, memoryview(b"\x01\x02\x03"))
    assert [buffer.take(PORT, 2, 1, KERNEL) for _ in range(2)] == [0x0201, EMPTY]
