"""What happens to a guest's core (`guest.core`), and what it wants done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from iovirt_dist.guest.bus import IoPrivilege, SystemCallOutcome
from iovirt_dist.step import Record
from iovirt_dist.wire.codec import Buffer, Frames
from iovirt_dist.wire.messages import GuestState, TrapKind


class Started(NamedTuple):
    """The process runs; the session may begin."""


class TrapRaised(Record, frozen=True):
    """The vCPU executed an instruction that only the hypervisor can complete; fields as in `wire.messages.Trap`.

    `data` holds the elements of a string output and is empty otherwise.
    """

    kind: TrapKind
    address: int
    width: int
    count: int
    value: int
    data: bytes
    privilege: IoPrivilege


class SystemCallRaised(Record, frozen=True):
    """A program made a system call that the hypervisor takes; fields as in `Bus.system_call`."""

    process: int
    call: int
    arguments: tuple[int, ...]
    buffers: tuple[int, ...]
    data: bytes


class ProgramLoaded(NamedTuple):
    """A program will now run; fields as in `wire.syscall_messages.ProgramStarted`."""

    process: int
    name: str
    break_start: int
    map_top: int


class FramesReceived(Record, frozen=True):
    """A message came from the hypervisor.

    Attributes:
        safe: Whether the CPU rests, as at a `SafePointReached`.
    """

    frames: Sequence[Buffer]
    safe: bool = True


class SafePointReached(NamedTuple):
    """The CPU rests, between two instructions or inside of one that waits: guest memory may be written.

    So it does whenever it raises a trap.
    """


class StateChanged(NamedTuple):
    """The vCPU runs, halts or stopped; `interrupts` and `faults` are its counts so far."""

    state: GuestState
    reason: str
    interrupts: int
    faults: int


class TimerFired(NamedTuple):
    """The deadline that the core gave has come, or any earlier time."""


class StopRequested(NamedTuple):
    """The process is about to end."""

    reason: str


Event: TypeAlias = (
    Started
    | TrapRaised
    | SystemCallRaised
    | ProgramLoaded
    | FramesReceived
    | SafePointReached
    | StateChanged
    | TimerFired
    | StopRequested
)


class Send(Record, frozen=True):
    """Send frames to the hypervisor."""

    frames: Frames


class CompleteTrap(Record, frozen=True):
    """Let the waiting instruction complete, or fault if `fault` is not -1."""

    value: int
    data: Buffer
    fault: int
    error_code: int


class CompleteCall(NamedTuple):
    """Let the program that waits for its system call go on as the outcome says."""

    outcome: SystemCallOutcome


class SeekSafePoint(NamedTuple):
    """Make the CPU rest, and raise `SafePointReached` then: messages wait for it."""


class SetLines(NamedTuple):
    """The CPU's interrupt inputs now, bit per line."""

    lines: int


class PowerOn(NamedTuple):
    """Reset the machine and let it run: its devices are new. A trap that waits is void."""

    reason: str


class PowerOff(NamedTuple):
    """Stop the machine for good."""

    reason: str


class Note(NamedTuple):
    """Log one line of life cycle."""

    text: str


Action: TypeAlias = Send | CompleteTrap | CompleteCall | SeekSafePoint | SetLines | PowerOn | PowerOff | Note
