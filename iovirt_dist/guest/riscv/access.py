"""Decoding of the loads and stores that may address a device.

Sources: RISC-V Unprivileged ISA 20191213: 2.6 and 5.3 (integer), 11.5 and 12.3 (floating point), 16.3 (compressed).
LR, SC and AMO instructions are not among them: device memory supports no atomics.
"""

from __future__ import annotations

from typing import Final, NamedTuple

WORD_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF

_OP_LOAD: Final = 0x03
_OP_LOAD_FP: Final = 0x07
_OP_STORE: Final = 0x23
_OP_STORE_FP: Final = 0x27
_OP_AMO: Final = 0x2F
_LR: Final = 0b00010

_STACK_POINTER: Final = 2


class Access(NamedTuple):
    """One load or store instruction.

    Attributes:
        length: Bytes of the instruction, 2 or 4.
        store: Store, or else load.
        width: Bytes accessed: 1, 2, 4 or 8.
        signed: Whether an integer load extends the sign.
        floating: Whether `register` is a floating-point register.
        register: Destination of a load, source of a store.
        base: Register that holds the base address.
        offset: Signed offset in bytes.
    """

    length: int
    store: bool
    width: int
    signed: bool
    floating: bool
    register: int
    base: int
    offset: int

    def extend(self, value: int) -> int:
        """Return what a load of `value` puts into the 64-bit register (narrow floats are NaN-boxed)."""
        bits = 8 * self.width
        value &= (1 << bits) - 1
        if self.floating:
            return value | (WORD_MASK ^ ((1 << bits) - 1))
        if self.signed and value >> (bits - 1):
            return value | (WORD_MASK ^ ((1 << bits) - 1))
        return value


def instruction_length(word: int) -> int:
    """Return 2 for a compressed instruction, else 4; `word` holds at least its low 16 bits."""
    return 4 if word & 3 == 3 else 2


def is_atomic_update(word: int) -> bool:
    """Whether an instruction of the A extension raises store faults: SC and the AMOs do, LR does not."""
    return word & 0x7F == _OP_AMO and word >> 27 != _LR


def decode_access(word: int) -> Access | None:
    """Decode an instruction; None if it is neither load nor store.

    Args:
        word: 32 bits from the PC; the upper half is ignored for compressed instructions.
    """
    if word & 3 == 3:
        return _decode_full(word)
    return _decode_compressed(word & 0xFFFF)


def _decode_full(word: int) -> Access | None:
    opcode, kind, base = word & 0x7F, word >> 12 & 7, word >> 15 & 31
    if opcode == _OP_LOAD and kind != 7:
        return Access(4, False, 1 << (kind & 3), kind < 4, False, word >> 7 & 31, base, _signed(word >> 20, 12))
    if opcode == _OP_LOAD_FP and kind in (2, 3):
        return Access(4, False, 1 << kind, False, True, word >> 7 & 31, base, _signed(word >> 20, 12))
    offset = _signed(word >> 25 << 5 | word >> 7 & 31, 12)
    if opcode == _OP_STORE and kind < 4:
        return Access(4, True, 1 << kind, False, False, word >> 20 & 31, base, offset)
    if opcode == _OP_STORE_FP and kind in (2, 3):
        return Access(4, True, 1 << kind, False, True, word >> 20 & 31, base, offset)
    return None


def _decode_compressed(half: int) -> Access | None:
    """RV64C: per quadrant funct3 1 and 5 are double floats, 2 and 6 words, 3 and 7 doublewords."""
    quadrant, kind = half & 3, half >> 13
    if quadrant == 1 or kind in (0, 4):
        return None
    store, wide, floating = kind > 4, kind & 3 != 2, kind & 3 == 1
    width = 8 if wide else 4
    if quadrant == 0:
        offset = half >> 7 & 0x38
        offset |= half << 1 & 0xC0 if wide else (half >> 4 & 4) | (half << 1 & 0x40)
        return Access(2, store, width, True, floating, (half >> 2 & 7) + 8, (half >> 7 & 7) + 8, offset)
    if store:
        offset = (half >> 7 & 0x38) | (half >> 1 & 0x1C0) if wide else (half >> 7 & 0x3C) | (half >> 1 & 0xC0)
        return Access(2, True, width, False, floating, half >> 2 & 31, _STACK_POINTER, offset)
    offset = half >> 7 & 0x20
    offset |= (half >> 2 & 0x18) | (half << 4 & 0x1C0) if wide else (half >> 2 & 0x1C) | (half << 4 & 0xC0)
    return Access(2, False, width, True, floating, half >> 7 & 31, _STACK_POINTER, offset)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value
