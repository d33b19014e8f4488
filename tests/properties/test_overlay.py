"""An overlay against a plain disk: whatever is written, discarded and synced, and wherever a crash strikes.

Of each sector the model knows the contents that it ever had since the last one that must survive. After the end of the
process the last one counts, after a power cut any of them, and never anything else.
"""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from iovirt_dist.controllers.block.overlay import Overlay
from iovirt_dist.controllers.block.overlay_format import Layout
from iovirt_dist.testing.storage import SECTOR_BYTES, MemoryStorage

SECTORS = 4 * 8 + 3
SIZE_BYTES = SECTORS * SECTOR_BYTES
BASE_OFFSET = 3 * SECTOR_BYTES
BASE = random.Random(1).randbytes(SIZE_BYTES)
ZERO = bytes(SECTOR_BYTES)
CRASH_STATES = 6

PLACES = st.one_of(
    st.tuples(st.integers(0, SECTORS - 1), st.sampled_from([1, 2, 3, 7, 9, SECTORS])),
    st.sampled_from([(0, 8), (8, 8), (8, 16), (16, 8), (24, 8), (24, 11), (32, 3), (0, SECTORS)]),
)
"""First sector and how many, as far as the disk goes; half of them whole clusters."""
CALLS = st.sampled_from([0, 1, 1, 1, 2, 2, 3, 4, 5])


class _File(MemoryStorage):
    """The file of an overlay; something else may happen while it syncs."""

    def __init__(self, content: bytes | None = None) -> None:
        super().__init__(Layout(SIZE_BYTES).file_bytes, content)
        self.meanwhile: Callable[[], None] | None = None

    def sync(self) -> None:
        """Sync what was there before something else happened."""
        mark = self.begin_sync()
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        self.end_sync(mark)


