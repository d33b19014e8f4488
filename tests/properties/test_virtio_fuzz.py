"""Hostile rings: valid ones, damaged where it hurts.

Whatever the guest writes, the device's side either takes requests that are sound or raises one `RingError` with a known
reason; it reaches nothing outside RAM and writes nothing outside the areas of the ring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.ring import (
    ALWAYS,
    CHAIN_BYTES_MAX,
    NEVER,
    Chain,
    DeviceRing,
    RingError,
    RingSetup,
    device_ring,
    driver_ring,
    ring_setup,
)
from tests.properties.amount import PER_EXAMPLE, examples

EXAMPLES = examples(5000)

BASE = 0x8000_0000
TABLES = BASE + 0x800
BUFFERS = BASE + 0x1000
MEMORY_BYTES = 0x2000
END = BASE + MEMORY_BYTES

# Too much for one request (``chain-bytes``) takes more memory than this: a unit test has it.
COMMON = {
    "index-jump",
    "head-in-flight",
    "chain-long",
    "chain-order",
    "buffer-memory",
    "indirect-feature",
    "indirect-next",
    "indirect-length",
    "indirect-memory",
    "ring-size",
    "ring-alignment",
    "ring-memory",
}
SPLIT_REASONS = COMMON | {"head-range", "chain-range", "indirect-nested"}
PACKED_REASONS = COMMON - {"index-jump"} | {"chain-partial"}

ADDRESSES = (0, BASE - 1, BASE, BASE + 8, TABLES, BUFFERS, END - 1, END, 1 << 32, (1 << 63) - 1, (1 << 64) - 1)
LENGTHS = (0, 1, 15, 16, 32, 48, 256, MEMORY_BYTES, 0x7FFF_FFFF, 0xFFFF_FFF0, 0xFFFF_FFFF)


class _GuardedMemory(ByteMemory):
    """Memory of which a device may write some areas only."""

    allowed: tuple[tuple[int, int], ...] = ()

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write, if the whole range lies in one area."""
        assert any(start <= address and address + len(data) <= end for start, end in self.allowed)
        super().write(address, data)


