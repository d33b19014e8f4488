"""The 8259 pair against the 8259A data sheet."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.hypervisor.vdev.i8259 import Pic8259Pair
from tests.unit.hypervisor.vdev.pic_bench import (
    MASTER_BASE,
    NONSPECIFIC_EOI,
    POLL,
    READ_IRR,
    READ_ISR,
    SLAVE_BASE,
    Bench,
)


@pytest.fixture
def bench() -> Bench:
    """A pair as a PC's firmware initialises it, nothing masked."""
    bench = Bench()
    bench.initialise()
    return bench


def test_pic_before_initialisation_requests_nothing() -> None:
    """A chip at power-on drives INTR low whatever its inputs do."""
    bench = Bench()

    bench.pulse(0, 1, 8)

    assert not bench.intr


def test_pic_in_the_middle_of_initialisation_requests_nothing(bench: Bench) -> None:
    """ICW1 to ICW4 are one sequence; inputs wait until it is complete."""
    bench.master(0, 0x11)
    bench.pulse(1)
    assert not bench.intr

    bench.master(1, MASTER_BASE)
    bench.master(1, 0x04)
    assert not bench.intr
    bench.master(1, 0x01)

    assert bench.intr


def test_pic_single_without_icw4_is_ready_after_icw2() -> None:
    """SNGL leaves out ICW3, IC4 = 0 leaves out ICW4; then input 2 is an ordinary one."""
    bench = Bench()

    bench.master(0, 0x12)
    bench.master(1, 0x77)
    bench.master(1, 0xFB)
    bench.pulse(2)

    assert bench.take(1) == [0x72]
    assert bench.pic.master_ports.read(1, 1, 0) == 0xFB


def test_pic_icw1_clears_masks_service_and_edge_latches(bench: Bench) -> None:
    """After ICW1 an edge input that is still high needs a new edge (data sheet, ICW1 items a to f)."""
    bench.master(1, 0xF0)
    bench.pulse(0)
    bench.take(1)
    bench.pic.set_irq(3, True)

    bench.initialise()

    assert bench.pic.master_ports.read(1, 1, 0) == 0
    assert (bench.master_reads(READ_IRR), bench.master_reads(READ_ISR)) == (0, 0)
    bench.pic.set_irq(3, False)
    bench.pic.set_irq(3, True)
    assert bench.take(1) == [MASTER_BASE + 3]


@pytest.mark.parametrize(("irq", "vector"), [(1, MASTER_BASE + 1), (8, SLAVE_BASE), (15, SLAVE_BASE + 7)])
def test_pic_acknowledge_presents_the_programmed_vector(bench: Bench, irq: int, vector: int) -> None:
    """T7-T3 come from ICW2, the low three bits from the level."""
    bench.pulse(irq)

    assert bench.take(1) == [vector]


def test_pic_acknowledge_with_nothing_pending_gives_spurious_irq7(bench: Bench) -> None:
    """Nothing is put into service by a spurious IRQ 7: software must send no EOI."""
    assert bench.take(1) == [MASTER_BASE + 7]
    assert bench.master_reads(READ_ISR) == 0
    assert bench.pic.spurious == 1


def test_pic_slave_request_masked_in_flight_gives_spurious_irq15(bench: Bench) -> None:
    """The master serves its cascade input, so software must send an EOI to the master only."""
    bench.pulse(14)
    bench.slave(1, 0xFF)

    vectors = bench.take(1)

    assert vectors == [SLAVE_BASE + 7]
    assert (bench.master_reads(READ_ISR), bench.slave_reads(READ_ISR)) == (0b100, 0)


def test_pic_edge_that_falls_early_stays_by_default(bench: Bench) -> None:
    """A pulse is a request: the CPU is a message away."""
    bench.pulse(5)

    assert (bench.intr, bench.take(1)) == (True, [MASTER_BASE + 5])


def test_pic_edge_that_falls_early_is_withdrawn_by_data_sheet() -> None:
    """Without latching, an input that falls before INTA leads to the default IRQ 7."""
    bench = Bench(latch_edges=False)
    bench.initialise()

    bench.pulse(5)

    assert (bench.intr, bench.take(1)) == (False, [MASTER_BASE + 7])


