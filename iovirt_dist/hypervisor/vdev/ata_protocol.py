"""The phases of an ATA device and its PIO protocols as one table, after ATA/ATAPI-6 (T13 1410D), sections 7 and 9."""

from __future__ import annotations

import enum

from iovirt_dist.wire.commands import Status

ERR, DRQ, DSC, DF, DRDY, BSY = 0x01, 0x08, 0x10, 0x20, 0x40, 0x80
"""Status register (clause 7); DSC is obsolete and set whenever DRDY is, as old drivers expect."""
ABRT, IDNF, UNC = 0x04, 0x10, 0x40
"""Error register (clause 7)."""
PASSED = 0x01
"""Diagnostic code in the Error register: device 0 passed, device 1 passed or is not there (clause 8, table 26)."""


class Phase(enum.IntEnum):
    """What the device is doing, as the host sees it in Status."""

    IDLE = 0
    BUSY = 1
    """The backend has a request."""
    DATA_IN = 2
    """A DRQ block waits for the host to read it."""
    DATA_OUT = 3
    """The host may write a DRQ block."""
    RESET = 4
    """The host holds SRST."""
    SLEEPING = 5
    """After SLEEP, until a reset."""


class Event(enum.Enum):
    """What moves the device from phase to phase."""

    DONE = enum.auto()
    FAILED = enum.auto()
    ASKED = enum.auto()
    """A request went to the backend."""
    DATA_READY = enum.auto()
    DATA_WANTED = enum.auto()
    SLEPT = enum.auto()
    RESET_ASSERTED = enum.auto()
    RESET_RELEASED = enum.auto()


STATUS = {
    Phase.IDLE: DRDY | DSC,
    Phase.BUSY: BSY,
    Phase.DATA_IN: DRDY | DSC | DRQ,
    Phase.DATA_OUT: DRDY | DSC | DRQ,
    Phase.RESET: BSY,
    Phase.SLEEPING: DRDY | DSC,
}

# (phase, event) -> (next phase, whether INTRQ is raised). Section 9.5 PIO data-in: an interrupt per DRQ block, none
# after the last. Section 9.6 PIO data-out: none before the first block, one per later block and one at the end.
# Section 9.4 non-data: one at the end. Sections 9.2 and 9.3: a reset ends without an interrupt.
TRANSITIONS: dict[tuple[Phase, Event], tuple[Phase, bool]] = {
    (Phase.IDLE, Event.DONE): (Phase.IDLE, True),
    (Phase.IDLE, Event.FAILED): (Phase.IDLE, True),
    (Phase.IDLE, Event.ASKED): (Phase.BUSY, False),
    (Phase.IDLE, Event.DATA_READY): (Phase.DATA_IN, True),
    (Phase.IDLE, Event.DATA_WANTED): (Phase.DATA_OUT, False),
    (Phase.IDLE, Event.SLEPT): (Phase.SLEEPING, True),
    (Phase.BUSY, Event.DONE): (Phase.IDLE, True),
    (Phase.BUSY, Event.FAILED): (Phase.IDLE, True),
    (Phase.BUSY, Event.ASKED): (Phase.BUSY, False),
    (Phase.BUSY, Event.DATA_READY): (Phase.DATA_IN, True),
    (Phase.BUSY, Event.DATA_WANTED): (Phase.DATA_OUT, True),
    (Phase.DATA_IN, Event.DATA_READY): (Phase.DATA_IN, True),
    (Phase.DATA_IN, Event.ASKED): (Phase.BUSY, False),
    (Phase.DATA_IN, Event.DONE): (Phase.IDLE, False),
    (Phase.DATA_OUT, Event.DATA_WANTED): (Phase.DATA_OUT, True),
    (Phase.DATA_OUT, Event.ASKED): (Phase.BUSY, False),
    **{(phase, Event.RESET_ASSERTED): (Phase.RESET, False) for phase in Phase},
    (Phase.RESET, Event.RESET_RELEASED): (Phase.IDLE, False),
}

READ_ERRORS = {Status.OUT_OF_RANGE: (IDNF, 0), Status.MEDIUM_ERROR: (UNC, 0)}
WRITE_ERRORS = {Status.OUT_OF_RANGE: (IDNF, 0), Status.MEDIUM_ERROR: (ABRT, DF)}
"""Backend status -> (Error register, extra Status bits); anything else aborts. A write or flush that the medium refused
is a device fault: the unit takes no more writes after it."""
