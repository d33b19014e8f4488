"""Armed queues in the guest's core: doorbells, completions, and what must wait for a safe point."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.core import (
    Action,
    CompleteTrap,
    Event,
    PowerOn,
    SafePointReached,
    SeekSafePoint,
    SetLines,
    SystemCallRaised,
    TrapRaised,
)
from iovirt_dist.guest.deferral import MAX_DEFERRED
from iovirt_dist.wire.messages import Interrupt, Power, PowerAction, PrefetchRead, Report, Trap, TrapKind, TrapReply
from iovirt_dist.wire.queue_messages import Completions, DisarmQueue, Doorbell, QueueBroken, QueueInterrupt
from tests.unit.guest.core_bench import MS, SECOND, Bench, connected, raised
from tests.unit.guest.queue_bench import NOTIFY, RING, DriverBench, QueueCompletion, pack_completions, unpack


class Armed:
    """A core whose queue 1 of device 2 is armed; generation 7."""

    def __init__(self) -> None:
        self.guest = DriverBench()
        self.bench: Bench = connected(self.guest.memory)
        self.bench.say(self.guest.arm)

    def store(self, address: int = NOTIFY, value: int = 1, width: int = 4) -> list[Action]:
        """A store of the CPU."""
        return self.bench.do(TrapRaised(TrapKind.MMIO_STORE, address, width, 1, value, b"", IoPrivilege(0)))

    def complete(
        self,
        head: int,
        data: bytes,
        *,
        safe: bool = True,
        generation: int = 7,
        interrupt: bool = True,
        lines: tuple[int, ...] = (),
    ) -> list[Action]:
        """The hypervisor completes one request."""
        packed = pack_completions([QueueCompletion(head, len(data), 0)])
        return self.bench.say(Completions(2, 1, generation, interrupt, packed, lines), data, safe=safe)


def test_store_to_the_notify_register_of_an_armed_queue_is_a_doorbell() -> None:
    """No trap message; counted as its own kind, once."""
    armed = Armed()
    head = armed.guest.add_read(5)

    told = armed.store()

    assert told == []
    ((body, payload),) = armed.bench.messages
    assert [request.head for request in unpack(body, payload).requests] == [head]
    assert armed.bench.core.counts.traps == [0, 0, 0, 0, 0, 0, 1, 0]


def test_doorbell_has_the_number_of_its_trap() -> None:
    """So that a trace can tell which store led to which request; the guest counts doorbells among its traps."""
    armed = Armed()
    armed.store(address=NOTIFY + 4)
    armed.guest.add_read(0)

    armed.store()

    (trap, _), (doorbell, _) = armed.bench.messages
    assert isinstance(trap, Trap)
    assert isinstance(doorbell, Doorbell)
    assert (trap.number, doorbell.number) == (1, 2)


def test_store_that_is_no_notification_is_a_trap() -> None:
    """Another register, another queue's number, another width; the ring is left alone."""
    armed = Armed()
    armed.guest.add_read(0)

    armed.store(address=NOTIFY + 4)
    armed.store(value=0)
    armed.store(width=2)

    assert [type(body) for body, _ in armed.bench.messages] == [Trap, Trap, Trap]
    assert [body.number for body in armed.bench.bodies(Trap) if isinstance(body, Trap)] == [1, 2, 3]


def test_requests_that_were_offered_before_the_queue_was_armed_are_gathered() -> None:
    """Their notification may have been on its way to the hypervisor while the queue was armed."""
    guest = DriverBench()
    head = guest.add_read(0)
    bench = connected(guest.memory)

    bench.say(guest.arm)

    ((body, payload),) = bench.messages
    assert [request.head for request in unpack(body, payload).requests] == [head]
    assert isinstance(body, Doorbell)
    assert body.notifications == 0
    assert sum(bench.core.counts.traps) == 0


def test_doorbell_tells_what_was_prefetched_first_and_voids_the_rest() -> None:
    """As any other trap."""
    armed = Armed()
    bench = armed.bench
    bench.do(raised(TrapKind.PORT_IN, 0x1F0))
    bench.say(TrapReply(1, 7), b"\x01\x02\x03")
    bench.do(raised(TrapKind.PORT_IN, 0x1F0))

    armed.store()
    bench.do(raised(TrapKind.PORT_IN, 0x1F0))

    assert [type(body) for body, _ in bench.messages] == [Trap, PrefetchRead, Doorbell, Trap]


