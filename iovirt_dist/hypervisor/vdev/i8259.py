"""The two cascaded 8259A interrupt controllers of a PC.

Sources: Intel 8259A data sheet (order number 231468), sections "Initialization Command Words", "Operation Command
Words", "Fully Nested Mode" to "Cascade Mode" and "Edge and Level Triggered Modes"; Intel 82371SB (PIIX3) data sheet,
section "Edge/Level Control Registers" for ELCR.

Write, A0 = 0        7   6   5   4   3   2   1   0
    ICW1             .   .   .   1 LTIM ADI SNGL IC4    starts initialisation; clears IMR, ISR and edge latches
    OCW2             R  SL EOI   0   0  L2  L1  L0      see `OCW2_COMMANDS`
    OCW3             0 ESMM SMM  0   1   P  RR RIS      special mask mode, poll, read IRR (RIS 0) or ISR (RIS 1)
Write, A0 = 1
    ICW2            T7  T6  T5  T4  T3   .   .   .      vector base
    ICW3            master: bit per input with a slave; slave: its identity in bits 2-0; only if SNGL = 0
    ICW4             0   0   0 SFNM BUF M/S AEOI uPM    only if IC4 = 1
    OCW1            IMR: a set bit masks its input
Read, A0 = 0        IRR or ISR, as the last OCW3 chose; after a poll command: 1xxxxx W2 W1 W0
Read, A0 = 1        IMR
ELCR 4D0h, 4D1h     a set bit makes its input level-triggered; IRQ 0, 1, 2, 8 and 13 are always edge-triggered

Defined here where the data sheet leaves it open or a PC cannot tell: a chip that was never initialised requests
nothing; ICW1 clears ISR too; without ICW4 the vector is formed as in 8086 mode; a cascade input for which no slave
answers gives vector FFh, as an undriven bus.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

from iovirt_dist.errors import LocalError
from iovirt_dist.hypervisor.vdev.device import IrqLine, State
from iovirt_dist.hypervisor.vdev.ports import PortBlock

CASCADE_IRQ = 2
SPURIOUS_LEVEL = 7
FLOATING_VECTOR = 0xFF
NOTHING = 8  # priority rank of "no bit set": below the lowest, 7

ICW1 = 0x10
ICW1_LTIM, ICW1_SNGL, ICW1_IC4 = 0x08, 0x02, 0x01
ICW4_SFNM, ICW4_AEOI = 0x10, 0x02
OCW3 = 0x08
OCW3_ESMM, OCW3_SMM, OCW3_POLL, OCW3_RR, OCW3_RIS = 0x40, 0x20, 0x04, 0x02, 0x01

ELCR_WRITABLE_MASTER = 0xF8  # IRQ 3..7
ELCR_WRITABLE_SLAVE = 0xDE  # IRQ 9..12, 14, 15

# What the next write with A0 = 1 is. After power-on nothing is expected, but the chip is not ready either.
POWER_ON, EXPECT_ICW2, EXPECT_ICW3, EXPECT_ICW4, READY = range(5)


@dataclass(slots=True)
class PicRegisters:
    """Everything one 8259A remembers; levels are bit masks, bit n for input n."""

    step: int = POWER_ON
    icw1: int = 0
    vector_base: int = 0
    icw3: int = 0
    auto_eoi: bool = False
    fully_nested_special: bool = False
    inputs: int = 0
    irr: int = 0
    isr: int = 0
    imr: int = 0
    elcr: int = 0
    lowest: int = 7  # the input that has the lowest priority; the next one has the highest
    special_mask: bool = False
    rotate_in_auto_eoi: bool = False
    read_isr: bool = False
    poll: bool = False
    int_level: bool = False


class Pic8259:
    """One 8259A without the bus around it.

    Args:
        output: The INT pin.
        elcr_writable: Inputs that may become level-triggered.
        latch_edges: See `Pic8259Pair`.
    """

    def __init__(self, output: IrqLine, elcr_writable: int, latch_edges: bool) -> None:
        self.r = PicRegisters()
        self._output = output
        self._elcr_writable = elcr_writable
        self._latch_edges = latch_edges
        # R, SL, EOI of OCW2 -> what to do with its level bits (data sheet, figure "OCW2 format")
        self._ocw2_commands: tuple[Callable[[int], None], ...] = (
            lambda _level: self._set_rotate_in_auto_eoi(False),
            lambda _level: self._end_of_interrupt(self._in_service_first(), rotate=False),
            lambda _level: None,
            lambda level: self._end_of_interrupt(level, rotate=False),
            lambda _level: self._set_rotate_in_auto_eoi(True),
            lambda _level: self._end_of_interrupt(self._in_service_first(), rotate=True),
            self._set_lowest,
            lambda level: self._end_of_interrupt(level, rotate=True),
        )

    # -- inputs and INT ----------------------------------------------------------------------------------------------

    def set_input(self, irq: int, level: bool) -> None:
        """Set input `irq` (0..7) to a level."""
        r, bit = self.r, 1 << irq
        if bool(r.inputs & bit) == level:
            return
        r.inputs ^= bit
        if level:
            r.irr |= bit
        elif not self._latch_edges or self.level_triggered() & bit:
            r.irr &= ~bit
        self.update()

    def level_triggered(self) -> int:
        """Mask of the inputs that are level-triggered."""
        return 0xFF if self.r.icw1 & ICW1_LTIM else self.r.elcr

    def update(self) -> None:
        """Drive INT with what is pending now."""
        self._drive(self.pending() is not None)

    def _drive(self, level: bool) -> None:
        if level != self.r.int_level:
            self.r.int_level = level
            self._output(level)

    # -- priority ----------------------------------------------------------------------------------------------------

    def _rank(self, mask: int) -> int:
        """Priority of the most urgent bit in the mask: 0 (highest) to 7, NOTHING without bits."""
        shift = (self.r.lowest + 1) & 7
        rotated = (mask >> shift | mask << (8 - shift)) & 0xFF
        return (rotated & -rotated).bit_length() - 1 if rotated else NOTHING

    def _irq(self, rank: int) -> int:
        return (self.r.lowest + 1 + rank) & 7

    def _blocking(self) -> int:
        """In-service bits that count: in special mask mode those of masked inputs do not."""
        return self.r.isr & ~self.r.imr if self.r.special_mask else self.r.isr

    def _in_service_first(self) -> int | None:
        rank = self._rank(self._blocking())
        return None if rank == NOTHING else self._irq(rank)

    def pending(self) -> int | None:
        """The input that INT stands for; None when there is none above what is in service."""
        r = self.r
        requests = r.irr & ~r.imr & 0xFF
        if not requests or r.step != READY:
            return None
        rank, busy = self._rank(requests), self._rank(self._blocking())
        irq = self._irq(rank)
        nested = rank == busy and r.fully_nested_special and self.cascades(irq)
        return irq if rank < busy or nested else None

    def cascades(self, irq: int) -> bool:
        """Whether a slave, not this chip, supplies the vector for this input (ICW3 of a master)."""
        return not self.r.icw1 & ICW1_SNGL and bool(self.r.icw3 >> irq & 1)

    # -- acknowledge and EOI -----------------------------------------------------------------------------------------

    def acknowledge(self) -> int | None:
        """Take the pending input into service (INTA, or the read after a poll command).

        Returns:
            The input; None when nothing is pending any more (the caller forms the spurious vector).
        """
        r, irq = self.r, self.pending()
        if irq is not None:
            bit = 1 << irq
            if not self.level_triggered() & bit:
                r.irr &= ~bit
            if not r.auto_eoi:
                r.isr |= bit
            elif r.rotate_in_auto_eoi:
                r.lowest = irq
        self._drive(False)  # INT falls with the acknowledge even if more is pending: an edge for the master
        self.update()
        return irq

    def _end_of_interrupt(self, irq: int | None, rotate: bool) -> None:
        if irq is None:
            return
        self.r.isr &= ~(1 << irq)
        if rotate:
            self.r.lowest = irq

    def _set_lowest(self, irq: int) -> None:
        self.r.lowest = irq

    def _set_rotate_in_auto_eoi(self, on: bool) -> None:
        self.r.rotate_in_auto_eoi = on

    # -- registers ---------------------------------------------------------------------------------------------------

    def read(self, offset: int, _now_ns: int) -> int:
        """Read A0 = `offset` (0 or 1)."""
        r = self.r
        if r.poll:
            r.poll = False
            irq = self.acknowledge()
            return 0 if irq is None else 0x80 | irq
        if offset & 1:
            return r.imr
        return r.isr if r.read_isr else r.irr

    def write(self, offset: int, value: int, _now_ns: int) -> None:
        """Write A0 = `offset` (0 or 1)."""
        if offset & 1:
            self._write_high(value)
        elif value & ICW1:
            self._initialise(value)
        elif value & OCW3:
            self._write_ocw3(value)
        else:
            self._ocw2_commands[value >> 5](value & 7)
        self.update()

    def _initialise(self, icw1: int) -> None:
        """ICW1: everything but the pins and ELCR starts anew; an edge input needs a new edge."""
        old = self.r
        self.r = PicRegisters(step=EXPECT_ICW2, icw1=icw1, inputs=old.inputs, elcr=old.elcr, int_level=old.int_level)
        self.r.irr = old.inputs & self.level_triggered()

    def _write_high(self, value: int) -> None:
        r = self.r
        if r.step == EXPECT_ICW2:
            r.vector_base = value & 0xF8
            r.step = self._after_icw2()
        elif r.step == EXPECT_ICW3:
            r.icw3 = value
            r.step = self._after_icw3()
        elif r.step == EXPECT_ICW4:
            r.auto_eoi = bool(value & ICW4_AEOI)
            r.fully_nested_special = bool(value & ICW4_SFNM)
            r.step = READY
        else:
            r.imr = value

    def _after_icw2(self) -> int:
        return self._after_icw3() if self.r.icw1 & ICW1_SNGL else EXPECT_ICW3

    def _after_icw3(self) -> int:
        return EXPECT_ICW4 if self.r.icw1 & ICW1_IC4 else READY

    def _write_ocw3(self, value: int) -> None:
        r = self.r
        if value & OCW3_ESMM:
            r.special_mask = bool(value & OCW3_SMM)
        if value & OCW3_RR:
            r.read_isr = bool(value & OCW3_RIS)
        r.poll = bool(value & OCW3_POLL)

    def write_elcr(self, value: int) -> None:
        """Choose edge or level for each input that has the choice."""
        self.r.elcr = value & self._elcr_writable
        level = self.level_triggered()
        self.r.irr = self.r.irr & ~level | self.r.inputs & level
        self.update()

    def state(self) -> State:
        """All registers."""
        return asdict(self.r)

    def restore(self, state: State) -> None:
        """Take over all registers; the INT line is set by the caller."""
        self.r = PicRegisters(**state)


class Pic8259Pair:
    """Master and slave 8259A as a PC wires them: the slave's INT at master input 2, INTR to the CPU.

    Attributes:
        master_ports: Register block for 20h-21h; carries the state of the pair.
        slave_ports: Register block for A0h-A1h.
        elcr_ports: Register block for 4D0h-4D1h.
        spurious: How many acknowledges found nothing pending (vectors of IRQ 7 and IRQ 15) since power-on.

    Args:
        output: INTR. Its level is True while an unmasked request outranks what is in service.
        latch_edges: What happens when an edge-triggered input falls before it is acknowledged. True: the request
            stays, as in KVM and QEMU; the distance between this chip and the CPU is a message here, and a device
            that pulses must not lose its interrupt to it. False: the request is withdrawn and an acknowledge already
            under way gets IRQ 7, as the 8259A data sheet has it.
    """

    def __init__(self, output: IrqLine, latch_edges: bool = True) -> None:
        self._intr = output
        self._master = Pic8259(output, ELCR_WRITABLE_MASTER, latch_edges)
        self._slave = Pic8259(partial(self._master.set_input, CASCADE_IRQ), ELCR_WRITABLE_SLAVE, latch_edges)
        self._chips = (self._master, self._slave)
        self.spurious = 0
        self.master_ports = PortBlock(self._master.read, self._master.write, owner=self)
        self.slave_ports = PortBlock(self._slave.read, self._slave.write)
        self.elcr_ports = PortBlock(self._read_elcr, self._write_elcr)

    def set_irq(self, irq: int, level: bool) -> None:
        """Set an interrupt input to a level; 0..15 without 2, where the slave is connected."""
        self._chips[irq >> 3].set_input(irq & 7, level)

    def line(self, irq: int) -> IrqLine:
        """Return an interrupt input as an output for a device.

        Raises:
            LocalError: There is no such input (0..15 without 2).
        """
        if not 0 <= irq <= 15 or irq == CASCADE_IRQ:
            raise LocalError(f"IRQ {irq} does not exist", "8259 pair", "use 0..15 without 2")
        return partial(self._chips[irq >> 3].set_input, irq & 7)

    def unmasked(self, irq: int) -> bool:
        """Whether a request at this input could reach the CPU: its chip is ready and neither mask hides it."""
        chip = self._chips[irq >> 3]
        hidden = chip.r.imr >> (irq & 7) & 1 or (irq > 7 and self._master.r.imr >> CASCADE_IRQ & 1)
        return chip.r.step == READY and not hidden

    def acknowledge(self) -> int:
        """The CPU's INTA cycles: take the pending request into service and return its vector, 0..255.

        When the request has gone meanwhile, the vector is that of IRQ 7, or IRQ 15 if it was the slave's; no
        in-service bit of the chip that found nothing is set (data sheet, "Interrupt Sequence").
        """
        irq = self._master.acknowledge()
        if irq is None:
            self.spurious += 1
            return self._master.r.vector_base | SPURIOUS_LEVEL
        if not self._master.cascades(irq):
            return self._master.r.vector_base | irq
        if irq != CASCADE_IRQ or self._slave.r.icw3 & 7 != CASCADE_IRQ:
            return FLOATING_VECTOR
        level = self._slave.acknowledge()
        if level is None:
            self.spurious += 1
            level = SPURIOUS_LEVEL
        return self._slave.r.vector_base | level

    def _read_elcr(self, offset: int, _now_ns: int) -> int:
        return self._chips[offset & 1].r.elcr

    def _write_elcr(self, offset: int, value: int, _now_ns: int) -> None:
        self._chips[offset & 1].write_elcr(value)

    def deadline_ns(self) -> int | None:
        """Nothing is timed."""
        return None

    def advance(self, now_ns: int) -> None:
        """Nothing is timed."""

    def state(self) -> State:
        """Registers of both chips."""
        return {"master": self._master.state(), "slave": self._slave.state()}

    def restore(self, state: State) -> None:
        """Take over the registers of both chips and set INTR."""
        self._master.restore(state["master"])
        self._slave.restore(state["slave"])
        self._intr(self._master.r.int_level)
