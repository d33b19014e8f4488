"""One queue as a front end describes it, message by message, until it can run (section "Ring states")."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from iovirt_dist.gateway.vhost_user.inflight import QueueLog
from iovirt_dist.gateway.vhost_user.memory import RegionMemory
from iovirt_dist.gateway.vhost_user.messages import VringAddress
from iovirt_dist.virtio.chain import DESCRIPTOR_BYTES
from iovirt_dist.virtio.split import avail_bytes, used_bytes


class RingState(enum.Enum):
    """Whether a ring is walked."""

    STOPPED = "stopped"
    STARTED = "started"
    STOPPING = "stopping"
    """Whoever walks it has been told to stop, and has not answered."""


@dataclass(slots=True)
class Vring:
    """A queue.

    Attributes:
        size: Entries; 0 until it is told.
        base: Available index at which to go on, unless `log` has requests in flight: then that is the used index plus
            their number, whatever the front end says, which cannot know better after a crash of ours.
        address: Where its areas are in the front end's memory; None until it is told.
        descriptors: Guest physical address of the descriptor table; this and the next two are valid while it runs.
        driver_area: Of the available ring.
        device_area: Of the used ring.
        kick: Descriptor that tells of new requests.
        call: Descriptor to signal when requests are used; None if the front end polls.
        err: Descriptor to signal when the ring cannot be walked.
        enabled: As SET_VRING_ENABLE says.
        state: Whether it runs.
        log: Requests in flight; in the front end's memory if that keeps it, else a new one each time the queue starts.
    """

    size: int = 0
    base: int = 0
    address: VringAddress | None = None
    descriptors: int = 0
    driver_area: int = 0
    device_area: int = 0
    kick: int | None = None
    call: int | None = None
    err: int | None = None
    enabled: bool = False
    state: RingState = RingState.STOPPED
    log: QueueLog = field(default_factory=lambda: QueueLog.local(1))

    @property
    def started(self) -> bool:
        """Whether it runs."""
        return self.state is RingState.STARTED

    @property
    def ready(self) -> bool:
        """Whether everything is known that it needs to run, but for its being enabled."""
        return self.state is RingState.STOPPED and self.kick is not None and self.size > 0 and self.address is not None

    @property
    def fds(self) -> tuple[int, ...]:
        """All descriptors that it holds."""
        return tuple(fd for fd in (self.kick, self.call, self.err) if fd is not None)

    def locate(self, memory: RegionMemory) -> None:
        """Look up its areas; where they are now is kept.

        Raises:
            MemoryRangeError: One is not wholly in a region; then nothing is changed.
        """
        if self.address is not None:
            self.descriptors, self.driver_area, self.device_area = areas(memory, self.address, self.size or 1)


def areas(memory: RegionMemory, address: VringAddress, size: int) -> tuple[int, int, int]:
    """Return the guest physical addresses of descriptor table, available and used ring.

    Raises:
        MemoryRangeError: One is not wholly in a region.
    """
    return (
        memory.translate_user(address.descriptors, DESCRIPTOR_BYTES * size),
        memory.translate_user(address.available, avail_bytes(size)),
        memory.translate_user(address.used, used_bytes(size)),
    )