def test_completion_is_in_memory_before_its_lines_are_set() -> None:
    """The guest takes the interrupt and finds the used ring."""
    armed = Armed()
    head = armed.guest.add_read(0)
    armed.store()

    told = armed.complete(head, b"data", lines=(0, 1))

    assert told == [SetLines(1)]
    assert armed.guest.data(0, 4) == b"data"
    assert armed.guest.driver.take_used() == [(head, 4)]


def test_completion_without_an_interrupt_that_is_due_asks_for_it() -> None:
    """The driver had changed its mind since its doorbell."""
    armed = Armed()
    head = armed.guest.add_read(0)
    armed.store()

    armed.complete(head, b"data", interrupt=False)

    assert armed.bench.messages[-1] == (QueueInterrupt(2, 1, 7), [])


def test_completion_that_comes_while_guest_code_runs_waits_for_a_safe_point() -> None:
    """The core asks for one, once; memory is written there and not before."""
    armed = Armed()
    heads = [armed.guest.add_read(number) for number in range(2)]
    armed.store()

    first = armed.complete(heads[0], b"one", safe=False, lines=(0, 1))
    second = armed.complete(heads[1], b"two", safe=False)
    before = armed.guest.data(0, 3), armed.bench.core.waits_for_safe_point
    told = armed.bench.do(SafePointReached())

    assert (first, second) == ([SeekSafePoint()], [])
    assert before == (bytes(3), True)
    assert told == [SetLines(1)]
    assert (armed.guest.data(0, 3), armed.guest.data(1, 3)) == (b"one", b"two")
    assert not armed.bench.core.waits_for_safe_point


def test_nothing_behind_a_waiting_completion_shows_itself_before_it() -> None:
    """Neither an interrupt line, nor a reset, nor a disarming."""
    armed = Armed()
    head = armed.guest.add_read(0)
    armed.store()
    armed.complete(head, b"one", safe=False)

    line = armed.bench.say(Interrupt(0, 1), safe=False)
    power = armed.bench.say(Power(PowerAction.RESET, "port 92h"), safe=False)
    lines_before = armed.bench.core.lines
    told = armed.bench.do(SafePointReached())

    assert (line, power, lines_before) == ([], [], 0)
    assert told == [SetLines(1), SetLines(0), PowerOn("reset by port 92h")]
    assert armed.guest.data(0, 3) == b"one"


def test_interrupt_alone_waits_for_nothing() -> None:
    """It needs no memory."""
    assert Armed().bench.say(Interrupt(0, 1), safe=False) == [SetLines(1)]


def test_trap_is_a_safe_point() -> None:
    """The CPU rests inside of it: its reply must not come before the data."""
    armed = Armed()
    head = armed.guest.add_read(0)
    armed.store()
    armed.complete(head, b"one", safe=False, lines=(0, 1))

    told = armed.bench.do(raised(TrapKind.MMIO_LOAD))

    assert told == [SetLines(1)]
    assert armed.guest.data(0, 3) == b"one"


@pytest.mark.parametrize("event", [raised(TrapKind.MMIO_LOAD), SystemCallRaised(1, 3, (), (), b"")])
def test_trap_behind_a_reset_that_waited_is_void(event: Event) -> None:
    """The CPU that raised it starts over, and the devices are new: they must not see it."""
    armed = Armed()
    head = armed.guest.add_read(0)
    armed.store()
    armed.complete(head, b"one", safe=False)
    armed.bench.say(Power(PowerAction.RESET, "port 92h"), safe=False)
    sent = len(armed.bench.messages)

    told = armed.bench.do(event)

    assert told == [SetLines(0), PowerOn("reset by port 92h")]
    assert len(armed.bench.messages) == sent
    assert sum(armed.bench.core.counts.traps) == 1


def test_message_at_a_safe_point_comes_after_what_waited() -> None:
    """The vCPU thread pumps and finds older messages waiting."""
    armed = Armed()
    heads = [armed.guest.add_read(number) for number in range(2)]
    armed.bench.do(raised(TrapKind.MMIO_LOAD))
    armed.store()
    armed.complete(heads[0], b"one", safe=False, lines=(0, 1))

    told = armed.bench.say(TrapReply(1, 7), safe=True)

    assert told == [SetLines(1), CompleteTrap(7, b"", -1, 0)]


