"""What the device's sides of both layouts of a virtqueue share: the areas' common part, and how requests are taken."""

from __future__ import annotations

from abc import ABC, abstractmethod

from iovirt_dist.virtio.chain import DESCRIPTOR_BYTES, Chain, KnownRam, RingError, RingSetup, area
from iovirt_dist.virtio.memory import GuestMemory


class DeviceSide(ABC):
    """The device's side of a ring; `chain.DeviceRing` says what it does.

    Args:
        memory: Guest memory.
        setup: Where the ring lies; its size has been checked.

    Raises:
        RingError: Reason ``ring-alignment`` or ``ring-memory``, of the descriptors.
    """

    def __init__(self, memory: GuestMemory, setup: RingSetup) -> None:
        self.completed = 0
        self._memory = memory
        self._setup = setup
        self._size = setup.size
        self._event_idx = setup.event_idx
        self._indirect_allowed = setup.indirect
        self._table = area(memory, setup.descriptors, DESCRIPTOR_BYTES * setup.size, 16)
        self._ram = KnownRam(memory)
        self._next = 0
        self._free = setup.size
        self._unasked = False
        self._error: RingError | None = None

    def take(self, most: int, *, ask: bool = True) -> list[Chain]:
        """Return what is newly available; see `DeviceRing.take`."""
        if self._error:
            raise self._error
        try:
            chains = self._take_available(most)
            if not self._event_idx:
                return chains
            if not ask:
                self._unasked = self._unasked or bool(chains)
            elif chains or self._unasked:
                self._unasked = False
                self._ask_for_next()
                # What the driver made available before it could see that, it did not notify for.
                while len(chains) < most and (more := self._take_available(most - len(chains))):
                    chains += more
                    self._ask_for_next()
        except RingError as error:
            self._error = error
            raise
        return chains

    @abstractmethod
    def _take_available(self, most: int) -> list[Chain]:
        """Take what is available now, `most` requests at most."""

    @abstractmethod
    def _ask_for_next(self) -> None:
        """Ask the driver to notify for the first request that was not taken (sections 2.7.10 and 2.8.10)."""
