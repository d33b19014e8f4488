"""The block controller's core: commands of many queue pairs become accesses to one storage.

Theory of operation. Arbitration takes at most `MAX_ACTIVE` commands and `ROUND_BYTES` at a time; each is checked and
becomes an `Operation` of one `AccessStorage` action. Operations that overlap one another run in order of arrival
(`ordering`), so that the operations of one action never conflict and the runner may do them in any order.

Durability. In write-through mode a write (of data or of zeroes) or discard that the storage has taken waits for a sync
that begins after it. One sync runs at a time; whatever is written meanwhile is covered by the next one (group commit).
In write-back mode writes complete at once and FLUSH waits for such a sync. A flush covers everything that the storage
has taken before it, which includes everything that was completed.

A failed sync leaves the fate of what it covered unknown, and the kernel has marked those pages clean: a second sync
would report success for data that never reached the medium. So it is never repeated: covered writes fail, and the
controller refuses every later write, discard and flush until it restarts. Reads go on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from iovirt_dist.controllers.base import (
    CommandsSubmitted,
    CompleteCommands,
    PairEvent,
    QueuePairClosed,
    QueuePairOpened,
    QueuePairs,
    TimerFired,
)
from iovirt_dist.controllers.block.extents import BLOCK_BYTES, Durability, ExtentTable, Unit
from iovirt_dist.controllers.block.operation import Operation
from iovirt_dist.controllers.block.ordering import AccessOrder
from iovirt_dist.controllers.block.overlay_units import (
    OverlayAction,
    OverlayClosed,
    OverlayOpened,
    OverlaysAllowed,
    OverlayUnits,
)
from iovirt_dist.controllers.news import TellUnitsChanged
from iovirt_dist.controllers.peer_queues import OutstandingCommand
from iovirt_dist.step import Record
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode, Status

MAX_ACTIVE: Final = 64
"""Commands at the storage at once: the device's queue depth, shared by all queue pairs."""

ROUND_BYTES: Final = 4 << 20
"""Once a round moves this much, the next arbitration waits for its outcome: about 2 ms from the page cache."""

_CLEARING: Final = frozenset({Opcode.DISCARD, Opcode.WRITE_ZEROES})
"""Accesses that move no data, and so may be of any length."""
_ACCESSES: Final = _CLEARING | {Opcode.READ, Opcode.WRITE}
_READ: Final = Opcode.READ  # an attribute of an enumeration costs as much as a call
_FLUSH: Final = Opcode.FLUSH
_BLOCK_MASK: Final = BLOCK_BYTES - 1


class Outcome(Record, frozen=True):
    """How an operation ended.

    Attributes:
        token: The operation's.
        error: errno value, 0 for success.
        data: Buffer with what a successful READ read, and maybe others; nobody changes it any more.
        start: Where in it the operation's `length` bytes begin.
    """

    token: int
    error: int = 0
    data: Buffer = b""
    start: int = 0


@dataclass(frozen=True, slots=True)
class AccessStorage:
    """Do these operations, in any order or at once; each has one outcome in some `StorageDone`."""

    operations: list[Operation]


@dataclass(frozen=True, slots=True)
class SyncStorage:
    """Make everything stable that the storage has taken before now; answered by `SyncDone`. One at a time."""


@dataclass(frozen=True, slots=True)
class StorageDone:
    """Operations ended."""

    outcomes: list[Outcome]


@dataclass(frozen=True, slots=True)
class SyncDone:
    """The sync ended; `error` is an errno value, 0 for success."""

    error: int


@dataclass(frozen=True, slots=True)
class ImageGrown:
    """The image is longer than it was; `size_bytes` is a multiple of 512."""

    size_bytes: int


BlockOutcome = StorageDone | SyncDone | ImageGrown | OverlayOpened | OverlayClosed | OverlaysAllowed
BlockAccess = AccessStorage | SyncStorage | OverlayAction
BlockEvent = PairEvent | BlockOutcome
BlockAction = CompleteCommands | TellUnitsChanged | BlockAccess


