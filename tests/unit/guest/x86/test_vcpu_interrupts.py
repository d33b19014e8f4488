"""Interrupts, kicks and resets of the x86 CPU."""

from __future__ import annotations

import threading

import pytest

from iovirt_dist.guest.bus import BusClosedError
from iovirt_dist.guest.vcpu import Exit, ExitReason
from tests.unit.guest.x86.support import (
    HALTED,
    KERNEL_CODE,
    RESET_EDX,
    SPIN,
    USER_CODE,
    USER_CS,
    USER_DS,
    USER_STACK,
    RecordingBus,
    assemble,
    flat_image,
    make_cpu,
    protected_cpu,
    reported,
    set_gate,
    stack_words,
)


def test_interrupt_wakes_halted_cpu_and_returns_behind_hlt() -> None:
    """STI, HLT, INTR: the handler runs and IRET continues behind HLT."""
    bus = RecordingBus()
    cpu = protected_cpu("fb f4 e677 fa f4 ; sti; hlt; out 77h, al; cli; hlt", bus)
    cpu.write_memory(0x50000, assemble("e676 cf ; out 76h, al; iret"))
    set_gate(cpu, 0x20, 0x50000)
    assert cpu.run() == HALTED
    assert cpu.run() == HALTED
    assert bus.log == []
    bus.pending.append(0x20)
    assert cpu.run() == HALTED
    assert [entry[1] for entry in bus.log] == [0x76, 0x77]
    assert cpu.counters() == (1, 0, 0)


def test_halted_cpu_with_interrupts_disabled_stays_halted() -> None:
    """CLI, HLT: INTR does not wake it."""
    bus = RecordingBus(pending=[0x20])
    cpu = protected_cpu("faf4", bus)
    assert [cpu.run() for _ in range(3)] == [HALTED] * 3
    assert bus.pending == [0x20]


def test_interrupt_masked_is_delivered_soon_after_sti() -> None:
    """INTR is asserted while IF is clear; a guest that sets IF without any trap is interrupted."""
    bus = RecordingBus(pending=[0x20])
    cpu = protected_cpu("b940420f00 49 75fd fb 90 ebfe ; a million rounds with IF clear; sti; nop; jmp $", bus)
    assert cpu.run() == HALTED
    assert reported(bus) == [0x20]
    assert stack_words(cpu, 1)[0] - KERNEL_CODE in {9, 10}


def test_interrupt_is_not_delivered_between_sti_and_its_successor() -> None:
    """STI, CLI in a loop opens no window, however often the CPU is stopped."""
    bus = RecordingBus(pending=[0x20])
    cpu = protected_cpu("b9a0860100 fb fa 49 75fb f4 ; 100,000 times sti; cli", bus)
    assert cpu.run() == HALTED
    assert (reported(bus), bus.pending) == ([], [0x20])


def test_interrupt_from_user_mode_switches_stack() -> None:
    """A spinning user program is interrupted; the frame holds its stack."""
    bus = RecordingBus(pending=[0x21])
    cpu = protected_cpu(SPIN, bus, user=True, paging=True)
    assert cpu.run() == HALTED
    assert reported(bus) == [0x21]
    assert stack_words(cpu, 5) == [USER_CODE, USER_CS, 0x202, USER_STACK, USER_DS]


def test_kick_before_run_makes_it_return_at_once() -> None:
    """A kick is sticky, and counts once."""
    cpu = protected_cpu("f4")
    cpu.kick()
    assert cpu.run() == Exit(ExitReason.KICKED)
    assert cpu.run() == HALTED


def test_kick_from_another_thread_always_stops_the_guest() -> None:
    """A thousand kicks at random moments of the entry; each makes one run return."""
    cpu = protected_cpu("40 ebfd ; inc eax; jmp back")
    returned = threading.Semaphore(0)

    def kicker() -> None:
        for _ in range(1000):
            cpu.kick()
            returned.acquire()

    thread = threading.Thread(target=kicker, daemon=True)
    thread.start()
    reasons = set()
    for _ in range(1000):
        reasons.add(cpu.run().reason)
        returned.release()
    thread.join(5)
    assert reasons == {ExitReason.KICKED}
    assert not thread.is_alive()


def test_kick_inside_trap_stops_behind_the_instruction() -> None:
    """The runtime kicks when a reply raises a line; the trapped instruction completes."""
    bus = RecordingBus()
    cpu = protected_cpu("e680 40 ebfd", bus)
    bus.on_out = lambda port: cpu.kick()
    assert cpu.run() == Exit(ExitReason.KICKED)
    assert bus.log == [("out", 0x80, 1, b"\0")]


def test_bus_closed_inside_trap_leaves_run() -> None:
    """The error of the bus comes out of run, and nothing behind the instruction calls the bus."""
    bus = RecordingBus()
    cpu = protected_cpu("e680 e681 f4", bus)

    def close(port: int) -> None:
        raise BusClosedError

    bus.on_out = close
    with pytest.raises(BusClosedError):
        cpu.run()
    assert [entry[1] for entry in bus.log] == [0x80]


def test_reset_restores_power_on_state() -> None:
    """Memory is cleared, the image is back, and the run repeats."""
    bus = RecordingBus()
    cpu = make_cpu(flat_image("fe06107c a0107c e680 f4 ; inc byte [7c10h]; mov al, [7c10h]; out 80h, al; hlt"), bus)
    cpu.write_memory(0x5000, b"x")
    assert cpu.run() == HALTED
    cpu.reset()
    assert cpu.read_memory(0x5000, 1) == b"\0"
    assert cpu.run() == HALTED
    assert bus.log[0] == bus.log[1]
    assert cpu.state().registers[2] == RESET_EDX


def test_interrupt_that_waits_for_sti_is_taken_in_a_loop_without_traps() -> None:
    """The handler's OUT follows, although guest code behind STI never leaves the engine by itself."""
    bus = RecordingBus()
    cpu = protected_cpu("e680 fb 90 ebfe", bus)

    def raise_line(port: int) -> None:
        if port == 0x80:
            bus.pending.append(0x20)
            cpu.kick()

    bus.on_out = raise_line
    assert cpu.run() == Exit(ExitReason.KICKED)
    assert cpu.run() == HALTED
    assert len(bus.log) > 1
