"""Performing the block core's actions."""

from __future__ import annotations

import asyncio
import errno
import logging
import queue
import threading
from pathlib import Path

import pytest

from iovirt_dist.controllers.base import CommandsSubmitted, CompleteCommands, QueuePairOpened
from iovirt_dist.controllers.block.core import (
    AccessStorage,
    BlockEvent,
    Outcome,
    StorageDone,
    SyncDone,
    SyncStorage,
)
from iovirt_dist.controllers.block.extents import SLOT_BITS, BlockConfig, Extent
from iovirt_dist.controllers.block.operation import Operation
from iovirt_dist.controllers.block.overlay import Overlay
from iovirt_dist.controllers.block.overlay_files import Base, OverlayFolder
from iovirt_dist.controllers.block.overlay_format import Layout
from iovirt_dist.controllers.block.overlay_units import OpenOverlay, OverlayOpened, OverlaysAllowed
from iovirt_dist.controllers.block.runner import INLINE_BYTES, BlockRunner, open_block
from iovirt_dist.controllers.block.storage import FileStorage
from iovirt_dist.controllers.news import TellUnitsChanged
from iovirt_dist.errors import ConfigError
from iovirt_dist.ids import RequestId
from iovirt_dist.testing.storage import MemoryStorage
from iovirt_dist.wire.commands import Command, Completion, Opcode, Status, UnitIdentity


class _Loop:
    """A loop of its own: what is posted runs when the test takes it."""

    def __init__(self) -> None:
        self.events: list[BlockEvent] = []
        self.threads: set[str] = set()
        self._posted: queue.Queue[tuple[object, ...]] = queue.Queue()

    def post(self, function: object, *arguments: object) -> None:
        """Take a call from any thread."""
        self.threads.add(threading.current_thread().name)
        self._posted.put((function, *arguments))

    def run_one(self) -> None:
        """Run the next call that was posted; waits for it."""
        function, *arguments = self._posted.get(timeout=10)
        assert callable(function)
        function(*arguments)


def _access(*operations: Operation) -> AccessStorage:
    return AccessStorage(list(operations))


def test_inline_runner_does_everything_at_once() -> None:
    """Without a loop every action has its outcome as the return value."""
    storage = MemoryStorage(4096)
    runner = BlockRunner(storage, lambda _: None)

    written = runner.perform(_access(Operation(1, Opcode.WRITE, 512, 512, b"w" * 512)))
    synced = runner.perform(SyncStorage())
    mixed = runner.perform(_access(Operation(2, Opcode.READ, 512, 512), Operation(3, Opcode.DISCARD, 0, 512)))

    assert written == StorageDone([Outcome(1, 0)])
    assert synced == SyncDone(0)
    assert mixed == StorageDone([Outcome(2, 0, b"w" * 512), Outcome(3, 0)])
    assert storage.stable[512:1024] == b"w" * 512


def test_runner_tells_errors_as_numbers_and_logs_them(caplog: pytest.LogCaptureFixture) -> None:
    """The core sees errno values; the log says what failed."""
    storage = MemoryStorage(4096)
    runner = BlockRunner(storage, lambda _: None)
    storage.fail("write", error=errno.ENOSPC)
    storage.fail("sync", error=errno.EIO)
    storage.fail("read", error=errno.EIO)

    with caplog.at_level(logging.ERROR):
        outcomes = [
            runner.perform(_access(Operation(1, Opcode.WRITE, 0, 512, bytes(512)), Operation(2, Opcode.READ, 0, 512))),
            runner.perform(SyncStorage()),
        ]

    assert outcomes == [StorageDone([Outcome(1, errno.ENOSPC), Outcome(2, errno.EIO)]), SyncDone(errno.EIO)]
    assert runner.errors == 3
    assert "write of 512 bytes at 0 failed" in caplog.text


def test_threaded_runner_answers_cached_reads_and_writes_at_once() -> None:
    """No thread is woken for what needs no waiting."""
    storage = MemoryStorage(4096)
    loop = _Loop()
    runner = BlockRunner(storage, loop.events.append, loop.post)

    outcome = runner.perform(_access(Operation(1, Opcode.WRITE, 0, 512, b"w" * 512), Operation(2, Opcode.READ, 0, 512)))
    runner.close()

    assert outcome == StorageDone([Outcome(1, 0), Outcome(2, 0, b"w" * 512)])
    assert loop.threads == set()