class _Fuzzer:
    """One damaged ring after another.

    Attributes:
        reasons: How often each `RingError` came.
        taken: Requests that were taken in spite of everything.
    """

    def __init__(self, packed: bool, seed: int) -> None:
        self.random = Random(seed)
        self.packed = packed
        self.memory = _GuardedMemory(MEMORY_BYTES, BASE)
        self.reasons: Counter[str] = Counter()
        self.taken = 0

    def run(self, inputs: int) -> None:
        """Make so many rings, damage each, and let the device work on it."""
        for _ in range(inputs):
            setup = self._valid_ring()
            damages: list[Callable[[RingSetup], None]] = [self._descriptor, self._table, self._index, self._bytes]
            for damage in self.random.choices(damages, (8, 3, 2, 1), k=self.random.randint(1, 4)):
                damage(setup)
            try:
                self._work(device_ring(self.memory, self._guard(self._damaged_setup(setup))))
            except RingError as error:
                self.reasons[error.reason] += 1

    def _valid_ring(self) -> RingSetup:
        """Return a ring with some requests in it, some of them with tables; tables are used without leave, too."""
        random = self.random
        features = mask(Feature.VERSION_1)
        features |= mask(Feature.RING_PACKED) if self.packed else 0
        features |= mask(Feature.RING_EVENT_IDX) if random.random() < 0.5 else 0
        features |= mask(Feature.RING_INDIRECT_DESC) if random.random() < 0.9 else 0
        size = random.choice((1, 3, 5, 8, 16) if self.packed else (1, 2, 8, 16))
        setup = ring_setup(BASE, size, features)
        driver = driver_ring(self.memory, setup)
        for number in range(random.randint(1, 4)):
            segments = [(BUFFERS + number * 256 + at * 64, random.choice((16, 64))) for at in range(4)]
            half = random.randint(0, 2)
            table = TABLES + number * 64 if random.random() < 0.3 else None
            if driver.free >= 4 or (driver.free and table and size >= 4):
                driver.add(segments[:half], segments[half : 4 if size >= 4 else 1], table)
            elif driver.free:
                driver.add(segments[:1], [])
        return setup

    def _guard(self, setup: RingSetup) -> RingSetup:
        """Let the device write the device area, and the descriptors of a packed ring."""
        self.memory.allowed = (
            (setup.device_area, setup.device_area + (4 if self.packed else 6 + 8 * setup.size)),
            (setup.descriptors, setup.descriptors + (16 * setup.size if self.packed else 0)),
        )
        return setup

    def _damaged_setup(self, setup: RingSetup) -> RingSetup:
        """Return the setup, now and then with something in it that cannot be."""
        random = self.random
        if random.random() > 0.03:
            return setup
        field = random.choice(("size", "descriptors", "driver_area", "device_area"))
        if field == "size":
            return setup._replace(size=random.choice((0, 6, 7, 32769, 65536, 4096)))
        return setup._replace(**{field: random.choice(ADDRESSES)})

    def _descriptor(self, setup: RingSetup) -> None:
        """Damage a field of a descriptor of the ring."""
        self._field(setup.descriptors + self.random.randrange(setup.size) * 16)

    def _table(self, _: RingSetup) -> None:
        """Damage a field of a descriptor of a table."""
        self._field(TABLES + self.random.randrange(16) * 16)

    def _field(self, at: int) -> None:
        """Damage a field of a descriptor: address, length, or one of the last two, which hold flags and next or id."""
        random, data, at = self.random, self.memory.data, at - BASE
        which = random.randrange(4)
        if which == 0:
            data[at : at + 8] = random.choice(ADDRESSES).to_bytes(8, "little")
        elif which == 1:
            data[at + 8 : at + 12] = random.choice(LENGTHS).to_bytes(4, "little")
        elif random.random() < 0.5:
            data[at + 8 + 2 * which] ^= random.choice((1, 2, 4, 5, 3, 6, 128))
        else:
            data[at + 8 + 2 * which] = random.randrange(20)
            data[at + 9 + 2 * which] ^= random.choice((0, 0, 0, 1, 128))

    def _index(self, setup: RingSetup) -> None:
        """Damage the driver area: flags, index, heads or events."""
        at = setup.driver_area - BASE + self.random.randrange(4 if self.packed else 6 + 2 * setup.size)
        self.memory.data[at] = self.random.choice((0, 1, 2, 3, 4, 17, 255))

    def _bytes(self, setup: RingSetup) -> None:
        """Overwrite a stretch of anything with noise."""
        at = self.random.randrange(MEMORY_BYTES - 16)
        self.memory.data[at : at + 16] = self.random.randbytes(16)

    def _work(self, device: DeviceRing) -> None:
        """Take, use and publish until nothing comes; check all that comes."""
        in_flight: dict[int, Chain] = {}
        for _ in range(4):
            try:
                chains = device.take(self.random.randint(1, 20))
            except RingError as error:
                with pytest.raises(RingError, match=error.reason):
                    device.take(1)
                raise
            for chain in chains:
                assert chain.head not in in_flight
                _check(chain)
                in_flight[chain.head] = chain
            self.taken += len(chains)
            for head in list(in_flight)[:: self.random.choice((1, 2))]:
                device.put(head, in_flight.pop(head).writable_bytes)
            completed = device.completed
            device.publish()
            assert completed <= device.completed
            assert device.interrupt_at() in (NEVER, ALWAYS) or device.interrupt_at() > device.completed


def _check(chain: Chain) -> None:
    """Check that a request lies in RAM and counts right."""
    for address, length in chain.readable + chain.writable:
        assert length > 0
        assert address >= BASE
        assert address + length <= END
    assert chain.readable_bytes == sum(length for _, length in chain.readable)
    assert chain.writable_bytes == sum(length for _, length in chain.writable)
    assert chain.readable_bytes + chain.writable_bytes <= CHAIN_BYTES_MAX


@pytest.mark.parametrize("packed", [False, True], ids=["split", "packed"])
@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 1 << 64))
def test_device_ring_hostile_input_is_one_error(packed: bool, seed: int) -> None:
    """No exception but `RingError`, nothing outside RAM, no write outside the ring."""
    _Fuzzer(packed, seed).run(PER_EXAMPLE)


@pytest.mark.parametrize(
    ("packed", "reasons"), [(False, SPLIT_REASONS), (True, PACKED_REASONS)], ids=["split", "packed"]
)
def test_fuzzer_reaches_every_reason(packed: bool, reasons: set[str]) -> None:
    """The damage is worth something: each check fires, and plenty of requests pass."""
    fuzzer = _Fuzzer(packed, 20)
    fuzzer.run(4000)
    assert set(fuzzer.reasons) == reasons
    assert fuzzer.taken > 2000
