"""Performs the block core's actions on a storage: the thin I/O between the core and the seam.

What the page cache can answer is done at once, on the loop. What waits for the medium (cold or very large reads, writes
that an overlay has to fill from a cold base, cleared ranges, opening of overlays, every sync) is done by threads, so
the loop goes on and the next group of writes gathers behind a running sync. Without a way back into the loop everything
is done at once, which tests and the simulator use.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from iovirt_dist.controllers.block.core import (
    AccessStorage,
    BlockAccess,
    BlockController,
    BlockOutcome,
    Outcome,
    StorageDone,
    SyncDone,
    SyncStorage,
)
from iovirt_dist.controllers.block.extents import BlockConfig, ExtentTable
from iovirt_dist.controllers.block.operation import Operation
from iovirt_dist.controllers.block.overlay import Overlay
from iovirt_dist.controllers.block.overlay_files import Base, OverlayFolder, base_mark
from iovirt_dist.controllers.block.overlay_units import CloseOverlay, OpenOverlay, OverlayClosed, OverlayOpened
from iovirt_dist.controllers.block.storage import FileStorage, Storage
from iovirt_dist.controllers.block.unit_storage import UnitStorage
from iovirt_dist.errors import ImageError
from iovirt_dist.topology.extent import follow_image
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode
from iovirt_dist.wire.payload import JOIN_BYTES

INLINE_BYTES: Final = 1 << 20
"""Longest read that is done on the loop: about half a millisecond of copying."""

WORKERS: Final = 4
"""Threads for what waits for the medium, besides the one that syncs."""

_READ: Final = Opcode.READ

_log = logging.getLogger(__name__)

Deliver = Callable[[BlockOutcome], None]
PostToLoop = Callable[..., object]
"""``post(function, argument)`` calls the function in the loop's thread, as `loop.call_soon_threadsafe` does."""


class BlockRunner:
    """Hands of one block core.

    Args:
        storage: The medium.
        deliver: Takes outcomes that come later; called in the loop's thread.
        post: Way from a worker thread into the loop's; None does everything inline.
    """

    def __init__(self, storage: Storage, deliver: Deliver, post: PostToLoop | None = None) -> None:
        self.storage = storage
        self.errors = 0
        """Operations and syncs that failed."""
        self._deliver = deliver
        self._post = post
        self._workers: ThreadPoolExecutor | None = None
        self._syncer: ThreadPoolExecutor | None = None
        self._closed = False
        self._problems: dict[str, str] = {}
        if post is not None:
            self._workers = ThreadPoolExecutor(WORKERS, "storage")
            self._syncer = ThreadPoolExecutor(1, "sync")

    def perform(self, action: BlockAccess) -> BlockOutcome | None:
        """Do an action.

        Returns:
            The outcome of what is done already, to be handed to the core; None when everything comes later.
        """
        if isinstance(action, AccessStorage):
            outcomes = self._access(action.operations)
            return StorageDone(outcomes) if outcomes else None
        if isinstance(action, SyncStorage):
            return self._hand_over(self._syncer, self._sync)
        if isinstance(action, OpenOverlay):
            return self._hand_over(self._workers, self._open, action)
        return self._hand_over(self._syncer, self._close_overlay, action)  # never beside a sync of the same overlay

    def close(self) -> None:
        """Wait for what is under way, sync, and close the storage. No outcome is delivered any more."""
        self._closed = True
        for pool in (self._workers, self._syncer):
            if pool is not None:
                pool.shutdown(wait=True)
        try:
            self.storage.close()
        except OSError as error:
            self._failed("closing", error)

    def _access(self, operations: list[Operation]) -> list[Outcome]:
        """Do what needs no waiting, hand the rest to the workers.

        Short reads fill one buffer without gaps: the batch's payload, as it leaves.
        """
        if self._workers is None:
            return [self._do(operation) for operation in operations]
        outcomes: list[Outcome] = []
        shared = bytearray(sum([o.length for o in operations if o.opcode is _READ and o.length <= JOIN_BYTES]))
        view, used = memoryview(shared), 0
        read_cached = self.storage.read_cached
        for operation in operations:
            token, opcode, length = operation.token, operation.opcode, operation.length
            if opcode is _READ and length <= JOIN_BYTES:
                try:
                    filled = read_cached(operation.offset, view[used : used + length])
                except OSError as error:
                    outcomes.append(Outcome(token, self._failed(_name(operation), error)))
                    continue
                if filled:
                    outcomes.append(Outcome(token, 0, shared, used))
                    used += length
                    continue
            elif opcode is Opcode.WRITE:
                if (outcome := self._write_cached(operation)) is not None:
                    outcomes.append(outcome)
                    continue
            elif opcode is _READ and (outcome := self._read_long(operation)) is not None:
                outcomes.append(outcome)
                continue
            self._workers.submit(self._later, self._work, operation)
        return outcomes

    def _read_long(self, operation: Operation) -> Outcome | None:
        """Read into a buffer of its own; None if that is too long for the loop or would have to wait for the medium."""
        if operation.length > INLINE_BYTES:
            return None
        own = bytearray(operation.length)
        try:
            filled = self.storage.read_cached(operation.offset, memoryview(own))
        except OSError as error:
            return Outcome(operation.token, self._failed(_name(operation), error))
        return Outcome(operation.token, 0, own) if filled else None

    def _write_cached(self, operation: Operation) -> Outcome | None:
        """Write; None if that would have to wait for the medium."""
        try:
            taken = self.storage.write_cached(operation.offset, operation.data)
        except OSError as error:
            return Outcome(operation.token, self._failed(_name(operation), error))
        return Outcome(operation.token) if taken else None

    def _work(self, operation: Operation) -> StorageDone:
        return StorageDone([self._do(operation)])

    def _do(self, operation: Operation) -> Outcome:
        token, opcode, offset, length = operation.token, operation.opcode, operation.offset, operation.length
        data: Buffer = b""
        try:
            if opcode is Opcode.READ:
                data = self.storage.read_at(offset, length)
            elif opcode is Opcode.WRITE:
                self.storage.write_at(offset, operation.data)
            elif opcode is Opcode.WRITE_ZEROES:
                self.storage.write_zeroes(offset, length)
            else:
                self.storage.discard(offset, length)
        except OSError as error:
            return Outcome(token, self._failed(_name(operation), error))
        return Outcome(token, 0, data)

    def _sync(self) -> SyncDone:
        try:
            self.storage.sync()
        except OSError as error:
            return SyncDone(self._failed("sync", error))
        return SyncDone(0)

    def _open(self, action: OpenOverlay) -> OverlayOpened:
        try:
            self._units().open(action.name, action.slot, action.base_offset, action.size_bytes)
        except (ImageError, OSError) as error:
            if self._problems.get(action.name) != str(error):  # requesters ask again and again
                _log.error("overlay %s: %s", action.name, error)
            self._problems[action.name] = str(error)
            return OverlayOpened(action.name, str(error))
        self._problems.pop(action.name, None)
        return OverlayOpened(action.name)

    def _close_overlay(self, action: CloseOverlay) -> OverlayClosed:
        try:
            self._units().close_slot(action.slot)
        except OSError as error:
            return OverlayClosed(action.name, self._failed(f"closing overlay {action.name}", error))
        return OverlayClosed(action.name)

    def _units(self) -> UnitStorage:
        assert isinstance(self.storage, UnitStorage), "where overlays are allowed, the storage has them"
        return self.storage

    def _hand_over(
        self, pool: ThreadPoolExecutor | None, work: Callable[..., BlockOutcome], *arguments: object
    ) -> BlockOutcome | None:
        """Let a thread do the work; without threads do it now."""
        if pool is None:
            return work(*arguments)
        pool.submit(self._later, work, *arguments)
        return None

    def _later(self, work: Callable[..., BlockOutcome], *arguments: object) -> None:
        """Run in a worker thread: do the work and bring its outcome into the loop."""
        event = work(*arguments)
        if not self._closed and self._post is not None:
            self._post(self._deliver, event)

    def _failed(self, what: str, error: OSError) -> int:
        """Log the first hundred failures (a dying medium fails thousands of times); return the errno value."""
        self.errors += 1
        if self.errors <= 100:
            _log.error("storage: %s failed: %s", what, error)
        return error.errno or errno.EIO


