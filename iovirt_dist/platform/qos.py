"""What a guest may have of a shared device: its share, and limits on it."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

MAX_WEIGHT: Final = 1000
"""Largest weight: as in Docker's ``blkio-weight``."""

MAX_RATE: Final = 1 << 40
"""Largest rate, operations or bytes a second: 1 TiB/s."""

BURST_RANGE_NS: Final = (1_000_000, 60_000_000_000)
"""Least and most time of unused rate that can be saved up."""

LATENCY_RANGE_NS: Final = (1_000, 60_000_000_000)
"""Least and largest latency target."""


class Priority(enum.IntEnum):
    """Classes of strict priority, the first goes first; names as in NVMe base specification 2.0, 3.4.4."""

    URGENT = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3


class Qos(NamedTuple):
    """One guest's quality of service at one device. Each scheduler looks at one of the first three; limits hold always.

    Attributes:
        weight: Share in relation to the other guests' weights, 1..1000 (``drr``, ``wfq``).
        priority: Class (``priority``).
        latency_ns: From a request's arrival to the deadline by which requests are ordered (``deadline``).
        iops: Most operations a second, 0 for no limit.
        bandwidth: Most bytes of data a second, 0 for no limit.
        burst_ns: For so much time an unused rate is saved up, to be spent at once.
    """

    weight: int = 1
    priority: Priority = Priority.MEDIUM
    latency_ns: int = 50_000_000
    iops: int = 0
    bandwidth: int = 0
    burst_ns: int = 20_000_000

    @property
    def in_range(self) -> bool:
        """Whether all numbers are such as a scheduler and a token bucket can work with."""
        return (
            1 <= self.weight <= MAX_WEIGHT
            and LATENCY_RANGE_NS[0] <= self.latency_ns <= LATENCY_RANGE_NS[1]
            and 0 <= self.iops <= MAX_RATE
            and 0 <= self.bandwidth <= MAX_RATE
            and BURST_RANGE_NS[0] <= self.burst_ns <= BURST_RANGE_NS[1]
        )


DEFAULT_QOS: Final = Qos()
"""An equal share without limits."""


class SchedulerKind(enum.Enum):
    """How a hypervisor shares a controller between its guests; the value is the topology's word."""

    FIFO = "fifo"
    """In order of arrival."""
    DRR = "drr"
    """Deficit round robin by weight."""
    WFQ = "wfq"
    """Weighted fair queueing."""
    PRIORITY = "priority"
    """Strict priority with aging."""
    DEADLINE = "deadline"
    """Earliest deadline first."""
