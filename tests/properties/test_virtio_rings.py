"""Driver and device over the same memory, in any interleaving.

No request is lost, doubled or reordered; whoever waits for an interrupt or a notification that is needed gets it; and
what the device says about interrupts beforehand (`interrupt_at`) is what it decides afterwards (`publish`).
"""

from __future__ import annotations

from collections import deque
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.ring import (
    ALWAYS,
    NEVER,
    Chain,
    RingFullError,
    device_ring,
    driver_ring,
    ring_setup,
)

BASE = 0x8000_0000
TABLES = BASE + 0x4000
BUFFERS = BASE + 0x8000
MEMORY_BYTES = 0x10_0000

PLAIN = mask(Feature.VERSION_1)
EVENTS = mask(Feature.VERSION_1, Feature.RING_EVENT_IDX)
PACKED = mask(Feature.VERSION_1, Feature.RING_PACKED)
PACKED_EVENTS = mask(Feature.VERSION_1, Feature.RING_PACKED, Feature.RING_EVENT_IDX)
RINGS = [
    pytest.param(PLAIN, 8, id="split"),
    pytest.param(EVENTS, 8, id="split-events"),
    pytest.param(EVENTS, 1, id="split-events-single"),
    pytest.param(PACKED, 8, id="packed"),
    pytest.param(PACKED_EVENTS, 8, id="packed-events"),
    pytest.param(PACKED_EVENTS, 7, id="packed-events-odd"),
    pytest.param(PACKED_EVENTS, 1, id="packed-events-single"),
]


class _Story:
    """Both sides of a ring, and what each knows.

    Attributes:
        added: Requests that the device has not taken, in order: head, readable, writable.
        in_flight: Heads that the device has taken and not used, in order.
        put: What it used and did not publish: head and length.
        visible: What it published and the driver has not taken.
        notified: The device was notified, or must look again by itself, and has not emptied the ring since.
        wanted: Number of the completion for which the driver waits for an interrupt: NEVER, ALWAYS, or at least 1.
        latest: With which it comes at the latest if a packed ring is given shorter requests meanwhile.
        interrupted: Whether it got it.
        announced: What the device said last about the next interrupt: with the last take, as a doorbell does, or once
            the driver wanted something else.
        in_order: Whether no request was used before an older one since that.
    """

    def __init__(self, features: int, size: int) -> None:
        features |= mask(Feature.RING_INDIRECT_DESC)
        self.memory = ByteMemory(MEMORY_BYTES, BASE)
        setup = ring_setup(BASE, size, features)
        self.size = size
        self.events = setup.event_idx
        self.packed = setup.packed
        self.driver = driver_ring(self.memory, setup)
        self.device = device_ring(self.memory, setup)
        self.added: deque[tuple[int, list[tuple[int, int]], list[tuple[int, int]]]] = deque()
        self.in_flight: list[int] = []
        self.put: list[tuple[int, int]] = []
        self.visible: list[tuple[int, int]] = []
        self.serial = 0
        self.published = 0
        self.taken = 0
        self.notified = False
        self.wanted = 1 if self.events and not self.packed else ALWAYS
        self.latest = 0
        self.announced = self.wanted
        self.interrupted = False
        self.in_order = True

    def add(self, shape: int) -> None:
        """Make a request available: 0 to 3 segments of each kind, with a table if bit 4 says so."""
        segments = [(BUFFERS + (self.serial * 8 + at) * 16 % 0x8_0000, at + 1) for at in range(7)]
        readable, writable = segments[: shape & 3], segments[3 : 3 + (shape >> 2 & 3)]
        if not readable and not writable:
            writable = segments[6:]
        table = TABLES + self.serial % 128 * 128 if shape & 16 else None
        free = self.driver.free
        try:
            head = self.driver.add(readable, writable, table)
        except RingFullError:
            assert free < len(readable) + len(writable)
            assert not free or not table or len(readable) + len(writable) > self.size
            return
        assert head not in [entry[0] for entry in self.added] + self.in_flight
        self.serial += 1
        if self.packed and self.wanted > 0:
            self.wanted = self.latest
        self.added.append((head, readable, writable))

    def notify(self, _: int) -> None:
        """Ask whether to notify: only if the device has not emptied the ring since it was notified may it say no."""
        self.notified |= self.driver.notify_needed()
        assert self.notified or not self.added

    def take(self, most: int) -> None:
        """Take requests; having got as many as it asked for, the device looks again by itself."""
        most = most % 4 + 1
        chains = self.device.take(most)
        expected = [self.added.popleft() for _ in range(min(most, len(self.added)))]
        assert chains == [
            Chain(head, readable, writable, sum(n for _, n in readable), sum(n for _, n in writable))
            for head, readable, writable in expected
        ]
        self.in_flight += [chain.head for chain in chains]
        self.notified = len(chains) == most
        self.announce()

    def use(self, which: int) -> None:
        """Use one of the requests in flight; mostly the oldest."""
        if self.in_flight:
            at = (which >> 2) % len(self.in_flight) if which & 3 == 3 else 0
            self.in_order &= not at
            head = self.in_flight.pop(at)
            self.device.put(head, which + 1)
            self.put.append((head, which + 1))

    def publish(self, _: int) -> None:
        """Make them visible; the interrupt comes if it was wanted for one of them."""
        due = self.device.publish()
        old, self.published = self.published, self.published + len(self.put)
        self.visible += self.put
        self.put = []
        assert self.device.completed == self.published
        needed = self.wanted == ALWAYS or old < self.wanted <= self.published
        changed = self.published > old
        self.interrupted |= due
        assert self.interrupted or not (needed and changed)
        if not self.packed:
            assert due == (needed and changed)
        if not self.packed or self.in_order:
            assert due == (changed and (self.announced == ALWAYS or old < self.announced <= self.published))

    def take_used(self, _: int) -> None:
        """Take what is visible, in order."""
        assert self.driver.take_used() == self.visible
        self.taken += len(self.visible)
        self.visible = []

    def enable(self, requests: int) -> None:
        """Wait for the next completion, or for several."""
        requests = requests % 5 + 1
        here = self.driver.enable_interrupts() if requests == 1 else self.driver.interrupt_after(requests)
        assert here or len(self.visible) < requests
        assert not here or self.visible
        self.interrupted = False
        outstanding = len(self.added) + len(self.in_flight) + len(self.put) + len(self.visible)
        every = not self.events or (self.packed and (requests == 1 or requests > outstanding))
        self.wanted = ALWAYS if every else NEVER if here else self.taken + requests
        self.latest = self.taken + self.size - self.driver.free
        self.announce()

    def disable(self, _: int) -> None:
        """Want no interrupts."""
        self.driver.disable_interrupts()
        self.wanted = NEVER
        self.announce()

    def announce(self) -> None:
        """Have the device say when it will interrupt."""
        self.announced = self.device.interrupt_at()
        self.in_order = True

    def finish(self) -> None:
        """Let both sides work until nothing is left: all that was added comes back."""
        while self.added or self.in_flight or self.put or self.visible:
            self.take(3)
            self.use(0)
            self.publish(0)
            self.take_used(0)
        assert self.taken == self.serial


