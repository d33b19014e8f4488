"""Armed queues in the guest's channel: which thread writes guest memory, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from iovirt_dist.guest.deferral import MAX_DEFERRED
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import (
    Interrupt,
    Message,
    Trap,
    TrapReply,
)
from iovirt_dist.wire.queue_messages import ArmQueue, Doorbell
from tests.unit.guest.queue_bench import NOTIFY
from tests.unit.runtime.channel_bench import SYSTEM, Bench, armed, complete


async def test_channel_doorbell_leaves_at_once_and_nobody_answers(make: Callable[..., Bench]) -> None:
    """In the store; the CPU goes on."""
    bench = await armed(make)
    bench.driver.add_read(0)

    bench.channel.store(NOTIFY, 4, 1, SYSTEM)

    ((body, _),) = bench.port.others
    assert isinstance(body, Doorbell)
    assert len(body.requests) == 28
    assert bench.port.traps == []


async def test_channel_completion_while_guest_code_runs_kicks_and_waits_for_the_vcpu_thread(
    make: Callable[..., Bench],
) -> None:
    """Guest memory is the vCPU thread's; the interrupt is not visible before the data."""
    bench = await armed(make)
    head = bench.driver.add_read(0)
    bench.channel.store(NOTIFY, 4, 1, SYSTEM)

    body, payload = complete(head, b"data", (0, 1))
    bench.port.say(body, *payload)
    bench.port.say(Interrupt(9, 1))
    await bench.until(lambda: bench.kicks > 0)
    before = bench.driver.data(0, 4), bench.channel.lines()
    await bench.until(lambda: not bench.port.pending())
    still = bench.driver.data(0, 4), bench.channel.lines()
    await bench.in_vcpu_thread(bench.channel.safe_point)

    assert before == still == (bytes(4), 0)
    assert bench.driver.data(0, 4) == b"data"
    assert bench.channel.lines() == 1 | 1 << 9


async def test_channel_completion_inside_of_a_trap_is_written_before_the_trap_ends(make: Callable[..., Bench]) -> None:
    """The reply behind it must not reveal it before it is there."""
    heads: list[int] = []

    def answer(trap: Any, _: Sequence[Buffer]) -> Sequence[tuple[Message, tuple[bytes, ...]]]:
        if not isinstance(trap, Trap):
            return ()
        return (complete(heads[0], b"data"), (TrapReply(trap.number, 1), ()))

    bench = await armed(make, answer)
    heads.append(bench.driver.add_read(0))
    bench.channel.store(NOTIFY, 4, 1, SYSTEM)

    bench.channel.load(0x1000_0060, 4, SYSTEM)

    assert bench.driver.data(0, 4) == b"data"
    assert not bench.core.waits_for_safe_point


async def test_channel_completion_that_waits_is_written_before_the_next_trap_ends(make: Callable[..., Bench]) -> None:
    """The kick has not reached the CPU yet when it traps."""
    bench = await armed(make)
    head = bench.driver.add_read(0)
    bench.channel.store(NOTIFY, 4, 1, SYSTEM)
    body, payload = complete(head, b"data")
    bench.port.say(body, *payload)
    await bench.until(lambda: bench.core.waits_for_safe_point)

    await bench.in_vcpu_thread(lambda: bench.channel.load(0x1000_0060, 4, SYSTEM))

    assert bench.driver.data(0, 4) == b"data"


async def test_channel_halted_cpu_takes_a_completion_that_waited(make: Callable[..., Bench]) -> None:
    """It came between the CPU's last look and its HLT."""
    bench = await armed(make)
    head = bench.driver.add_read(0)
    bench.channel.store(NOTIFY, 4, 1, SYSTEM)
    seen = bench.channel.line_changes
    body, payload = complete(head, b"data", (0, 1))
    bench.port.say(body, *payload)
    await bench.until(lambda: bench.core.waits_for_safe_point)

    await bench.in_vcpu_thread(lambda: bench.channel.pump_until(lambda: bench.channel.line_changes != seen))

    assert bench.driver.data(0, 4) == b"data"
    assert bench.channel.lines() == 1


async def test_channel_loop_leaves_messages_where_they_are_when_too_many_wait(make: Callable[..., Bench]) -> None:
    """They are received when the vCPU thread comes."""
    bench = await armed(make)
    arm = ArmQueue(3, 3, 1, 0, 8, 1 << 40, 1 << 40, 1 << 40, 0, 0)
    for _ in range(MAX_DEFERRED // 2):
        bench.port.say(arm)
        await asyncio.sleep(0)
    await bench.until(lambda: not bench.port.pending())
    for _ in range(MAX_DEFERRED // 2 + 50):
        bench.port.say(arm)
    await bench.until(lambda: bench.core.full)
    await asyncio.sleep(0)
    left = bench.port.pending()

    await bench.in_vcpu_thread(bench.channel.safe_point)

    assert left
    assert not bench.port.pending()
    assert not bench.core.waits_for_safe_point
    assert bench.core.queues.counts.broken == MAX_DEFERRED + 50
