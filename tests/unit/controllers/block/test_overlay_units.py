"""Units that are overlays, as the block core opens and closes them."""

from __future__ import annotations

import errno

from iovirt_dist.controllers.base import CommandsSubmitted, CompleteCommands, QueuePairOpened
from iovirt_dist.controllers.block.core import (
    AccessStorage,
    BlockAction,
    BlockController,
    Outcome,
    StorageDone,
    SyncDone,
    SyncStorage,
)
from iovirt_dist.controllers.block.extents import SLOT_BITS, Durability, Extent, ExtentTable
from iovirt_dist.controllers.block.operation import Operation
from iovirt_dist.controllers.block.overlay_units import (
    CloseOverlay,
    OpenOverlay,
    OverlayClosed,
    OverlayOpened,
    OverlaysAllowed,
)
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.commands import Command, Completion, Opcode, Status, UnitIdentity

IMAGE_BYTES = 1 << 20
BASE = 4096, 65536
A, B = "base@a", "base@b"
IDENTITY = UnitIdentity(65536, 512, False, "base").pack()
OPEN_A = OpenOverlay(A, 1, *BASE)


def _core(*allowed: str) -> BlockController:
    """A core with one extent, queue pair 1 open."""
    table = ExtentTable([Extent("base", *BASE)], IMAGE_BYTES)
    core = BlockController(table, Durability.WRITE_BACK, allowed_overlays=allowed)
    core.handle(QueuePairOpened(1, "hv", resumed=False), 0)
    return core


def _id(sequence: int) -> bytes:
    return RequestId(1, 0, sequence).pack()


def _identify(core: BlockController, sequence: int, name: str) -> list[BlockAction]:
    command = Command(_id(sequence), Opcode.IDENTIFY, 0, 0, len(name))
    return core.handle(CommandsSubmitted(1, [command], [name.encode()]), 0)


def _access(core: BlockController, sequence: int, opcode: Opcode, unit: int = 1) -> list[BlockAction]:
    command = Command(_id(sequence), opcode, unit, 512, 512)
    return core.handle(CommandsSubmitted(1, [command], [bytes(512)] if opcode is Opcode.WRITE else []), 0)


def _answer(sequence: int, status: Status = Status.OK, number: int = 0, identity: bytes = b"") -> CompleteCommands:
    completion = Completion(_id(sequence), status, len(identity), number)
    return CompleteCommands(1, [completion], [identity] if identity else [])


def _opened(*allowed: str) -> BlockController:
    """A core in which A is open."""
    core = _core(*(allowed or (A,)))
    _identify(core, 1, A)
    core.handle(OverlayOpened(A), 0)
    return core


def test_first_identify_opens_the_overlay_and_waits_for_it() -> None:
    """A second one waits too; then both have number and identity, writable."""
    core = _core(A)

    first, second = _identify(core, 1, A), _identify(core, 2, A)
    opened = core.handle(OverlayOpened(A), 0)
    later = _identify(core, 3, A)

    assert (first, second) == ([OPEN_A], [])
    completions = [Completion(_id(sequence), Status.OK, 33, 1) for sequence in (1, 2)]
    assert opened == [CompleteCommands(1, completions, [IDENTITY + IDENTITY])]
    assert later == [_answer(3, number=1, identity=IDENTITY)]


def test_accesses_of_an_overlay_are_in_its_slot() -> None:
    """Offsets are those of the disk."""
    core = _opened()

    actions = _access(core, 2, Opcode.WRITE)

    assert actions == [AccessStorage([Operation(1, Opcode.WRITE, (1 << SLOT_BITS) + 512, 512, bytes(512))])]


def test_base_of_an_overlay_is_read_only_whatever_the_configuration_says() -> None:
    """A hypervisor that writes to it anyway is refused, and told by IDENTIFY."""
    core = _core(A)

    written = _access(core, 1, Opcode.WRITE, unit=0)
    identified = _identify(core, 2, "base")

    assert written == [_answer(1, Status.READ_ONLY)]
    assert identified == [_answer(2, identity=UnitIdentity(65536, 512, True, "base").pack())]


def test_overlay_that_nobody_has_allowed_is_unknown() -> None:
    """Another guest's, another extent's, or no name at all."""
    core = _core(A, "other@a")

    answers = [_identify(core, 1, B), _identify(core, 2, "other@a"), _identify(core, 3, "\u00e4@\0")]

    assert answers == [[_answer(sequence, Status.UNKNOWN_UNIT)] for sequence in (1, 2, 3)]


