"""The bundled guest OS when it has nothing to do: no timer, no trap."""

from __future__ import annotations

from iovirt_dist.images import guestos_path
from iovirt_dist.testing.rig import Rig

SECOND_NS = 1_000_000_000


def _deadline_ns(rig: Rig) -> int | None:
    machine = rig.vm().machine
    assert machine is not None
    return machine.deadline_ns()


def test_guestos_whose_programs_have_ended_makes_no_trap_and_sets_no_timer() -> None:
    """Ten idle seconds cost nothing, on either side: nobody sleeps with a deadline, so the 8254 is stopped."""
    rig = Rig(disk=bytes(64 << 10))
    rig.boot(guestos_path(), "run=job,poke kib=4 result=none")
    rig.run_cpus(lambda: b"init: all done\r\n" in rig.console.output)
    settled_ns = rig.now_ns() + SECOND_NS
    rig.run_cpus(lambda: rig.now_ns() >= settled_ns)
    before = tuple(rig.guest().core.counts.traps)

    rig.run_cpus(lambda: rig.now_ns() >= settled_ns + 10 * SECOND_NS)

    assert _deadline_ns(rig) is None
    assert tuple(rig.guest().core.counts.traps) == before


def test_guestos_starts_its_timer_for_a_deadline_and_stops_it_again() -> None:
    """A disk request of ATA has a deadline; the keyboard has none."""
    rig = Rig(disk=bytes(64 << 10))
    rig.boot(guestos_path(), "run=echo,job kib=4 result=none")
    rig.run_cpus(lambda: b"type lines" in rig.console.output)
    idle_ns = rig.now_ns() + SECOND_NS
    rig.run_cpus(lambda: rig.now_ns() >= idle_ns)
    while_echo = _deadline_ns(rig)

    rig.console.type(b"exit\r")
    rig.run_cpus(lambda: b"job: read" in rig.console.output)
    while_job = _deadline_ns(rig)
    rig.run_cpus(lambda: rig.now_ns() >= idle_ns + 2 * SECOND_NS)

    assert while_echo is None
    assert while_job is not None
    assert _deadline_ns(rig) is None
