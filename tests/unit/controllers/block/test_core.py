"""The block controller's core, event by event."""

from __future__ import annotations

import errno

import pytest

from iovirt_dist.controllers.base import (
    CommandsSubmitted,
    CompleteCommands,
    QueuePairClosed,
    QueuePairOpened,
    TimerFired,
)
from iovirt_dist.controllers.block.core import (
    MAX_ACTIVE,
    ROUND_BYTES,
    AccessStorage,
    BlockAction,
    BlockController,
    ImageGrown,
    Outcome,
    StorageDone,
    SyncDone,
    SyncStorage,
)
from iovirt_dist.controllers.block.extents import Durability, Extent, ExtentTable
from iovirt_dist.controllers.block.operation import Operation
from iovirt_dist.controllers.news import TellUnitsChanged
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Command, Completion, Opcode, Status, UnitIdentity

WORK, RULES = 0, 1
"""Unit numbers: 64 KiB that may be written, from byte 4096; 4 KiB read-only, from byte 0."""
EXTENTS = [Extent("work", 4096, 65536), Extent("rules", 0, 4096, read_only=True)]


def _core(durability: Durability = Durability.WRITE_THROUGH, queue_credits: int = 256) -> BlockController:
    """A core with queue pair 1 open."""
    core = BlockController(ExtentTable(EXTENTS, 1 << 20), durability, queue_credits)
    core.handle(QueuePairOpened(1, "hv", resumed=False), 0)
    return core


def _id(sequence: int) -> bytes:
    return RequestId(1, 0, sequence).pack()


def _write(sequence: int, offset: int = 0, length: int = 512) -> Command:
    return Command(_id(sequence), Opcode.WRITE, WORK, offset, length)


def _read(sequence: int, offset: int = 0, length: int = 512) -> Command:
    return Command(_id(sequence), Opcode.READ, WORK, offset, length)


def _flush(sequence: int) -> Command:
    return Command(_id(sequence), Opcode.FLUSH, WORK)


def _submit(core: BlockController, *commands: Command, payload: bytes | None = None) -> list[BlockAction]:
    """Submit commands; every write carries zeroes, or `payload`."""
    data = [bytes(c.length) if payload is None else payload for c in commands if c.opcode is Opcode.WRITE]
    return core.handle(CommandsSubmitted(1, list(commands), [*data]), 0)


def _done(core: BlockController, *tokens: int, error: int = 0) -> list[BlockAction]:
    return core.handle(StorageDone([Outcome(token, error) for token in tokens]), 0)


def _completed(*sequences: int, status: Status = Status.OK) -> CompleteCommands:
    return CompleteCommands(1, [Completion(_id(sequence), status) for sequence in sequences], [])


def test_read_becomes_an_access_at_its_place_in_the_image() -> None:
    """The extent's start is added; the data comes back with the completion."""
    core = _core()

    actions = _submit(core, _read(1, offset=1024, length=512))
    ended = core.handle(StorageDone([Outcome(1, 0, b"r" * 512)]), 0)

    assert actions == [AccessStorage([Operation(1, Opcode.READ, 5120, 512)])]
    assert ended == [CompleteCommands(1, [Completion(_id(1), Status.OK, 512)], [b"r" * 512])]


def test_identify_gives_number_and_identity() -> None:
    """A hypervisor asks by name and uses the number from then on."""
    core = _core()

    actions = core.handle(CommandsSubmitted(1, [Command(_id(1), Opcode.IDENTIFY, length=5)], [b"rules"]), 0)

    identity = UnitIdentity(4096, 512, True, "rules").pack()
    assert actions == [CompleteCommands(1, [Completion(_id(1), Status.OK, len(identity), RULES)], [identity])]


