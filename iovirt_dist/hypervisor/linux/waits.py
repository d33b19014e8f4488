"""How a routine waits: it is a generator that yields what it waits for and is resumed with the outcome.

    status, data, now_ns = yield DiskTransfer(Opcode.READ, 0, 512)

A signal that interrupts a call is thrown into it at its wait (`InterruptedWaitError`); few routines care.

A routine that never waits returns its result at once; `settle` lets a caller treat both alike.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple, TypeAlias, TypeVar

from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status


class DiskTransfer(NamedTuple):
    """One request to the disk, aligned to its blocks; see `drivers.backend.DiskRequest`."""

    opcode: Opcode
    offset: int = 0
    length: int = 0
    data: Buffer = b""


class Randomness(NamedTuple):
    """Bytes from the entropy source: at least one comes, at most `length`, 65536 at most."""

    length: int


class TerminalChange(NamedTuple):
    """Something typed, or space for output, or the deadline: look again.

    Attributes:
        deadline_ns: Machine time, None to wait for ever.
    """

    deadline_ns: int | None = None


class Deadline(NamedTuple):
    """Machine time `deadline_ns`."""

    deadline_ns: int


Wait: TypeAlias = DiskTransfer | Randomness | TerminalChange | Deadline


class Outcome(NamedTuple):
    """What a wait ended with; `data` for a read and for randomness. `now_ns` is the machine's time."""

    status: Status
    data: Buffer
    now_ns: int


class InterruptedWaitError(CallError):
    """A signal has ended the wait: the call fails with EINTR, unless its routine has something to say.

    Args:
        now_ns: Machine time.
    """

    def __init__(self, now_ns: int) -> None:
        super().__init__(Errno.EINTR)
        self.now_ns = now_ns


T = TypeVar("T")
Steps: TypeAlias = Generator[Wait, Outcome, T]


def settle(result: T | Steps[T]) -> Steps[T]:
    """Carry out what may have to wait, or has its result already."""
    if isinstance(result, Generator):
        return (yield from result)
    return result


def settle_data(result: Buffer | Steps[Buffer]) -> Steps[Buffer]:
    """As `settle`, for data; the three kinds of buffers have no other common type."""
    if isinstance(result, Generator):
        return (yield from result)
    return result


def clock() -> Steps[int]:
    """Return the machine's time: a deadline that has passed does not wait."""
    outcome = yield Deadline(0)
    return outcome.now_ns
