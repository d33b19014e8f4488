"""Decoding of loads and stores (`iovirt_dist.guest.riscv.access`)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iovirt_dist.guest.riscv.access import Access, decode_access, instruction_length, is_atomic_update


@pytest.mark.parametrize(
    ("code", "access"),
    [
        pytest.param("0380f5ff", Access(4, False, 1, True, False, 0, 11, -1), id="lb zero, -1(a1)"),
        pytest.param("03d6f57f", Access(4, False, 2, False, False, 12, 11, 2047), id="lhu a2, 2047(a1)"),
        pytest.param("a3bfbffe", Access(4, True, 8, False, False, 11, 31, -1), id="sd a1, -1(t6)"),
        pytest.param("07b08580", Access(4, False, 8, False, True, 0, 11, -2040), id="fld ft0, -2040(a1)"),
        pytest.param("fc5f", Access(2, False, 4, True, False, 15, 15, 124), id="c.lw a5, 124(a5)"),
        pytest.param("e07c", Access(2, False, 8, True, False, 8, 9, 248), id="c.ld s0, 248(s1)"),
        pytest.param("fcff", Access(2, True, 8, False, False, 15, 15, 248), id="c.sd a5, 248(a5)"),
        pytest.param("fe50", Access(2, False, 4, True, False, 1, 2, 252), id="c.lwsp ra, 252(sp)"),
        pytest.param("fe70", Access(2, False, 8, True, False, 1, 2, 504), id="c.ldsp ra, 504(sp)"),
        pytest.param("86df", Access(2, True, 4, False, False, 1, 2, 252), id="c.swsp ra, 252(sp)"),
        pytest.param("86ff", Access(2, True, 8, False, False, 1, 2, 504), id="c.sdsp ra, 504(sp)"),
    ],
)
def test_decode_access_of_extreme_offsets_is_exact(code: str, access: Access) -> None:
    """Every immediate format is decoded at the ends of its range."""
    decoded = decode_access(int.from_bytes(bytes.fromhex(code), "little"))

    assert decoded is not None
    assert decoded._replace(signed=decoded.signed and not decoded.store) == access


@pytest.mark.parametrize("code", ["2fa5c500", "2fa50510", "13000000", "0100", "0000", "0290", "03f50500"])
def test_decode_access_of_anything_else_is_none(code: str) -> None:
    """Atomics, other instructions and reserved encodings are no plain loads or stores."""
    assert decode_access(int.from_bytes(bytes.fromhex(code), "little")) is None


def test_load_reserved_is_no_update() -> None:
    """LR raises load faults, AMOs and SC store faults."""
    assert not is_atomic_update(0x1005_A52F)
    assert is_atomic_update(0x00C5_A52F)


@given(st.integers(0, 0xFFFF_FFFF))
def test_decode_access_of_any_word_stays_in_range(word: int) -> None:
    """Whatever a guest executes, decoding gives None or fields within their ranges."""
    access = decode_access(word)

    length = instruction_length(word)
    valid = access is None or (
        access.length == length
        and access.width in (1, 2, 4, 8)
        and 0 <= access.register < 32
        and 0 <= access.base < 32
        and -2048 <= access.offset < 2048
    )
    assert valid
