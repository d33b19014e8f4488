"""The interface at which a guest's I/O is intercepted."""

from __future__ import annotations

import enum


class Level(enum.Enum):
    """The three interfaces behind which operating systems hide devices; the value is the topology's word."""

    OPERATION = "operation"
    """Each I/O instruction, at a register of an emulated controller."""
    DRIVER = "driver"
    """Each request of a device driver, at a virtqueue."""
    SYSCALL = "syscall"
    """Each system call of a program, before its kernel sees it."""
