"""An armed queue and its driver, for the queue's tests."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.armed_queue import ArmedQueue, Outgoing, QueueCounts
from iovirt_dist.guest.queue_home import MachineHome
from tests.unit.guest.queue_bench import (
    HEADER_BYTES,
    MEMORY_BYTES,
    PACKED,
    SPLIT,
    DriverBench,
    QueueCompletion,
    Rung,
)

LARGE = 32 << 20
LAYOUTS = pytest.mark.parametrize("features", [SPLIT, PACKED], ids=["split", "packed"])


class Bench(DriverBench):
    """An armed queue and its driver."""

    def __init__(
        self,
        features: int = SPLIT,
        size: int = 256,
        header_bytes: int = HEADER_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        super().__init__(features, size, header_bytes, memory_bytes=memory_bytes)
        self.counts = QueueCounts()
        self.queue = ArmedQueue(MachineHome(self.memory), self.arm, self.counts)

    def ring(self) -> list[Rung]:
        """The driver notifies; only doorbells may come of it."""
        return [self.rung(outgoing) for outgoing in self.queue.gather(1)]

    def complete(
        self, *completions: QueueCompletion, data: tuple[bytes, ...] = (), interrupt: bool = False
    ) -> list[Outgoing]:
        """The hypervisor completes requests."""
        return self.queue.complete(self.completions(*completions, interrupt=interrupt), data)
