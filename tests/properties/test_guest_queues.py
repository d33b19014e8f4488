"""Armed queues under any interleaving of what a driver, a hypervisor and two threads may do."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.core import SafePointReached, TrapRaised
from iovirt_dist.wire.messages import Interrupt, Power, PowerAction, TrapKind
from iovirt_dist.wire.queue_messages import Completions, DisarmQueue, Doorbell
from tests.unit.guest.core_bench import Bench, connected
from tests.unit.guest.queue_bench import NOTIFY, PACKED, SPLIT, DriverBench, QueueCompletion, pack_completions, unpack

SLOTS = 32
SIZE = 128
MEMORY_BYTES = 512 << 10

OFTEN = ("offer", "ring", "complete")
ALL = (*OFTEN, *OFTEN, *OFTEN, "rest", "stale", "unknown", "garbage", "line", "disarm", "reset")
STEPS = st.lists(st.tuples(st.sampled_from(ALL), st.integers(0, 255), st.booleans()), min_size=60, max_size=120)


class World:
    """A driver, the core between, and a hypervisor that completes what it gets.

    Args:
        features: Of the ring.

    Attributes:
        waiting: Requests that the hypervisor has: number in the ring, slot.
        completed: What it has completed in this life of the queue, in order: number, bytes.
        stores: Doorbells rung.
    """

    def __init__(self, features: int) -> None:
        self.features = features
        self.generation = 7
        self.guest = DriverBench(features, SIZE, memory_bytes=MEMORY_BYTES)
        self.bench: Bench = connected(self.guest.memory)
        self.stores = self.notifications = 0
        self.lines = 0
        self._begin(safe=True)

    def _begin(self, *, safe: bool) -> None:
        """Arm the queue; its driver has laid out an empty ring."""
        self.free = list(range(SLOTS))
        self.slot_of: dict[int, int] = {}
        self.waiting: list[tuple[int, int]] = []
        self.completed: list[tuple[int, int]] = []
        self.expected: dict[int, bytes] = {}
        self.bench.messages.clear()
        self.bench.say(self.guest.arm, safe=safe)

    def offer(self, number: int, safe: bool) -> None:
        """The driver offers up to four requests."""
        for _ in range(min(number % 5, len(self.free))):
            slot = self.free.pop(0)
            self.slot_of[self.guest.add_read(slot, 64)] = slot

    def ring(self, number: int, safe: bool) -> None:
        """The driver notifies."""
        self.stores += 1
        self.bench.do(TrapRaised(TrapKind.MMIO_STORE, NOTIFY, 4, 1, 1, b"", IoPrivilege(0)))
        self.hear()

    def complete(self, number: int, safe: bool) -> None:
        """The hypervisor completes some of what it has, in any order."""
        chosen = [self.waiting.pop(number % len(self.waiting)) for _ in range(min(number % 4, len(self.waiting)))]
        if not chosen:
            return
        before = bytes(self.guest.memory.data)
        entries, data = [], []
        for head, slot in chosen:
            length = (number * 7 + slot) % 65
            self.expected[slot] = bytes([slot + 1]) * length
            entries.append(QueueCompletion(head, length, slot & 1))
            data.append(self.expected[slot])
            self.completed.append((head, length + (length == 64)))
        joined = b"".join(data)
        self.say(Completions(2, 1, self.generation, True, pack_completions(entries)), joined, safe=safe)
        assert safe or bytes(self.guest.memory.data) == before

    def rest(self, number: int, safe: bool) -> None:
        """The vCPU thread comes to a safe point."""
        self.bench.do(SafePointReached())
        self.hear()

    def stale(self, number: int, safe: bool) -> None:
        """A completion of an earlier life."""
        packed = pack_completions([QueueCompletion(head, 1, 1) for head, _ in self.waiting[:3]] or [QueueCompletion(0)])
        self.say(Completions(2, 1, self.generation - 1, True, packed), b"x" * min(3, len(self.waiting)), safe=safe)

    def unknown(self, number: int, safe: bool) -> None:
        """A completion of what is not in flight."""
        packed = pack_completions([QueueCompletion(SIZE + number, 2, 1)])
        self.say(Completions(2, 1, self.generation, True, packed), b"xx", safe=safe)

    def garbage(self, number: int, safe: bool) -> None:
        """A batch that is none."""
        self.say(Completions(2, 1, self.generation, True, bytes([255]) * (number + 1)), b"", safe=safe)

    def line(self, number: int, safe: bool) -> None:
        """An interrupt line changes."""
        self.lines += 1
        self.say(Interrupt(0, self.lines), b"", safe=safe)

    def disarm(self, number: int, safe: bool) -> None:
        """The driver resets the queue and enables it again."""
        self.say(DisarmQueue(2, 1, self.generation), b"", safe=safe)
        self._anew(safe=safe)

    def reset(self, number: int, safe: bool) -> None:
        """The machine is reset, and its driver starts over."""
        self.say(Power(PowerAction.RESET, "port 92h"), b"", safe=safe)
        self.lines = 0
        self._anew(safe=safe)

    def _anew(self, *, safe: bool) -> None:
        self.bench.do(SafePointReached())  # the driver reads a register before it uses the ring again
        self.generation += 1
        fresh = DriverBench(self.features, SIZE, generation=self.generation, memory_bytes=4096 * 8)
        fresh.memory = self.guest.memory
        fresh.driver = type(fresh.driver)(self.guest.memory, fresh.setup)  # type: ignore[call-arg]  # both layouts' drivers take these
        self.guest = fresh
        self._begin(safe=safe)

    def say(self, body: object, data: bytes, *, safe: bool) -> None:
        """The hypervisor sends a message, and hears what comes of it."""
        self.bench.say(body, *([data] if data else []), safe=safe)  # type: ignore[arg-type]  # any message
        self.hear()

    def hear(self) -> None:
        """The hypervisor takes the doorbells."""
        for body, payload in self.bench.messages:
            assert isinstance(body, Doorbell)
            assert body.generation == self.generation
            rung = unpack(body, payload)
            self.notifications += rung.notifications
            for request in rung.requests:
                slot = self.slot_of[request.head]
                assert request.header == bytes([slot]) * 16
                self.waiting.append((request.head, slot))
        self.bench.messages.clear()

    def finish(self) -> None:
        """Complete everything, and compare."""
        self.rest(0, safe=True)
        self.ring(0, safe=True)
        while self.waiting:
            self.complete(3, safe=True)
        assert self.guest.driver.take_used() == self.completed
        assert sorted(self.expected) == sorted(self.slot_of.values())
        for slot, data in self.expected.items():
            assert self.guest.data(slot, len(data)) == data
            assert self.guest.status(slot) == slot & 1
        assert self.bench.core.queues.in_flight == 0
        assert self.notifications == self.stores == self.bench.core.counts.traps[TrapKind.DOORBELL]
        assert self.bench.core.lines == self.lines & 1


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.sampled_from([SPLIT, PACKED]))
def test_every_request_is_completed_once_with_its_data_whatever_happens_between(
    steps: list[tuple[str, int, bool]], features: int
) -> None:
    """In the order of the completions; memory changes at safe points only; each doorbell is counted on both sides."""
    world = World(features)

    for step, number, safe in steps:
        getattr(world, step)(number, safe)

    world.finish()