def test_identify_of_an_unknown_name_is_an_unknown_unit() -> None:
    """There is no such extent."""
    core = _core()

    actions = core.handle(CommandsSubmitted(1, [Command(_id(1), Opcode.IDENTIFY, length=2)], [b"\xff\0"]), 0)

    assert actions == [_completed(1, status=Status.UNKNOWN_UNIT)]


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (Command(_id(1), Opcode.READ, WORK, 65536, 512), Status.OUT_OF_RANGE),
        (Command(_id(1), Opcode.READ, WORK, 65024, 1024), Status.OUT_OF_RANGE),
        (Command(_id(1), Opcode.READ, WORK, (1 << 64) - 512, 512), Status.OUT_OF_RANGE),
        (Command(_id(1), Opcode.DISCARD, WORK, 0, (1 << 64) - 512), Status.OUT_OF_RANGE),
        (Command(_id(1), Opcode.READ, WORK, 0, 0), Status.BAD_LENGTH),
        (Command(_id(1), Opcode.READ, WORK, 0, 100), Status.BAD_LENGTH),
        (Command(_id(1), Opcode.READ, WORK, 100, 512), Status.BAD_LENGTH),
        (Command(_id(1), Opcode.READ, WORK, 0, MAX_DATA_BYTES + 512), Status.BAD_LENGTH),
        (Command(_id(1), Opcode.WRITE, RULES, 0, 512), Status.READ_ONLY),
        (Command(_id(1), Opcode.DISCARD, RULES, 0, 512), Status.READ_ONLY),
        (Command(_id(1), Opcode.READ, 2, 0, 512), Status.UNKNOWN_UNIT),
        (Command(_id(1), Opcode.FLUSH, 0xFFFF_FFFF), Status.UNKNOWN_UNIT),
        (Command(_id(1), Opcode.CONSOLE_RECEIVE, WORK, 0, 512), Status.UNKNOWN_OPCODE),
    ],
)
def test_command_that_cannot_be_done_gets_its_status(command: Command, status: Status) -> None:
    """Bounds, alignment, lengths, rights and opcodes are checked; nothing reaches the storage."""
    assert _submit(_core(), command) == [_completed(1, status=status)]


@pytest.mark.parametrize("payload", [b"", bytes(511), bytes(1024)])
def test_write_whose_data_has_another_length_is_refused(payload: bytes) -> None:
    """The command's length and the payload must agree."""
    assert _submit(_core(), _write(1), payload=payload) == [_completed(1, status=Status.BAD_LENGTH)]


def test_write_through_completes_only_after_a_sync_that_began_after_it() -> None:
    """pwrite, then sync, then completion."""
    core = _core()

    submitted = _submit(core, _write(1))
    written = _done(core, 1)
    synced = core.handle(SyncDone(0), 0)

    assert submitted == [AccessStorage([Operation(1, Opcode.WRITE, 4096, 512, bytes(512))])]
    assert written == [SyncStorage()]
    assert synced == [_completed(1)]


def test_writes_during_a_sync_are_covered_by_one_next_sync() -> None:
    """Group commit: what is written while a sync runs waits for the next one, together."""
    core = _core()
    _submit(core, _write(1))
    _done(core, 1)

    while_syncing = [*_submit(core, _write(2, 512), _write(3, 1024)), *_done(core, 2, 3)]
    first = core.handle(SyncDone(0), 0)
    second = core.handle(SyncDone(0), 0)

    assert [type(action) for action in while_syncing] == [AccessStorage]
    assert first == [_completed(1), SyncStorage()]
    assert second == [_completed(2, 3)]
    assert core.syncs == 2


def test_write_back_completes_at_once_and_flush_waits_for_a_sync() -> None:
    """FLUSH is the barrier."""
    core = _core(Durability.WRITE_BACK)
    _submit(core, _write(1))

    written = _done(core, 1)
    flushing = _submit(core, _flush(2))
    synced = core.handle(SyncDone(0), 0)

    assert written == [_completed(1)]
    assert flushing == [SyncStorage()]
    assert synced == [_completed(2)]


def test_flush_during_a_sync_that_covers_everything_shares_it() -> None:
    """Nothing was written since that sync began, so its end is the flush's end."""
    core = _core(Durability.WRITE_BACK)
    _submit(core, _write(1))
    _done(core, 1)
    _submit(core, _flush(2))

    assert _submit(core, _flush(3)) == []
    assert core.handle(SyncDone(0), 0) == [_completed(2, 3)]


def test_flush_during_a_sync_with_a_later_write_waits_for_the_next() -> None:
    """The running sync began before the write, so it proves nothing about it."""
    core = _core(Durability.WRITE_BACK)
    _submit(core, _write(1))
    _done(core, 1)
    _submit(core, _flush(2))
    _submit(core, _write(3))
    _done(core, 2)

    assert _submit(core, _flush(4)) == []
    assert core.handle(SyncDone(0), 0) == [_completed(2), SyncStorage()]
    assert core.handle(SyncDone(0), 0) == [_completed(4)]