def test_threaded_runner_leaves_cold_reads_and_discards_to_workers() -> None:
    """They are delivered through the loop; the rest of the action is answered at once."""
    storage = MemoryStorage(4096)
    storage.cold = {2}
    loop = _Loop()
    runner = BlockRunner(storage, loop.events.append, loop.post)

    outcome = runner.perform(_access(Operation(1, Opcode.READ, 0, 512), Operation(2, Opcode.READ, 1024, 512)))
    loop.run_one()
    nothing = runner.perform(_access(Operation(3, Opcode.DISCARD, 0, 512)))
    loop.run_one()
    runner.close()

    assert outcome == StorageDone([Outcome(1, 0, bytes(1024))])  # the buffer of both; the second half is unused
    assert nothing is None
    assert loop.events == [StorageDone([Outcome(2, 0, bytes(512))]), StorageDone([Outcome(3, 0)])]
    assert {name.rpartition("_")[0] for name in loop.threads} == {"storage"}


def test_threaded_runner_leaves_very_large_reads_to_workers() -> None:
    """Copying megabytes would hold up the loop."""
    loop = _Loop()
    runner = BlockRunner(MemoryStorage(2 * INLINE_BYTES), loop.events.append, loop.post)

    assert runner.perform(_access(Operation(1, Opcode.READ, 0, INLINE_BYTES + 512))) is None
    loop.run_one()
    runner.close()

    assert loop.events == [StorageDone([Outcome(1, 0, bytes(INLINE_BYTES + 512))])]


def test_threaded_runner_syncs_while_the_loop_goes_on() -> None:
    """Writes are taken during a sync: group commit needs that."""
    storage = _SlowSync(4096)
    loop = _Loop()
    runner = BlockRunner(storage, loop.events.append, loop.post)

    begun = runner.perform(SyncStorage())
    written = runner.perform(_access(Operation(1, Opcode.WRITE, 0, 512, bytes(512))))
    storage.finish.set()
    loop.run_one()
    runner.close()

    assert begun is None
    assert written == StorageDone([Outcome(1, 0)])
    assert loop.events == [SyncDone(0)]


def test_threaded_runner_reports_errors_of_cached_reads_at_once() -> None:
    """A failing fast path is an outcome like any other."""
    storage = MemoryStorage(4096)
    storage.fail("read", error=errno.EIO)
    loop = _Loop()
    runner = BlockRunner(storage, loop.events.append, loop.post)

    assert runner.perform(_access(Operation(1, Opcode.READ, 0, 512))) == StorageDone([Outcome(1, errno.EIO)])
    runner.close()


def test_close_waits_for_the_sync_and_delivers_nothing_more() -> None:
    """What was under way is finished, the last writes are made stable, the core hears no more."""
    storage = _SlowSync(4096)
    loop = _Loop()
    runner = BlockRunner(storage, loop.events.append, loop.post)
    runner.perform(_access(Operation(1, Opcode.WRITE, 0, 512, b"l" * 512)))
    runner.perform(SyncStorage())
    storage.started.wait(10)
    threading.Timer(0.01, storage.finish.set).start()

    runner.close()

    assert storage.stable[:512] == b"l" * 512
    assert loop.threads == set()


def test_close_of_a_failing_medium_is_logged_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    """The process can still end in order."""
    storage = MemoryStorage(4096)
    storage.fail("sync")
    runner = BlockRunner(storage, lambda _: None)

    runner.close()

    assert "closing failed" in caplog.text


