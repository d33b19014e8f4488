"""What devices with different registers have in common: values of 64 bits behind two registers of 32."""

from __future__ import annotations

from typing import Final

_LOW: Final = 0xFFFF_FFFF


def with_half(value: int, high: bool, half: int) -> int:
    """Return a 64-bit value with one of its halves replaced.

    Args:
        value: What there was.
        high: Whether it is the high half that is replaced.
        half: Its 32 new bits.
    """
    return half << 32 | value & _LOW if high else value & ~_LOW | half