def test_overlay_that_cannot_be_opened_is_an_error_of_its_guest_and_is_tried_again() -> None:
    """The problem is told until it is gone."""
    core = _core(A)
    _identify(core, 1, A)

    failed = core.handle(OverlayOpened(A, "a.cow: is damaged"), 0)
    problems = dict(core.overlays.problems)
    again = _identify(core, 2, A)
    core.handle(OverlayOpened(A), 0)

    assert failed == [_answer(1, Status.MEDIUM_ERROR)]
    assert (problems, again, core.overlays.problems) == ({A: "a.cow: is damaged"}, [OPEN_A], {})


def test_overlay_that_is_no_longer_allowed_closes_after_its_last_access() -> None:
    """Later accesses and IDENTIFY are refused."""
    core = _opened()
    _access(core, 2, Opcode.READ)

    allowed = core.handle(OverlaysAllowed(frozenset({B})), 0)
    refused = _access(core, 3, Opcode.READ)
    done = core.handle(StorageDone([Outcome(1, 0, bytes(512))]), 0)

    assert allowed == []
    assert refused == [_answer(3, Status.UNKNOWN_UNIT)]
    assert done[1:] == [CloseOverlay(A, 1)]
    assert core.overlays.open == []


def test_overlay_that_is_allowed_again_is_opened_by_the_next_access_under_its_number() -> None:
    """Whoever knows the unit from before need not identify it again, and no access is lost."""
    core = _opened()

    closing = core.handle(OverlaysAllowed(frozenset()), 0)
    core.handle(OverlaysAllowed(frozenset({A})), 0)
    early = _access(core, 2, Opcode.READ)
    closed = core.handle(OverlayClosed(A), 0)
    opened = core.handle(OverlayOpened(A), 0)

    assert (closing, early, closed) == ([CloseOverlay(A, 1)], [], [OPEN_A])
    assert opened == [AccessStorage([Operation(1, Opcode.READ, (1 << SLOT_BITS) + 512, 512)])]


def test_overlay_that_is_disallowed_while_it_opens_is_closed_again() -> None:
    """Who waited for it is told."""
    core = _core(A)
    _identify(core, 1, A)
    core.handle(OverlaysAllowed(frozenset()), 0)

    assert core.handle(OverlayOpened(A), 0) == [_answer(1, Status.UNKNOWN_UNIT), CloseOverlay(A, 1)]


def test_overlay_that_waits_for_its_end_and_is_disallowed_again_is_unknown() -> None:
    """It is not opened for nobody."""
    core = _opened()
    for names in ((), (A,)):
        core.handle(OverlaysAllowed(frozenset(names)), 0)
    _identify(core, 2, A)
    core.handle(OverlaysAllowed(frozenset()), 0)

    assert core.handle(OverlayClosed(A), 0) == [_answer(2, Status.UNKNOWN_UNIT)]


def test_overlay_whose_last_sync_failed_when_closing_ends_all_writing() -> None:
    """As any failed sync does: a flush that was acknowledged later would be a lie."""
    core = _opened(A, B)
    core.handle(OverlaysAllowed(frozenset({B})), 0)

    core.handle(OverlayClosed(A, errno.EIO), 0)

    assert core.failed
    assert _access(core, 2, Opcode.FLUSH) == [_answer(2, Status.MEDIUM_ERROR)]


def test_overlay_whose_last_sync_failed_while_another_ran_fails_what_that_covers() -> None:
    """The other one finds nothing wrong: the overlay is closed by then."""
    core = _opened(A, B)
    _access(core, 2, Opcode.WRITE)
    core.handle(StorageDone([Outcome(1)]), 0)
    syncing = _access(core, 3, Opcode.FLUSH)
    core.handle(OverlaysAllowed(frozenset({B})), 0)

    closed = core.handle(OverlayClosed(A, errno.EIO), 0)
    synced = core.handle(SyncDone(0), 0)

    assert syncing == [SyncStorage()]
    assert (closed, synced) == ([], [_answer(3, Status.MEDIUM_ERROR)])


def test_flush_after_an_overlay_was_opened_syncs() -> None:
    """A former life of the controller may have written to it."""
    core = _core(A)
    _access(core, 1, Opcode.FLUSH)
    core.handle(SyncDone(0), 0)
    _identify(core, 2, A)
    core.handle(OverlayOpened(A), 0)

    assert _access(core, 3, Opcode.FLUSH) == [SyncStorage()]


def test_outcomes_that_nobody_waits_for_are_ignored() -> None:
    """Of overlays that are not opening or closing."""
    core = _core(A)

    assert core.handle(OverlayOpened(A), 0) == core.handle(OverlayClosed(B), 0) == []
    assert core.overlays.open == []
