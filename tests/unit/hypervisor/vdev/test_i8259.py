"""The 8259 pair against the 8259A data sheet."""

from __future__ import annotations

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.hypervisor.vdev.i8259 import Pic8259Pair

MASTER_BASE, SLAVE_BASE = 0x20, 0x28
NONSPECIFIC_EOI, ROTATE_ON_EOI, ROTATE_IN_AEOI, SET_PRIORITY, SPECIFIC_EOI = 0x20, 0xA0, 0x80, 0xC0, 0x60
READ_IRR, READ_ISR, POLL, SET_SPECIAL_MASK, CLEAR_SPECIAL_MASK = 0x0A, 0x0B, 0x0C, 0x68, 0x48


class Bench:
    """A pair with its INTR recorded and its ports by name."""

    def __init__(self, latch_edges: bool = True) -> None:
        self.intr = False
        self.pic = Pic8259Pair(self._set_intr, latch_edges)

    def _set_intr(self, level: bool) -> None:
        self.intr = level

    def master(self, a0: int, value: int) -> None:
        """Write a port of the master."""
        self.pic.master_ports.write(a0, 1, value, 0)

    def slave(self, a0: int, value: int) -> None:
        """Write a port of the slave."""
        self.pic.slave_ports.write(a0, 1, value, 0)

    def master_reads(self, ocw3: int) -> int:
        """Give the master an OCW3, then read its even port."""
        self.master(0, ocw3)
        return self.pic.master_ports.read(0, 1, 0)

    def slave_reads(self, ocw3: int) -> int:
        """Give the slave an OCW3, then read its even port."""
        self.slave(0, ocw3)
        return self.pic.slave_ports.read(0, 1, 0)

    def initialise(self, icw1: int = 0x11, icw4_master: int = 0x01, icw4_slave: int = 0x01) -> None:
        """Send ICW1 to ICW4 to both chips, as PC firmware does."""
        for write, words in (
            (self.master, (MASTER_BASE, 0x04, icw4_master)),
            (self.slave, (SLAVE_BASE, 0x02, icw4_slave)),
        ):
            write(0, icw1)
            for word in words:
                write(1, word)

    def pulse(self, *irqs: int) -> None:
        """Raise and lower each input once."""
        for irq in irqs:
            self.pic.set_irq(irq, True)
            self.pic.set_irq(irq, False)

    def take(self, count: int) -> list[int]:
        """Run this many acknowledge cycles; return their vectors."""
        return [self.pic.acknowledge() for _ in range(count)]


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


def test_pic_several_requests_are_taken_in_priority_order(bench: Bench) -> None:
    """IRQ 0 is first, the slave's eight come between IRQ 1 and IRQ 3."""
    bench.pulse(7, 3, 15, 8, 1, 0)

    vectors = []
    for eoi_slave in (False, False, True, True, False, False):
        vectors += bench.take(1)
        bench.slave(0, NONSPECIFIC_EOI if eoi_slave else 0x40)
        bench.master(0, NONSPECIFIC_EOI)

    assert vectors == [0x20, 0x21, 0x28, 0x2F, 0x23, 0x27]
    assert not bench.intr


def test_pic_lower_priority_waits_while_higher_is_in_service(bench: Bench) -> None:
    """Fully nested mode: equal and lower levels wait for the EOI."""
    bench.pulse(3)
    bench.take(1)

    bench.pulse(3, 5)

    assert not bench.intr
    bench.master(0, NONSPECIFIC_EOI)
    assert bench.intr


def test_pic_higher_priority_interrupts_the_one_in_service(bench: Bench) -> None:
    """Fully nested mode: a higher level nests, and a non-specific EOI ends the inner one first."""
    bench.pulse(5)
    bench.take(1)
    bench.pulse(1)

    vectors = bench.take(1)

    assert vectors == [MASTER_BASE + 1]
    assert bench.master_reads(READ_ISR) == 0b100010
    bench.master(0, NONSPECIFIC_EOI)
    assert bench.master_reads(READ_ISR) == 0b100000


def test_pic_specific_eoi_ends_the_level_it_names(bench: Bench) -> None:
    """A specific EOI may end the outer interrupt before the inner one."""
    bench.pulse(5)
    bench.take(1)
    bench.pulse(1)
    bench.take(1)

    bench.master(0, SPECIFIC_EOI | 5)

    assert bench.master_reads(READ_ISR) == 0b000010