def test_what_waits_is_bounded() -> None:
    """The channel then leaves messages where they are."""
    armed = Armed()
    fulls = []
    for _ in range(MAX_DEFERRED):
        fulls.append(armed.bench.core.full)
        armed.bench.say(DisarmQueue(9, 9, 9), safe=False)

    assert not any(fulls)
    assert armed.bench.core.full
    armed.bench.do(SafePointReached())
    assert not armed.bench.core.full


def test_completion_of_an_earlier_life_of_the_queue_writes_nothing_but_its_lines_count() -> None:
    """Stale generations are dropped; interrupt lines are the machine's, not the queue's."""
    armed = Armed()
    head = armed.guest.add_read(0)
    armed.store()

    told = armed.complete(head, b"old", generation=6, lines=(0, 1))

    assert armed.guest.data(0, 3) == bytes(3)
    assert told == [SetLines(1)]
    assert armed.bench.core.queues.counts.stale == 1


def test_disarmed_queue_is_a_register_again() -> None:
    """A disarming of an earlier life is not meant for it."""
    armed = Armed()
    armed.bench.say(DisarmQueue(2, 1, 6))
    armed.store()
    armed.bench.say(DisarmQueue(2, 1, 7))
    armed.store()

    assert [type(body) for body, _ in armed.bench.messages] == [Doorbell, Trap]


def test_driver_that_resets_its_device_has_its_buffers_back_at_once() -> None:
    """A completion that left before the hypervisor saw the reset is stale; stores to other registers mean nothing."""
    armed = Armed()
    head = armed.guest.add_read(0)
    armed.store()
    armed.store(NOTIFY + 0x10, 0)
    armed.store(NOTIFY + 0x20, 1)
    before = armed.bench.core.queues.in_flight

    armed.store(NOTIFY + 0x20, 0)
    armed.complete(head, b"late")

    assert (before, armed.bench.core.queues.in_flight) == (1, 0)
    assert armed.guest.data(0, 4) == bytes(4)
    assert armed.bench.core.queues.counts.stale == 1


def test_reset_and_a_new_hypervisor_disarm_all() -> None:
    """The machine's devices are new."""
    armed = Armed()
    armed.bench.say(Power(PowerAction.RESET, "port 92h"))
    armed.store()
    again = Armed()
    again.bench.new_hypervisor(2)
    for _ in range(5):
        again.bench.tick(3 * SECOND)
    again.store()

    assert [type(body) for body, _ in armed.bench.messages] == [Trap]
    assert isinstance(again.bench.messages[-1][0], Trap)


def test_new_hypervisor_voids_what_waited_of_the_old_one() -> None:
    """It is about devices that are gone."""
    armed = Armed()
    head = armed.guest.add_read(0)
    armed.store()
    armed.complete(head, b"one", safe=False)
    armed.bench.safe = False
    armed.bench.new_hypervisor(2)
    for _ in range(5):
        armed.bench.tick(3 * SECOND)

    armed.bench.do(SafePointReached())

    assert armed.guest.data(0, 3) == bytes(3)


def test_broken_ring_is_reported_behind_the_doorbell_that_found_it() -> None:
    """Once; later stores are told without requests."""
    armed = Armed()
    armed.guest.memory.write(RING + 256 * 16 + 2, b"\xff\xff")  # available index

    armed.store()
    armed.store()

    assert [type(body) for body, _ in armed.bench.messages] == [Doorbell, QueueBroken, Doorbell]
    assert armed.bench.core.counts.traps[TrapKind.DOORBELL] == 2


def test_report_has_doorbells_and_the_bytes_of_requests() -> None:
    """As the hypervisor counts them, at the point of the channel where it stands."""
    armed = Armed()
    armed.bench.tick()
    head = armed.guest.add_write(0, b"12345678")
    read = armed.guest.add_read(1)
    armed.store()
    armed.complete(head, b"")
    armed.complete(read, b"four")
    armed.bench.tick(600 * MS)

    report = armed.bench.bodies(Report)[-1]

    assert isinstance(report, Report)
    assert report.traps[TrapKind.DOORBELL] == 1
    assert (report.bytes_out, report.bytes_in) == (16 + 8 + 16, 4)