async def test_writes_of_many_pairs_share_syncs_on_a_real_image(tmp_path: Path) -> None:
    """Core, runner, threads and a real loop: every write is acknowledged, with fewer syncs than writes."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    core, storage = open_block(BlockConfig(image=tmp_path / "disk.img", size_bytes=1 << 20, extents=(Extent("a"),)))
    completions: list[Completion] = []

    def feed(event: BlockEvent) -> None:
        for action in core.handle(event, 0):
            if isinstance(action, CompleteCommands):
                completions.extend(action.completions)
                done.set_result(None) if len(completions) == 64 else None
            elif not isinstance(action, TellUnitsChanged) and (outcome := runner.perform(action)) is not None:
                feed(outcome)

    runner = BlockRunner(storage, feed, loop.call_soon_threadsafe)
    for pair in range(8):
        feed(QueuePairOpened(pair, f"hv{pair}", resumed=False))
        ids = [RequestId(pair, 0, n).pack() for n in range(8)]
        writes = [Command(id_, Opcode.WRITE, 0, (pair * 8 + n) * 4096, 4096) for n, id_ in enumerate(ids)]
        feed(CommandsSubmitted(pair, writes, [bytes([65 + pair]) * 4096] * 8))
    await asyncio.wait_for(done, 10)
    runner.close()

    assert {completion.status for completion in completions} == {Status.OK}
    assert (tmp_path / "disk.img").read_bytes()[: 64 * 4096 : 8 * 4096] == b"ABCDEFGH"
    assert core.syncs <= 8


def test_open_block_makes_core_and_storage_from_the_configuration(tmp_path: Path) -> None:
    """Extents are checked against the image as it is."""
    config = BlockConfig(
        image=tmp_path / "disk.img", size_bytes=1 << 20, extents=(Extent("a", 0, 4096), Extent("b", 4096))
    )

    core, storage = open_block(config)

    assert storage.size_bytes == 1 << 20
    assert core.pairs.queue_credits == config.queue_credits
    storage.close()


def test_open_block_with_extents_that_do_not_fit_leaves_the_image_unlocked(tmp_path: Path) -> None:
    """A configuration error names the image and holds nothing."""
    config = BlockConfig(image=tmp_path / "disk.img", size_bytes=4096, extents=(Extent("a", 0, 8192),))

    with pytest.raises(ConfigError, match=r"disk\.img: a: .* not inside the image"):
        open_block(config)

    FileStorage(config.image).close()


def test_open_block_of_a_read_only_image_makes_every_extent_read_only(tmp_path: Path) -> None:
    """Extents that overlap are fine then."""
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(4096))

    core, storage = open_block(BlockConfig(image=path, read_only=True, extents=(Extent("a"), Extent("b", 512))))
    core.handle(QueuePairOpened(1, "hv", resumed=False), 0)
    write = Command(RequestId(1, 0, 1).pack(), Opcode.WRITE, 0, 0, 512)

    actions = core.handle(CommandsSubmitted(1, [write], [bytes(512)]), 0)

    assert actions == [CompleteCommands(1, [Completion(write.id, Status.READ_ONLY)], [])]
    storage.close()


class _SlowSync(MemoryStorage):
    """A storage whose sync takes until the test lets it finish."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.started = threading.Event()
        self.finish = threading.Event()

    def sync(self) -> None:
        """Begin, wait, end."""
        mark = self.begin_sync()
        self.started.set()
        self.finish.wait(10)
        self.end_sync(mark)


def test_short_reads_of_an_action_fill_one_buffer_without_gaps() -> None:
    """Also where one in the middle has to wait for the medium; a long read has a buffer of its own."""
    storage = MemoryStorage(1 << 20)
    storage.write_at(0, b"a" * 512 + b"b" * 512 + b"c" * 512)
    storage.cold = {1}
    runner = BlockRunner(storage, lambda _: None, lambda *_: None)

    done = runner.perform(
        _access(
            Operation(1, Opcode.READ, 0, 512),
            Operation(2, Opcode.READ, 512, 512),
            Operation(3, Opcode.READ, 65536, 65536),
            Operation(4, Opcode.READ, 1024, 512),
        )
    )
    runner.close()

    assert isinstance(done, StorageDone)
    first, long, last = done.outcomes
    assert first.data is last.data
    assert bytes(first.data[:1024]) == b"a" * 512 + b"c" * 512
    assert [(outcome.token, outcome.start, len(outcome.data)) for outcome in (first, long, last)] == [
        (1, 0, 1536),
        (3, 0, 65536),
        (4, 512, 1536),
    ]