@pytest.mark.parametrize("durability", list(Durability))
def test_flush_with_nothing_written_since_the_last_completes_at_once(durability: Durability) -> None:
    """The first one syncs, as a former life may have written; then there is nothing to make stable."""
    core = _core(durability)

    first = _submit(core, _flush(1))
    synced = core.handle(SyncDone(0), 0)
    second = _submit(core, _flush(2))

    assert (first, synced, second) == ([SyncStorage()], [_completed(1)], [_completed(2)])


def test_discard_in_write_through_is_as_stable_as_a_write() -> None:
    """It completes after a sync."""
    core = _core()

    submitted = _submit(core, Command(_id(1), Opcode.DISCARD, WORK, 0, 65536))

    assert submitted == [AccessStorage([Operation(1, Opcode.DISCARD, 4096, 65536)])]
    assert _done(core, 1) == [SyncStorage()]
    assert core.handle(SyncDone(0), 0) == [_completed(1)]


def test_failed_sync_fails_the_covered_writes_and_all_later_ones() -> None:
    """Nothing is retried and acknowledged; reads go on."""
    core = _core()
    _submit(core, _write(1))
    _done(core, 1)
    _submit(core, _write(2, 512), _write(3, 1024))
    _done(core, 2)

    failed = core.handle(SyncDone(errno.EIO), 0)
    late = _done(core, 3)
    later = _submit(core, _write(4), _flush(5), Command(_id(6), Opcode.DISCARD, WORK, 0, 512))
    reading = _submit(core, _read(7))

    assert failed == [_completed(1, 2, status=Status.MEDIUM_ERROR)]
    assert late == [_completed(3, status=Status.MEDIUM_ERROR)]
    assert later == [_completed(4, 5, 6, status=Status.MEDIUM_ERROR)]
    assert reading == [AccessStorage([Operation(4, Opcode.READ, 4096, 512)])]
    assert core.failed
    assert core.medium_errors == 6


def test_failed_sync_in_write_back_fails_the_flush_and_later_writes() -> None:
    """A write that the storage takes after the failure is not acknowledged."""
    core = _core(Durability.WRITE_BACK)
    _submit(core, _write(1))
    _done(core, 1)
    _submit(core, _flush(2), _write(3))

    assert core.handle(SyncDone(errno.EIO), 0) == [_completed(2, status=Status.MEDIUM_ERROR)]
    assert _done(core, 2) == [_completed(3, status=Status.MEDIUM_ERROR)]


def test_failed_write_fails_alone() -> None:
    """A full disk refuses one write; the unit goes on."""
    core = _core()
    _submit(core, _write(1))

    assert _done(core, 1, error=errno.ENOSPC) == [_completed(1, status=Status.MEDIUM_ERROR)]
    assert not core.failed


def test_failed_read_is_a_medium_error() -> None:
    """The data is not there."""
    core = _core()
    _submit(core, _read(1))

    assert _done(core, 1, error=errno.EIO) == [_completed(1, status=Status.MEDIUM_ERROR)]


def test_read_behind_an_overlapping_write_waits_for_it() -> None:
    """It is handed to the storage once the write is taken."""
    core = _core()

    submitted = _submit(core, _write(1, 0, 1024), _read(2, 512, 512), _read(3, 2048, 512))
    written = _done(core, 1)

    assert submitted == [
        AccessStorage(
            [Operation(1, Opcode.WRITE, 4096, 1024, bytes(1024)), Operation(3, Opcode.READ, 6144, 512)],
        )
    ]
    assert written == [SyncStorage(), AccessStorage([Operation(2, Opcode.READ, 4608, 512)])]


def test_storage_gets_no_more_than_its_queue_depth() -> None:
    """The rest waits for outcomes."""
    core = _core()

    (access,) = _submit(core, *(_read(n) for n in range(1, MAX_ACTIVE + 3)))
    (completion, following) = _done(core, 1)

    assert isinstance(access, AccessStorage)
    assert len(access.operations) == MAX_ACTIVE
    assert isinstance(completion, CompleteCommands)
    assert following == AccessStorage([Operation(MAX_ACTIVE + 1, Opcode.READ, 4096, 512)])