class OverlayMachine(RuleBasedStateMachine):
    """One overlay over one base, through many lives."""

    def __init__(self) -> None:
        super().__init__()
        content = bytes(BASE_OFFSET) + BASE
        self.base = MemoryStorage(len(content), content)
        self.file = _File()
        self.boot = 1
        self.stamp = 0
        self.failed = False
        """A sync of this life has failed."""
        self.tainted = False
        """One has failed since the last power cut: nothing new is promised."""
        self.history = [[BASE[at * SECTOR_BYTES :][:SECTOR_BYTES]] for at in range(SECTORS)]
        self.promised = [0] * SECTORS
        self.overlay = self.open()

    def open(self) -> Overlay:
        """Begin a life of the process."""
        life = self.boot.to_bytes(16, "little")
        return Overlay(self.file, self.base, BASE_OFFSET, SIZE_BYTES, life)

    # --- what a guest does

    def change(self, place: tuple[int, int], discard: bool, cached: bool) -> None:
        """Write sectors of new content, or discard them."""
        sector, sectors = place[0], min(place[1], SECTORS - place[0])
        self.stamp += 1
        new = ZERO if discard else self.stamp.to_bytes(4, "big") * (SECTOR_BYTES // 4)
        error: OSError | None = None
        try:
            if discard:
                self.overlay.discard(sector * SECTOR_BYTES, sectors * SECTOR_BYTES)
            elif not (cached and self.overlay.write_cached(sector * SECTOR_BYTES, new * sectors)):
                self.overlay.write_at(sector * SECTOR_BYTES, new * sectors)
        except OSError as raised:
            error = raised
        for at in range(sector, sector + sectors):
            self.history[at].append(new)
        if error is not None:
            raise error

    @rule(place=PLACES, discard=st.sampled_from([False, False, True]), cached=st.booleans())
    def changes(self, place: tuple[int, int], discard: bool, cached: bool) -> None:
        """Nothing goes wrong."""
        self.change(place, discard, cached)

    @rule(place=PLACES, nth=st.integers(1, 2), done=st.sampled_from([0, 512, 4096, 5120]))
    def changes_on_a_full_file_system(self, place: tuple[int, int], nth: int, done: int) -> None:
        """One request has an error; its sectors are as before or new, nothing else has changed."""
        self.file.fail("write", nth, errno.ENOSPC, done)
        with contextlib.suppress(OSError):
            self.change(place, discard=False, cached=False)
        self.file.fail("write", 1 << 30)
        self.settle(place)

    @rule(cold=st.sets(st.integers(0, SECTORS + 2), max_size=8))
    def base_leaves_the_cache(self, cold: set[int]) -> None:
        """Part of the base must be waited for."""
        self.base.cold = cold

    @precondition(lambda self: not self.failed)
    @rule(place=PLACES, busy=st.booleans())
    def sync(self, place: tuple[int, int], busy: bool) -> None:
        """What was written before is stable; what is written meanwhile need not be."""
        ends = [len(versions) - 1 for versions in self.history]
        if busy:
            self.file.meanwhile = lambda: self.change(place, discard=False, cached=True)
        self.overlay.sync()
        self.file.meanwhile = None
        self.promise(ends)

    @precondition(lambda self: not self.failed)
    @rule(nth=st.integers(1, 2))
    def sync_fails(self, nth: int) -> None:
        """From now on nothing new is promised."""
        self.file.fail("sync", nth)
        with contextlib.suppress(OSError):
            self.overlay.sync()
            nth = 0
        self.file.fail("sync", 1 << 30)
        if nth:
            self.failed = self.tainted = True
        self.promise([len(versions) - 1 for versions in self.history])

    # --- crashes

    @precondition(lambda self: not self.tainted)
    @rule(calls=CALLS, place=PLACES, discard=st.booleans(), syncing=st.booleans())
    def killed(self, calls: int, place: tuple[int, int], discard: bool, syncing: bool) -> None:
        """The process ends after some calls of a request or a sync; the next one finds what the last one wrote."""
        self.file.cut(calls)
        with contextlib.suppress(OSError):
            self.overlay.sync() if syncing else self.change(place, discard, cached=False)
        self.file.restart()
        self.overlay = self.open()
        self.settle(place)

    @precondition(lambda self: self.failed)
    @rule(syncs=st.booleans())
    def restarted_after_a_failed_sync(self, syncs: bool) -> None:
        """What was never promised may be gone, and a sync makes nothing of it."""
        self.overlay = self.open()
        if syncs:
            self.overlay.sync()
        self.failed = False
        found = self.read()
        assert [at for at in range(SECTORS) if found[at] not in self.history[at][self.promised[at] :]] == []
        for versions, content in zip(self.history, found, strict=True):
            versions.append(content)

    @rule(calls=CALLS, place=PLACES, discard=st.booleans(), syncing=st.booleans(), busy=st.booleans(), opening=CALLS)
    def power_cut(
        self, calls: int, place: tuple[int, int], discard: bool, syncing: bool, busy: bool, opening: int
    ) -> None:
        """Whatever the medium may hold, each sector has a content that it had since the last sync."""
        self.file.cut(calls)
        self.file.meanwhile = (lambda: self.change(place, discard, cached=False)) if busy else None
        with contextlib.suppress(OSError):
            self.overlay.sync() if syncing else self.change(place, discard, cached=False)
        media = list(self.file.crash_states(CRASH_STATES, self.stamp))
        self.boot += 1
        for medium in media:
            self.file = _File(medium)
            self.file.cut(opening)
            with contextlib.suppress(OSError):  # the first process of this boot ends while it opens the overlay
                self.open()
            self.file.restart()
            self.overlay = self.open()
            found = self.read()
            assert [at for at in range(SECTORS) if found[at] not in self.history[at][self.promised[at] :]] == []
        self.history, self.promised = [[content] for content in found], [0] * SECTORS
        self.failed = self.tainted = False

    @precondition(lambda self: not self.tainted)
    @rule()
    def stopped(self) -> None:
        """An orderly end makes everything stable."""
        self.overlay.close()
        self.file = _File(self.file.stable)
        self.overlay = self.open()
        self.promised = [len(versions) - 1 for versions in self.history]

    # --- histories that hypothesis finds too seldom

    @precondition(lambda self: not self.failed)
    @rule(place=PLACES, after=PLACES, last=PLACES, calls=st.sampled_from([0, 3, 4, 4, 5]), opening=CALLS)
    def sync_and_power_cut(
        self, place: tuple[int, int], after: tuple[int, int], last: tuple[int, int], calls: int, opening: int
    ) -> None:
        """What the sync covered is there, and nothing of what was written while the next one ran leads to garbage."""
        self.change(place, discard=False, cached=False)
        self.sync(after, busy=True)
        self.power_cut(calls, last, discard=False, syncing=True, busy=True, opening=opening)

    @precondition(lambda self: not self.tainted)
    @rule(place=PLACES, calls=CALLS, opening=CALLS)
    def kill_sync_and_power_cut(self, place: tuple[int, int], calls: int, opening: int) -> None:
        """What a process that was killed had written is made stable by the next one."""
        self.change(place, discard=False, cached=False)
        self.killed(calls, place, discard=False, syncing=False)
        self.sync(place, busy=False)
        self.power_cut(calls, place, discard=True, syncing=False, busy=False, opening=opening)

    @precondition(lambda self: not self.failed)
    @rule(place=PLACES, nth=st.integers(1, 2), opening=CALLS)
    def fail_sync_and_power_cut(self, place: tuple[int, int], nth: int, opening: int) -> None:
        """A process after one whose sync failed makes nothing stable that leads to garbage."""
        self.change(place, discard=False, cached=False)
        self.sync_fails(nth)
        self.restarted_after_a_failed_sync(syncs=True)
        self.power_cut(0, place, discard=True, syncing=False, busy=False, opening=opening)

    # --- the model

    def read(self) -> list[bytes]:
        """Return the sectors, read at once."""
        content = bytes(self.overlay.read_at(0, SIZE_BYTES))
        return [content[at * SECTOR_BYTES :][:SECTOR_BYTES] for at in range(SECTORS)]

    def promise(self, ends: list[int]) -> None:
        """From now on no content before these may come back."""
        if not self.tainted:
            self.promised = ends

    def settle(self, place: tuple[int, int]) -> None:
        """Note what became of the sectors of a request that may have failed: as before, or new."""
        found = self.read()
        for at in range(place[0], min(place[0] + place[1], SECTORS)):
            assert found[at] in self.history[at][-2:]
            self.history[at].append(found[at])

    @invariant()
    def reads_see_the_last_content(self) -> None:
        """All at once."""
        assert self.read() == [versions[-1] for versions in self.history]

    @rule(place=PLACES)
    def reads_from_the_cache(self, place: tuple[int, int]) -> None:
        """What can be had without waiting is right, and only a cold base makes it wait."""
        sector, sectors = place[0], min(place[1], SECTORS - place[0])
        buffer = bytearray(sectors * SECTOR_BYTES)
        filled = self.overlay.read_cached(sector * SECTOR_BYTES, memoryview(buffer))

        expected = b"".join(versions[-1] for versions in self.history[sector : sector + sectors])
        assert (buffer == expected and filled) or (not filled and self.base.cold)

    @invariant()
    def base_is_never_written(self) -> None:
        """Nor synced."""
        assert self.base.log == []


TestOverlay = OverlayMachine.TestCase
TestOverlay.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