def test_open_block_serves_overlays_in_their_folder_and_leaves_the_base_alone(tmp_path: Path) -> None:
    """Identified by name, written, and closed when it is not allowed any more."""
    image = tmp_path / "disk.img"
    image.write_bytes(b"b" * 8192)
    overlays = tmp_path / "overlays"
    config = BlockConfig(image=image, overlays=overlays, allowed_overlays=frozenset({"disk@a"}))
    core, storage = open_block(config)
    runner = BlockRunner(storage, lambda _: None)
    core.handle(QueuePairOpened(1, "hv", resumed=False), 0)

    def run(event: BlockEvent) -> list[CompleteCommands]:
        """Do what the core wants until it is done."""
        completed: list[CompleteCommands] = []
        for action in core.handle(event, 0):
            if isinstance(action, CompleteCommands):
                completed.append(action)
            elif not isinstance(action, TellUnitsChanged) and (outcome := runner.perform(action)) is not None:
                completed += run(outcome)
        return completed

    ids = [RequestId(1, 0, sequence).pack() for sequence in (1, 2)]
    identified = run(CommandsSubmitted(1, [Command(ids[0], Opcode.IDENTIFY, 0, 0, 6)], [b"disk@a"]))
    written = run(CommandsSubmitted(1, [Command(ids[1], Opcode.WRITE, 1, 512, 512)], [b"w" * 512]))
    content = bytes(storage.read_at(1 << SLOT_BITS, 1536))
    run(OverlaysAllowed(frozenset()))
    left = list(storage.overlays)
    runner.close()

    assert [answer.completions[0].status for answer in (*identified, *written)] == [Status.OK, Status.OK]
    assert (content, left) == (b"b" * 512 + b"w" * 512 + b"b" * 512, [])
    assert image.read_bytes() == b"b" * 8192
    assert [path.name for path in overlays.iterdir()] == ["disk@a.cow"]


def test_overlay_that_cannot_be_opened_is_told_in_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once in the log, and to the core each time."""
    config = BlockConfig(image=tmp_path / "disk.img", size_bytes=4096, overlays=tmp_path)
    (tmp_path / "disk@a.cow").write_bytes(bytes(4096))
    _, storage = open_block(config)
    runner = BlockRunner(storage, lambda _: None)

    outcome = runner.perform(OpenOverlay("disk@a", 1, 0, 4096))
    again = runner.perform(OpenOverlay("disk@a", 1, 0, 4096))
    runner.close()

    assert isinstance(outcome, OverlayOpened)
    assert outcome.problem == f"{tmp_path}/disk@a.cow: is no overlay; move it away"
    assert outcome == again
    assert caplog.text.count(f"overlay disk@a: {outcome.problem}") == 1


def test_write_that_has_to_wait_is_done_by_a_thread() -> None:
    """The loop goes on meanwhile: an overlay has to be filled from a base that is not in the cache."""
    loop = _Loop()
    base = MemoryStorage(4096, b"b" * 4096)
    base.cold = {0}
    overlay = Overlay(MemoryStorage(Layout(4096).file_bytes), base, 0, 4096, bytes(16))
    runner = BlockRunner(overlay, loop.events.append, loop.post)

    outcome = runner.perform(_access(Operation(1, Opcode.WRITE, 512, 512, b"w" * 512)))
    loop.run_one()
    content = bytes(overlay.read_at(0, 1536))
    runner.close()

    assert (outcome, loop.events) == (None, [StorageDone([Outcome(1)])])
    assert content == b"b" * 512 + b"w" * 512 + b"b" * 512


@pytest.mark.parametrize(("made_for", "opened"), [(None, 8192), (4096, 4096), (8192, 8192)])
def test_opened_image_that_is_longer_than_configured_is_a_larger_disk(
    tmp_path: Path, made_for: int | None, opened: int
) -> None:
    """Unless overlays lie over it that were made before it grew."""
    (tmp_path / "d.img").write_bytes(bytes(8192))
    if made_for is not None:
        base = FileStorage(tmp_path / "d.img", read_only=True)
        OverlayFolder(tmp_path / "d.img.overlays").open("all@g", Base(base, 0, made_for, "d.img")).close()
        base.close()

    core, storage = open_block(
        BlockConfig(image=tmp_path / "d.img", size_bytes=4096, extents=(Extent("all", 0, 4096),))
    )
    core.handle(QueuePairOpened(1, "hv", resumed=False), 0)
    (identified,) = core.handle(CommandsSubmitted(1, [Command(bytes(16), Opcode.IDENTIFY, 0, 0, 3)], [b"all"]), 0)
    storage.close()

    assert isinstance(identified, CompleteCommands)
    assert UnitIdentity.unpack(bytes(identified.payload[0])).size_bytes == opened