def test_pic_edge_input_held_high_interrupts_once(bench: Bench) -> None:
    """After the EOI an edge input that stays high asks for nothing."""
    bench.pic.set_irq(4, True)
    bench.take(1)

    bench.master(0, NONSPECIFIC_EOI)
    bench.pic.set_irq(4, True)

    assert not bench.intr


def test_pic_elcr_level_input_interrupts_until_it_falls(bench: Bench) -> None:
    """A level-triggered input asks again after the EOI while it is high, and is withdrawn when it falls."""
    bench.pic.elcr_ports.write(1, 1, 0x08, 0)
    bench.pic.set_irq(11, True)
    bench.take(1)
    bench.slave(0, NONSPECIFIC_EOI)
    bench.master(0, NONSPECIFIC_EOI)
    assert bench.intr

    bench.pic.set_irq(11, False)

    assert bench.slave_reads(READ_IRR) == 0


def test_pic_elcr_keeps_the_system_inputs_edge_triggered(bench: Bench) -> None:
    """IRQ 0, 1, 2, 8 and 13 have no choice (82371SB data sheet, ELCR1 and ELCR2)."""
    bench.pic.elcr_ports.write(0, 1, 0xFF, 0)
    bench.pic.elcr_ports.write(1, 1, 0xFF, 0)

    assert [bench.pic.elcr_ports.read(offset, 1, 0) for offset in (0, 1)] == [0xF8, 0xDE]


def test_pic_ltim_makes_every_input_level_triggered(bench: Bench) -> None:
    """ICW1.LTIM: a high input asks at once, without an edge after initialisation."""
    bench.pic.set_irq(0, True)

    bench.initialise(icw1=0x19)

    assert bench.take(1) == [MASTER_BASE]
    bench.pic.set_irq(0, False)
    assert bench.master_reads(READ_IRR) == 0


def test_pic_poll_command_acknowledges_by_reading(bench: Bench) -> None:
    """The read after P = 1 returns 80h + level and sets the in-service bit; with nothing pending it returns 0."""
    bench.pulse(6)

    answers = [bench.master_reads(POLL), bench.master_reads(POLL)]

    assert answers == [0x86, 0x00]
    assert bench.master_reads(READ_ISR) == 0x40
    assert not bench.intr


def test_pic_read_selection_stays_until_changed(bench: Bench) -> None:
    """OCW3 without RR keeps the selection; the chip starts with IRR."""
    bench.pulse(6)
    bench.take(1)
    first = bench.pic.master_ports.read(0, 1, 0)
    bench.master(0, READ_ISR)
    bench.master(0, 0x08)

    assert (first, bench.pic.master_ports.read(0, 1, 0)) == (0x00, 0x40)


def test_pic_cascade_without_a_slave_floats() -> None:
    """When ICW3 names a slave that does not answer, the CPU reads an undriven bus."""
    bench = Bench()
    bench.initialise()
    bench.slave(0, 0x11)
    for word in (SLAVE_BASE, 0x05, 0x01):
        bench.slave(1, word)
    bench.pulse(9)

    assert bench.take(1) == [0xFF]


def test_pic_unmasked_follows_both_masks(bench: Bench) -> None:
    """An input of the slave is hidden by its own bit or by the master's bit 2."""
    before = (bench.pic.unmasked(0), bench.pic.unmasked(14))
    bench.master(1, 0x04)
    hidden_by_master = bench.pic.unmasked(14)
    bench.master(1, 0x01)

    assert before == (True, True)
    assert (hidden_by_master, bench.pic.unmasked(14), bench.pic.unmasked(0)) == (False, True, False)


def test_pic_line_is_the_input_of_that_number(bench: Bench) -> None:
    """Devices get their input as a plain output line."""
    bench.pic.line(10)(True)

    assert bench.take(1) == [SLAVE_BASE + 2]


@pytest.mark.parametrize("irq", [-1, 2, 16])
def test_pic_line_that_does_not_exist_is_refused(irq: int) -> None:
    """IRQ 2 is the cascade; its ISA pin is connected to IRQ 9."""
    pic = Pic8259Pair(lambda _level: None)

    with pytest.raises(LocalError, match=f"IRQ {irq} does not exist"):
        pic.line(irq)
