"""The interrupt controller of `virt` against the RISC-V PLIC specification 1.0.0."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.device import IrqLine
from iovirt_dist.hypervisor.vdev.plic import Plic

M, S = 0, 1
PENDING = 0x1000


class Bench:
    """A PLIC with two contexts, and 32-bit accesses."""

    def __init__(self) -> None:
        self.edges: list[tuple[str, bool]] = []
        self.levels = {"M": False, "S": False}
        self.plic = Plic([self._output("M"), self._output("S")])

    def _output(self, name: str) -> IrqLine:
        def line(level: bool) -> None:
            self.edges.append((name, level))
            self.levels[name] = level

        return line

    def store(self, offset: int, value: int) -> None:
        """SW."""
        self.plic.write(offset, 4, value, 0)

    def load(self, offset: int) -> int:
        """LW."""
        return self.plic.read(offset, 4, 0)

    def enable(self, context: int, source: int, priority: int = 1) -> None:
        """Let a source interrupt a context, besides those that may."""
        offset = 0x2000 + 0x80 * context + 4 * (source // 32)
        self.store(offset, self.load(offset) | 1 << source % 32)
        self.store(4 * source, priority)

    def threshold(self, context: int, value: int) -> None:
        """Set a context's threshold."""
        self.store(0x200000 + 0x1000 * context, value)

    def claim(self, context: int) -> int:
        """Read the claim register."""
        return self.load(0x200004 + 0x1000 * context)

    def complete(self, context: int, source: int) -> None:
        """Write the complete register."""
        self.store(0x200004 + 0x1000 * context, source)


def test_plic_registers_keep_what_is_implemented() -> None:
    """Priorities and thresholds have three bits, source 0 and sources beyond 96 none; enables are per context."""
    bench = Bench()

    for offset in (0, 4, 4 * 96, 4 * 97, 0x2000, 0x2080, 0x200C, 0x2100, 0x200000, 0x201000, 0x202000):
        bench.store(offset, 0xFFFF_FFFF)

    assert [bench.load(offset) for offset in (0, 4, 4 * 96, 4 * 97)] == [0, 7, 7, 0]
    assert [bench.load(offset) for offset in (0x2000, 0x2080, 0x200C, 0x2100)] == [0xFFFF_FFFE, 0xFFFF_FFFE, 1, 0]
    assert [bench.load(offset) for offset in (0x200000, 0x201000, 0x202000)] == [7, 7, 0]


def test_plic_source_interrupts_the_contexts_that_enable_it() -> None:
    """One line up, and the pending bit shows."""
    bench = Bench()
    bench.enable(S, 10)

    bench.plic.line(10)(True)

    assert bench.levels == {"M": False, "S": True}
    assert bench.load(PENDING) == 1 << 10


def test_plic_priority_zero_never_interrupts() -> None:
    """Chapter 4; and such a source cannot be claimed."""
    bench = Bench()
    bench.enable(S, 10, priority=0)

    bench.plic.set_irq(10, True)

    assert not bench.levels["S"]
    assert bench.claim(S) == 0


@pytest.mark.parametrize(("threshold", "level"), [(2, True), (3, False), (7, False)])
def test_plic_threshold_masks_priorities_up_to_it_but_not_claims(threshold: int, level: bool) -> None:
    """Chapters 7 and 8: only the notification is masked."""
    bench = Bench()
    bench.enable(S, 10, priority=3)
    bench.threshold(S, threshold)

    bench.plic.set_irq(10, True)

    assert bench.levels["S"] is level
    assert bench.claim(S) == 10


def test_plic_claims_come_by_priority_then_by_number() -> None:
    """Highest priority first, lowest number among equals, 0 when none is left."""
    bench = Bench()
    for source, priority in ((40, 2), (7, 1), (5, 1), (95, 7)):
        bench.enable(S, source, priority)
        bench.plic.set_irq(source, True)

    assert [bench.claim(S) for _ in range(5)] == [95, 40, 5, 7, 0]


def test_plic_level_still_high_after_completion_pends_again() -> None:
    """What U-Boot and Linux see of a device that was not served."""
    bench = Bench()
    bench.enable(S, 10)
    bench.plic.set_irq(10, True)

    first = bench.claim(S)
    served = (bench.levels["S"], bench.load(PENDING))
    bench.complete(S, 10)

    assert (first, served) == (10, (False, 0))
    assert bench.edges == [("S", True), ("S", False), ("S", True)]


def test_plic_level_fallen_before_completion_does_not_pend_again() -> None:
    """The usual case: the handler quiets the device, then completes."""
    bench = Bench()
    bench.enable(S, 10)
    bench.plic.set_irq(10, True)
    bench.claim(S)

    bench.plic.set_irq(10, False)
    bench.complete(S, 10)

    assert bench.load(PENDING) == 0
    assert not bench.levels["S"]


def test_plic_level_fallen_before_the_claim_stays_pending() -> None:
    """The gateway has passed the request on; the handler finds out that nothing is to do."""
    bench = Bench()
    bench.enable(S, 10)
    bench.plic.set_irq(10, True)

    bench.plic.set_irq(10, False)

    assert bench.claim(S) == 10


def test_plic_source_in_service_is_not_passed_on_again() -> None:
    """Between claim and completion the gateway holds further requests back."""
    bench = Bench()
    bench.enable(S, 10)
    bench.plic.set_irq(10, True)
    bench.claim(S)

    bench.plic.set_irq(10, False)
    bench.plic.set_irq(10, True)

    assert bench.load(PENDING) == 0


def test_plic_claim_by_one_context_takes_it_from_the_other() -> None:
    """Both are notified, one gets it."""
    bench = Bench()
    bench.enable(M, 10)
    bench.enable(S, 10)
    bench.plic.set_irq(10, True)

    claims = (bench.claim(M), bench.claim(S))

    assert claims == (10, 0)
    assert bench.levels == {"M": False, "S": False}


@pytest.mark.parametrize("source", [0, 11, 96, 97, 0xFFFF_FFFF])
def test_plic_completion_of_what_is_not_enabled_is_ignored(source: int) -> None:
    """Chapter 9."""
    bench = Bench()
    bench.enable(S, 10)
    bench.plic.set_irq(10, True)
    bench.claim(S)

    bench.complete(S, source)

    assert bench.load(PENDING) == 0


def test_plic_narrow_access_has_no_claim_by_accident() -> None:
    """Byte reads behind the first byte of the claim register claim nothing; narrow writes are ignored."""
    bench = Bench()
    bench.enable(S, 10, priority=5)
    bench.plic.set_irq(10, True)

    upper = bench.plic.read(0x201005, 1, 0)
    bench.plic.write(4 * 10, 1, 0, 0)

    assert upper == 0
    assert bench.plic.read(4 * 10, 1, 0) == 5
    assert bench.claim(S) == 10


def test_plic_line_of_a_source_that_is_not_there_is_our_error() -> None:
    """Wiring a machine wrongly fails at once."""
    with pytest.raises(ValueError, match=r"1\.\.96"):
        Bench().plic.line(97)


def test_plic_restored_drives_its_outputs() -> None:
    """A claimed source and a pending one survive."""
    bench, twin = Bench(), Bench()
    bench.enable(S, 10)
    bench.enable(S, 80)
    bench.plic.set_irq(10, True)
    bench.claim(S)
    bench.plic.set_irq(80, True)

    twin.plic.restore(bench.plic.state())
    twin.complete(S, 10)

    assert twin.levels == {"M": False, "S": True}
    assert [twin.claim(S), twin.claim(S), twin.claim(S)] == [10, 80, 0]