def test_pic_mask_holds_a_request_back_without_losing_it(bench: Bench) -> None:
    """IMR acts behind IRR: the request shows there and is served once unmasked."""
    bench.master(1, 0x10)
    bench.pulse(4)

    assert (bench.intr, bench.master_reads(READ_IRR)) == (False, 0x10)
    bench.master(1, 0x00)

    assert bench.take(1) == [MASTER_BASE + 4]


def test_pic_auto_eoi_sets_no_in_service_bit(bench: Bench) -> None:
    """With ICW4.AEOI the next request is presented at once; INTR falls in between."""
    bench.initialise(icw4_master=0x03)
    bench.pulse(3, 6)

    assert bench.take(2) == [MASTER_BASE + 3, MASTER_BASE + 6]
    assert bench.master_reads(READ_ISR) == 0


def test_pic_auto_eoi_slave_gives_the_master_an_edge_per_request(bench: Bench) -> None:
    """Two requests of an AEOI slave both pass the edge-triggered cascade input."""
    bench.initialise(icw4_master=0x03, icw4_slave=0x03)
    bench.pulse(9, 12)

    assert bench.take(2) == [SLAVE_BASE + 1, SLAVE_BASE + 4]
    assert not bench.intr


def test_pic_rotate_on_nonspecific_eoi_makes_the_served_level_lowest(bench: Bench) -> None:
    """Automatic rotation: after IRQ 4, IRQ 5 is the highest and IRQ 4 the lowest (data sheet, figure of rotation)."""
    bench.pulse(4)
    bench.take(1)

    bench.master(0, ROTATE_ON_EOI)
    bench.pulse(4, 6, 0)

    assert bench.take(1) == [MASTER_BASE + 6]


def test_pic_rotate_on_specific_eoi_names_the_lowest(bench: Bench) -> None:
    """Rotation on a specific EOI ends the named level and makes it the lowest."""
    bench.pulse(5)
    bench.take(1)
    bench.pulse(0)
    bench.take(1)

    bench.master(0, 0xE0 | 5)

    assert bench.master_reads(READ_ISR) == 0b000001
    bench.master(0, SPECIFIC_EOI | 0)
    bench.pulse(5, 6)
    assert bench.take(1) == [MASTER_BASE + 6]


def test_pic_set_priority_changes_the_order_only(bench: Bench) -> None:
    """L2-L0 of the set-priority command name the lowest level."""
    bench.master(0, SET_PRIORITY | 2)
    bench.pulse(0, 3, 7)

    assert bench.take(1) == [MASTER_BASE + 3]


def test_pic_rotate_in_auto_eoi_serves_in_turn(bench: Bench) -> None:
    """With rotation in AEOI mode a level that was just served goes to the end; clearing it stops that."""
    bench.initialise(icw4_master=0x03)
    bench.master(0, ROTATE_IN_AEOI)
    bench.pulse(3, 4)
    first = bench.take(1)
    bench.pulse(3)

    second = bench.take(1)

    assert first + second == [MASTER_BASE + 3, MASTER_BASE + 4]
    bench.take(1)
    bench.master(0, 0x00)
    bench.pulse(5, 6)
    bench.take(1)
    bench.pulse(5)
    assert bench.take(1) == [MASTER_BASE + 5]


def test_pic_special_mask_mode_lets_lower_levels_in(bench: Bench) -> None:
    """A masked in-service level inhibits nobody in special mask mode, and only there."""
    bench.pulse(1)
    bench.take(1)
    bench.master(1, 0x02)
    bench.pulse(6)
    assert not bench.intr

    bench.master(0, SET_SPECIAL_MASK)
    assert bench.take(1) == [MASTER_BASE + 6]

    bench.master(0, NONSPECIFIC_EOI)
    assert bench.master_reads(READ_ISR) == 0b000010
    bench.master(0, NONSPECIFIC_EOI)
    assert bench.master_reads(READ_ISR) == 0b000010
    bench.master(0, CLEAR_SPECIAL_MASK)
    bench.pulse(6)
    assert not bench.intr


def test_pic_slave_in_service_is_locked_out_in_plain_nested_mode(bench: Bench) -> None:
    """Without SFNM the master takes nothing more from the slave until its own EOI."""
    bench.pulse(12)
    bench.take(1)

    bench.pulse(8)

    assert not bench.intr


def test_pic_special_fully_nested_lets_the_slave_nest(bench: Bench) -> None:
    """With SFNM a higher request of the same slave gets through, a lower one of the master still waits."""
    bench.initialise(icw4_master=0x11)
    bench.pulse(12)
    bench.take(1)
    bench.pulse(3)
    assert not bench.intr

    bench.pulse(8)

    assert bench.take(1) == [SLAVE_BASE + 0]


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
