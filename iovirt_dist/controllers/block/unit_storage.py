"""The image and the overlays over it as one linear storage, which is what the block core orders accesses in.

The image begins at 0, the overlay that is unit n at ``n << SLOT_BITS``; n is its slot. A range never leaves its slot.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, Protocol

from iovirt_dist.controllers.block.extents import SLOT_BITS
from iovirt_dist.controllers.block.storage import Storage
from iovirt_dist.wire.codec import Buffer

SYNCERS: Final = 4
"""Files that are synced at once: file systems join what comes together into one commit of their journal."""

_SLOT_MASK: Final = (1 << SLOT_BITS) - 1


class OverlayStorage(Storage, Protocol):
    """A storage that knows whether it has anything to sync."""

    @property
    def unsynced(self) -> bool:
        """Whether something was taken that no sync has covered yet."""
        ...


OpenOverlay = Callable[[str, int, int], OverlayStorage]
"""``open(unit, start, length)``: open the overlay of unit ``EXTENT@GUEST`` over those bytes of the image."""


class UnitStorage:
    """An image and the overlays that are open.

    Args:
        image: The image; closed with this storage.
        open_overlay: Opens or makes an overlay.
    """

    def __init__(self, image: Storage, open_overlay: OpenOverlay) -> None:
        self.image = image
        self.size_bytes = image.size_bytes
        self.overlays: dict[int, OverlayStorage] = {}
        """Those that are open, by slot."""
        self.read_cached: Callable[[int, memoryview], bool] = image.read_cached
        """As of any storage; the image's own until an overlay is opened: this is the hottest path there is."""
        self._open_overlay = open_overlay
        self._image_unsynced = True
        """As a former life of the process may have left something."""
        self._syncers: ThreadPoolExecutor | None = None

    def open(self, unit: str, slot: int, start: int, length: int) -> None:
        """Open the overlay of a unit in a slot; may run in any thread.

        Raises:
            ImageError: It cannot be used.
            OSError: Its base cannot be read.
        """
        self.overlays[slot] = self._open_overlay(unit, start, length)
        self.read_cached = self._read_cached

    def close_slot(self, slot: int) -> None:
        """Sync and close the overlay in a slot, which nobody uses any more; raises OSError as `close` does."""
        self.overlays.pop(slot).close()

    def read_at(self, offset: int, length: int) -> Buffer:
        """Read from the image or an overlay."""
        slot = offset >> SLOT_BITS
        return (self.overlays[slot] if slot else self.image).read_at(offset & _SLOT_MASK, length)

    def _read_cached(self, offset: int, into: memoryview) -> bool:
        """Read from the image or an overlay, if that needs no waiting."""
        slot = offset >> SLOT_BITS
        if slot:
            return self.overlays[slot].read_cached(offset & _SLOT_MASK, into)
        return self.image.read_cached(offset, into)

    def write_at(self, offset: int, data: Buffer) -> None:
        """Write to the image or an overlay."""
        slot = offset >> SLOT_BITS
        if slot:
            self.overlays[slot].write_at(offset & _SLOT_MASK, data)
            return
        try:
            self.image.write_at(offset, data)
        finally:
            self._image_unsynced = True

    def write_cached(self, offset: int, data: Buffer) -> bool:
        """Write to the image or an overlay, if that needs no waiting."""
        slot = offset >> SLOT_BITS
        if slot:
            return self.overlays[slot].write_cached(offset & _SLOT_MASK, data)
        try:
            return self.image.write_cached(offset, data)
        finally:
            self._image_unsynced = True

    def discard(self, offset: int, length: int) -> None:
        """Discard in the image or an overlay."""
        slot = offset >> SLOT_BITS
        if slot:
            self.overlays[slot].discard(offset & _SLOT_MASK, length)
            return
        try:
            self.image.discard(offset, length)
        finally:
            self._image_unsynced = True

    def write_zeroes(self, offset: int, length: int) -> None:
        """Write zeroes to the image or an overlay."""
        slot = offset >> SLOT_BITS
        if slot:
            self.overlays[slot].write_zeroes(offset & _SLOT_MASK, length)
            return
        try:
            self.image.write_zeroes(offset, length)
        finally:
            self._image_unsynced = True

    def sync(self) -> None:
        """Sync what has something new, and only that."""
        work: list[Callable[[], None]] = [overlay.sync for overlay in list(self.overlays.values()) if overlay.unsynced]
        if self._image_unsynced:
            self._image_unsynced = False
            work.append(self.image.sync)
        if len(work) == 1:
            work[0]()
        elif work:
            if self._syncers is None:
                self._syncers = ThreadPoolExecutor(SYNCERS, "sync")
            _wait_for_all([self._syncers.submit(sync) for sync in work])

    def close(self) -> None:
        """Sync and close everything; the first error is raised after that."""
        if self._syncers is not None:
            self._syncers.shutdown()
        closing = [*self.overlays.values(), self.image]
        errors: list[OSError] = []
        for storage in closing:
            try:
                storage.close()
            except OSError as error:
                errors.append(error)
        if errors:
            raise errors[0]


def _wait_for_all(futures: list[Future[None]]) -> None:
    """Wait until all have ended; raises the error of the first that failed."""
    errors = [error for future in futures if (error := future.exception()) is not None]
    if errors:
        raise errors[0]