STEPS_EACH = 300
"""Steps of an example. They come from a seed: drawing each one would cost more than running it."""
STEPS = (
    _Story.add,
    _Story.add,
    _Story.notify,
    _Story.take,
    _Story.use,
    _Story.use,
    _Story.publish,
    _Story.take_used,
    _Story.enable,
    _Story.disable,
)


@pytest.mark.parametrize(("features", "size"), RINGS)
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 64))
def test_ring_any_interleaving_keeps_every_request_and_event(features: int, size: int, seed: int) -> None:
    """Requests come back once, in order of use, and nobody waits in vain."""
    story = _Story(features, size)
    random = Random(seed)
    for _ in range(STEPS_EACH):
        random.choice(STEPS)(story, random.randrange(32))
    story.finish()


@pytest.mark.parametrize(
    ("features", "size", "rounds"),
    [(EVENTS, 8, 9000), (PLAIN, 8, 9000), (PACKED_EVENTS, 7, 500), (PACKED, 8, 500), (PACKED_EVENTS, 1, 500)],
)
def test_ring_indices_wrap_loses_nothing(features: int, size: int, rounds: int) -> None:
    """16-bit indices run over, wrap counters flip hundreds of times, and interrupts stay exact."""
    story = _Story(features, size)
    for _ in range(rounds):
        for _ in range(size):
            story.add(1)
        story.notify(0)
        story.enable(0)
        story.take(3)
        story.take(3)
        for _ in range(size):
            story.use(0)
        story.publish(0)
        story.take_used(0)
    story.finish()
    assert story.published == size * rounds
