"""Sizes and durations as people write them in a topology."""

from __future__ import annotations

import re
from typing import Final

_SIZE_UNITS: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
"""IEC 80000-13 binary prefixes. KB and MB are refused: readers disagree on what they mean."""

_DURATION_UNITS: Final = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000}

_QUANTITY: Final = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")

MAX_QUANTITY: Final = (1 << 63) - 1
"""Largest size in bytes and duration in nanoseconds: both travel as signed 64-bit numbers."""


def _parse(text: str | int, units: dict[str, int], what: str) -> int:
    if isinstance(text, int):
        text = str(text)
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or match[2] not in units:
        raise ValueError(f"expected {what}")
    whole, _, fraction = match[1].partition(".")
    scale: int = 10 ** len(fraction)
    value, rest = divmod(int(whole + fraction) * units[match[2]], scale)
    if rest or value > MAX_QUANTITY:
        raise ValueError(f"expected {what}")
    return value


def parse_size(text: str | int) -> int:
    """Turn ``"64KiB"``, ``"1.5 GiB"``, ``"512"`` or an integer into bytes.

    Args:
        text: Number with an IEC unit (B, KiB, MiB, GiB, TiB); bytes without one.

    Returns:
        Bytes, 0..2**63-1.

    Raises:
        ValueError: Not a size, not whole bytes, negative or too large.
    """
    return _parse(text, _SIZE_UNITS, 'a size such as 512, "64KiB" or "1GiB"')


def parse_duration_ns(text: str) -> int:
    """Turn ``"2s"``, ``"500ms"`` or ``"1.5 min"`` into nanoseconds.

    Args:
        text: Number with a unit (ns, us, ms, s, min); a bare number is refused, its unit would be a guess.

    Returns:
        Nanoseconds, 0..2**63-1.

    Raises:
        ValueError: Not a duration, negative or too large.
    """
    return _parse(text, _DURATION_UNITS, 'a duration such as "500ms" or "2s"')


def format_duration(duration_ns: int) -> str:
    """Write nanoseconds with the largest unit that divides them: ``2s``, ``1500ms``, ``7ns``."""
    for unit in ("s", "ms", "us"):
        if duration_ns and duration_ns % _DURATION_UNITS[unit] == 0:
            return f"{duration_ns // _DURATION_UNITS[unit]}{unit}"
    return f"{duration_ns}ns"


def format_size(size_bytes: int) -> str:
    """Write bytes with the largest unit that divides them: ``16MiB``, ``1536KiB``, ``513B``."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit}"
    return f"{size_bytes}B"
