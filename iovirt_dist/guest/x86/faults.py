"""Vectors, classes of exceptions and the fault that our own rules raise (Intel SDM volume 3, chapter 7)."""

from __future__ import annotations

from typing import Final

DEBUG: Final = 1
NMI: Final = 2
BREAKPOINT: Final = 3
OVERFLOW: Final = 4
INVALID_OPCODE: Final = 6
DOUBLE_FAULT: Final = 8
INVALID_TSS: Final = 10
SEGMENT_NOT_PRESENT: Final = 11
STACK_FAULT: Final = 12
GENERAL_PROTECTION: Final = 13
PAGE_FAULT: Final = 14
ALIGNMENT_CHECK: Final = 17
MACHINE_CHECK: Final = 18

WITH_ERROR_CODE: Final = frozenset({8, 10, 11, 12, 13, 14, 17})
"""Exceptions that push an error code (table 7-1)."""

CONTRIBUTORY: Final = frozenset({0, 10, 11, 12, 13})
"""The contributory class of table 7-4; page faults are a class of their own, all else is benign."""

NOT_FAULTS: Final = frozenset({DEBUG, NMI, BREAKPOINT, OVERFLOW, DOUBLE_FAULT, MACHINE_CHECK})
"""Traps and aborts: RF is not set in the EFLAGS image that they push."""


class Fault(Exception):  # noqa: N818 - "fault" is the architecture's word; nothing of ours has failed
    """A fault found while our code does the CPU's work; caught inside `iovirt_dist.guest.x86`.

    Args:
        vector: Exception vector.
        error_code: Error code; 0 if the vector has none.
        address: Linear address (CR2) of a page fault.
    """

    def __init__(self, vector: int, error_code: int = 0, address: int = 0) -> None:
        super().__init__(vector, error_code, address)
        self.vector = vector
        self.error_code = error_code
        self.address = address


def combine(first: int, second: int) -> int | None:
    """Which vector follows when `second` is raised while `first` is delivered (table 7-5).

    Returns:
        `second` when both can be handled one after the other, the double fault, or None for shutdown.
    """
    severe = second in CONTRIBUTORY or second == PAGE_FAULT
    if first == DOUBLE_FAULT:
        return None if severe else second
    if first == PAGE_FAULT and severe:
        return DOUBLE_FAULT
    if first in CONTRIBUTORY and second in CONTRIBUTORY:
        return DOUBLE_FAULT
    return second