def test_round_ends_once_it_moves_its_bytes() -> None:
    """Another pair's small read need not wait for megabytes of one pair."""
    core = BlockController(ExtentTable([Extent("big")], 64 << 20))
    core.handle(QueuePairOpened(1, "hv", resumed=False), 0)
    large = [Command(_id(n), Opcode.READ, 0, 0, ROUND_BYTES // 2) for n in range(1, 6)]

    (access,) = core.handle(CommandsSubmitted(1, large, []), 0)

    assert isinstance(access, AccessStorage)
    assert [operation.token for operation in access.operations] == [1, 2]


def test_commands_that_end_at_once_do_not_hold_up_those_behind_them() -> None:
    """More refused commands than a round takes, then a read: it is started by the same event."""
    core = _core()
    refused = [Command(_id(n), Opcode.READ, 9, 0, ROUND_BYTES) for n in range(1, 101)]

    completed, access = _submit(core, *refused, _read(200))

    assert isinstance(completed, CompleteCommands)
    assert len(completed.completions) == 100
    assert access == AccessStorage([Operation(1, Opcode.READ, 4096, 512)])


def test_write_submitted_again_while_and_after_it_is_done_takes_effect_once() -> None:
    """The storage sees it once; its completion is sent again."""
    core = _core()
    _submit(core, _write(1))

    again = _submit(core, _write(1))
    _done(core, 1)
    while_syncing = _submit(core, _write(1))
    completed = core.handle(SyncDone(0), 0)
    after = _submit(core, _write(1))

    assert again == []
    assert while_syncing == []
    assert completed == after == [_completed(1)]


def test_write_of_a_lost_pair_completes_when_the_peer_is_back() -> None:
    """The session resumes under another number; nothing was lost."""
    core = _core()
    _submit(core, _write(1))
    core.handle(QueuePairClosed(1), 0)

    while_lost = [*_done(core, 1), *core.handle(SyncDone(0), 0)]
    back = core.handle(QueuePairOpened(2, "hv", resumed=True), 0)

    assert while_lost == [SyncStorage()]
    assert back == [CompleteCommands(2, [Completion(_id(1), Status.OK)], [])]


def test_write_of_a_new_life_waits_for_the_old_life_s_overlapping_one() -> None:
    """What runs at the storage keeps its place even when nobody hears of it."""
    core = _core()
    _submit(core, _write(1))
    core.handle(QueuePairOpened(1, "hv", resumed=False), 0)

    assert _submit(core, _write(1)) == []
    assert _done(core, 1) == [SyncStorage(), AccessStorage([Operation(2, Opcode.WRITE, 4096, 512, bytes(512))])]
    assert core.handle(SyncDone(0), 0) == []
    assert _done(core, 2) == [SyncStorage()]
    assert core.handle(SyncDone(0), 0) == [_completed(1)]


def test_events_that_mean_nothing_change_nothing() -> None:
    """A timer, an outcome nobody waits for, a pair that is not open."""
    core = _core()

    assert core.handle(TimerFired(), 0) == []
    assert _done(core, 77) == []
    assert core.handle(SyncDone(0), 0) == []
    assert core.handle(CommandsSubmitted(9, [_read(1)], []), 0) == []
    assert core.handle(QueuePairClosed(9), 0) == []
    assert core.deadline_ns() is None


def test_grown_image_has_its_extent_grow_and_hypervisors_told() -> None:
    """The new part can be written at once, and IDENTIFY tells the size."""
    core = BlockController(ExtentTable([Extent("all", 4096)], 1 << 20))
    core.handle(QueuePairOpened(1, "hv", resumed=False), 0)
    beyond = Command(_id(1), Opcode.READ, 0, 1 << 20, 512)

    before = core.handle(CommandsSubmitted(1, [beyond], []), 0)
    told = core.handle(ImageGrown(2 << 20), 0)
    after = core.handle(CommandsSubmitted(1, [beyond._replace(id=_id(2))], []), 0)
    (identified,) = core.handle(CommandsSubmitted(1, [Command(_id(3), Opcode.IDENTIFY, 0, 0, 3)], [b"all"]), 0)

    assert before == [_completed(1, status=Status.OUT_OF_RANGE)]
    assert told == [TellUnitsChanged()]
    assert isinstance(after[0], AccessStorage)
    assert isinstance(identified, CompleteCommands)
    assert UnitIdentity.unpack(bytes(identified.payload[0])).size_bytes == (2 << 20) - 4096
    assert _core().handle(ImageGrown(2 << 20), 0) == []  # behind all extents: no news
