"""How an NBD gateway divides its memory."""

from __future__ import annotations

import pytest

from iovirt_dist.runtime.nbd_process import DEPTH, piece_bytes

MIB = 1 << 20


@pytest.mark.parametrize(
    ("memory", "piece"), [(2 << 30, MIB), (96 * MIB, MIB), (64 * MIB, MIB // 2), (32 * MIB, MIB // 4), (MIB, 4096)]
)
def test_pieces_are_a_power_of_two_that_fits_the_memory(memory: int, piece: int) -> None:
    """Up to 1 MiB, and 4 KiB at least."""
    assert piece_bytes(memory) == piece


def test_pieces_of_all_requests_fit_the_default_memory() -> None:
    """With the ring beside them."""
    assert DEPTH * piece_bytes(96 * MIB) <= 95 * MIB