def open_block(config: BlockConfig) -> tuple[BlockController, UnitStorage]:
    """Open the configured image and make the core that serves it and the overlays over it.

    Raises:
        ImageError: The image cannot be used.
        ConfigError: The extents do not fit the image or each other.
    """
    image = FileStorage(config.image, config.size_bytes, read_only=config.read_only)
    try:
        extents = [
            extent if not config.read_only or extent.read_only else replace(extent, read_only=True)
            for extent in config.extents
        ]
        if config.size_bytes is not None and image.size_bytes > config.size_bytes:
            fixed = _overlay_folder(config).fixed({extent.name: extent.size_bytes for extent in extents})
            extents = [*follow_image(extents, config.size_bytes, image.size_bytes, fixed)]
        table = ExtentTable(extents, image.size_bytes, str(config.image))
    except BaseException:
        image.close()
        raise
    core = BlockController(table, config.durability, config.queue_credits, config.burst, config.allowed_overlays)
    return core, UnitStorage(image, _overlay_opener(config, image))


def _overlay_folder(config: BlockConfig) -> OverlayFolder:
    return OverlayFolder(config.overlays or Path(f"{config.image}.overlays"))


def _overlay_opener(config: BlockConfig, image: FileStorage) -> Callable[[str, int, int], Overlay]:
    """Return what opens overlays; each base's fingerprint is taken once, as nobody changes it meanwhile."""
    folder = _overlay_folder(config)
    marks: dict[tuple[int, int], bytes] = {}

    def open_overlay(unit: str, start: int, length: int) -> Overlay:
        base = Base(image, start, length, str(config.image))
        if (start, length) not in marks:
            marks[start, length] = base_mark(base)
        return folder.open(unit, base, marks[start, length])

    return open_overlay


def _name(operation: Operation) -> str:
    return f"{operation.opcode.name.lower()} of {operation.length} bytes at {operation.offset}"