class BlockController:
    """Sans-IO core of a block controller.

    Args:
        table: The extents.
        durability: What a completed write promises.
        queue_credits: Commands that one queue pair may have in flight.
        burst: Commands taken from one queue pair before the next has its turn.
        allowed_overlays: Overlays that may be used, ``EXTENT@GUEST``.
    """

    def __init__(
        self,
        table: ExtentTable,
        durability: Durability = Durability.WRITE_THROUGH,
        queue_credits: int = 256,
        burst: int = 8,
        allowed_overlays: Collection[str] = (),
    ) -> None:
        self.pairs = QueuePairs(queue_credits, burst)
        self.failed = False
        """A sync has failed: nothing is written until the controller restarts."""
        self.syncs = 0
        """Syncs begun."""
        self.medium_errors = 0
        """Commands completed with MEDIUM_ERROR."""
        self._handlers: dict[type, Callable[[Any], None]] = {
            QueuePairOpened: self.pairs.opened,
            QueuePairClosed: self.pairs.closed,
            CommandsSubmitted: self.pairs.submit,
            StorageDone: self._storage_done,
            SyncDone: self._sync_done,
            ImageGrown: self._image_grown,
            OverlayOpened: self._overlay_opened,
            OverlayClosed: self._overlay_closed,
            OverlaysAllowed: self._overlays_allowed,
        }
        self._table = table
        self._units = table.units
        self._write_through = durability is Durability.WRITE_THROUGH
        self.overlays = OverlayUnits(table, allowed_overlays, self._identified)
        """Units that are overlays."""
        self._order = AccessOrder()
        self._active: dict[int, OutstandingCommand] = {}
        self._next_token = 1
        self._operations: list[Operation] = []
        self._dirty = True
        """Something was written since the last sync began, or before this process began: the first flush syncs."""
        self._unsynced: list[OutstandingCommand] = []
        """Requests that the next sync will let complete."""
        self._flushed: list[OutstandingCommand] = []
        """Flushes of this round that had nothing to wait for."""
        self._covered: list[OutstandingCommand] | None = None
        """Requests that the running sync will let complete, None while none runs."""
        self._units_changed = False
        """A unit is another than it was, and nobody was told yet."""
        self._now_ns = 0

    def handle(self, event: BlockEvent, now_ns: int) -> list[BlockAction]:
        """Take an event; return completions first, then a sync, then accesses."""
        self._now_ns = now_ns
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        if not self.pairs.paced or type(event) is TimerFired:
            self._start_commands()
        actions: list[BlockAction] = [*self.pairs.collect()]
        if self._units_changed:
            self._units_changed = False
            actions.append(TellUnitsChanged())
        if self._unsynced and self._covered is None:
            self._covered, self._unsynced, self._dirty = self._unsynced, [], False
            self.syncs += 1
            actions.append(SyncStorage())
        if self._operations:
            actions.append(AccessStorage(self._operations))
            self._operations = []
        if self.overlays.actions:
            actions += self.overlays.actions
            self.overlays.actions = []
        return actions

    def deadline_ns(self) -> int | None:
        """At once, where peers compete by weight: the next round is theirs whose messages have come by then."""
        paced = self.pairs.paced and self.pairs.waiting and self.pairs.room(MAX_ACTIVE - len(self._active)) > 0
        return self._now_ns if paced else None

    def _start_commands(self) -> None:
        """Take commands until something is at the storage or nothing is left; what follows waits for its outcome."""
        while not self._operations:
            taken = self.pairs.take(self.pairs.room(MAX_ACTIVE - len(self._active)), ROUND_BYTES)
            if not taken:
                return
            entering = [operation for command in taken if (operation := self._start(command)) is not None]
            if self._flushed:
                self.pairs.complete_plain(self._flushed)
                self._flushed = []
            self._operations += self._order.enter(entering)

    def _start(self, command: OutstandingCommand) -> Operation | None:
        """Return the access that a command makes, if it makes one; otherwise end it or let it wait for a sync."""
        opcode = command.opcode
        if opcode is _FLUSH:
            self._start_flush(command)
            return None
        if opcode not in _ACCESSES:
            self._start_other(command)
            return None
        if command.unit >= len(self._units):
            self.pairs.complete(command, Status.UNKNOWN_UNIT)
            return None
        unit = self._units[command.unit]
        offset, length = command.offset, command.length
        plain = opcode is _READ and not (offset | length) & _BLOCK_MASK and 0 < length <= MAX_DATA_BYTES
        if not (plain and offset + length <= unit.size_bytes):
            if not unit.size_bytes:
                self.overlays.access(unit.number, command)
                return None
            status = self._check(command, unit)
            if status is not Status.OK:
                self._end(command, status)
                return None
        token = self._next_token
        self._next_token = token + 1
        self._active[token] = command
        return Operation(token, opcode, unit.start_bytes + offset, length, command.data)

    def _start_other(self, command: OutstandingCommand) -> None:
        if command.opcode is Opcode.IDENTIFY:
            self._identify(command)
        else:
            self.pairs.complete(command, Status.UNKNOWN_OPCODE)

    def _identify(self, command: OutstandingCommand) -> None:
        name = bytes(command.data)
        unit = self._table.find(name)
        if unit is None:
            self.overlays.identify(name.decode("ascii", errors="replace"), command)
        else:
            self._identified(command, unit)

    def _identified(self, command: OutstandingCommand, unit: Unit | Status) -> None:
        """Go on with a command for a unit, or end it with why there is none: IDENTIFY, or an access to an overlay."""
        if isinstance(unit, Status):
            self.pairs.complete(command, unit)
        elif command.opcode is Opcode.IDENTIFY:
            self.pairs.complete(command, Status.OK, unit.identity, unit.number)
        elif (operation := self._start(command)) is not None:
            self._operations += self._order.enter([operation])

    def _image_grown(self, event: ImageGrown) -> None:
        """Accesses to what came new are good from now on, and whoever asks is told of it."""
        self._units_changed = self._table.grow(event.size_bytes)

    def _overlay_opened(self, event: OverlayOpened) -> None:
        self._dirty = True  # a former life may have written to it
        self.overlays.opened(event)

    def _overlay_closed(self, event: OverlayClosed) -> None:
        if event.error:
            self._fail()
        self.overlays.closed(event)

    def _overlays_allowed(self, event: OverlaysAllowed) -> None:
        self.overlays.allow(event, {command.unit for command in self._active.values()})

    def _check(self, command: OutstandingCommand, unit: Unit) -> Status:
        """Return why an access is refused, or OK. What is no whole number of blocks has BAD_LENGTH."""
        opcode, offset, length = command.opcode, command.offset, command.length
        if (offset | length) & _BLOCK_MASK or not length or (length > MAX_DATA_BYTES and opcode not in _CLEARING):
            return Status.BAD_LENGTH
        if opcode is Opcode.WRITE and len(command.data) != length:
            return Status.BAD_LENGTH
        if offset + length > unit.size_bytes:
            return Status.OUT_OF_RANGE
        if opcode is Opcode.READ:
            return Status.OK
        if unit.read_only:
            return Status.READ_ONLY
        return Status.MEDIUM_ERROR if self.failed else Status.OK

    def _start_flush(self, command: OutstandingCommand) -> None:
        if command.unit >= len(self._units):
            self.pairs.complete(command, Status.UNKNOWN_UNIT)
        elif self.failed:
            self._end(command, Status.MEDIUM_ERROR)
        elif self._dirty:
            self._unsynced.append(command)
        elif self._covered is not None:
            self._covered.append(command)
        else:
            self._flushed.append(command)

    def _storage_done(self, event: StorageDone) -> None:
        """End what the storage has done. Reads of one peer whose data lies in a row end together."""
        left: list[int] = []
        row: list[OutstandingCommand] = []
        buffer: Buffer = b""
        end = 0
        for outcome in event.outcomes:
            token, start = outcome.token, outcome.start
            command = self._active.pop(token, None)
            if command is None:
                continue
            left.append(token)
            good = command.opcode is _READ and not outcome.error
            if row and not (good and start == end and outcome.data is buffer and command.queues is row[0].queues):
                self.pairs.complete_reads(row, buffer, end)
                row = []
            if good:
                row.append(command)
                buffer, end = outcome.data, start + command.length
            elif command.opcode is _READ:
                self._end(command, Status.MEDIUM_ERROR)
            else:
                self._changed(command, outcome.error)
        if row:
            self.pairs.complete_reads(row, buffer, end)
        self._operations += self._order.leave(left)
        if self.overlays.draining:
            self.overlays.drained({command.unit for command in self._active.values()})

    def _changed(self, command: OutstandingCommand, error: int) -> None:
        """The storage has taken a write or discard, or failed to: it may have changed something in either case."""
        self._dirty = True
        if error or self.failed:
            self._end(command, Status.MEDIUM_ERROR)
        elif self._write_through:
            self._unsynced.append(command)
        else:
            self._end(command, Status.OK)

    def _sync_done(self, event: SyncDone) -> None:
        """End what the sync covered; an overlay that closed meanwhile may have failed what it had been asked to."""
        covered, self._covered = self._covered or [], None
        status = Status.MEDIUM_ERROR if event.error or self.failed else Status.OK
        for command in covered:
            self._end(command, status)
        if event.error:
            self._fail()

    def _fail(self) -> None:
        """What was written since the last sync may be lost: refuse to write from now on."""
        self.failed = True
        unsynced, self._unsynced = self._unsynced, []
        for command in unsynced:
            self._end(command, Status.MEDIUM_ERROR)

    def _end(self, command: OutstandingCommand, status: Status) -> None:
        if status is Status.MEDIUM_ERROR:
            self.medium_errors += 1
        self.pairs.complete(command, status)
