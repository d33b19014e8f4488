"""The serial console of a foreign VMM: bytes both ways, and past the death of who carries them."""

from __future__ import annotations

import pytest

from iovirt_dist.gateway.serial_line import MAX_WAITING_BYTES
from iovirt_dist.gateway.vm_core import SerialPrinted
from tests.unit.gateway.vm_rig import CONSOLE, GATEWAY, HYPERVISOR, VmRig


@pytest.fixture
def rig() -> VmRig:
    """A gateway whose machine has power."""
    made = VmRig(bytes(4096), serial=True)
    made.settle()
    return made


def shown(rig: VmRig) -> bytes:
    """What the terminal shows."""
    return rig.terminals.output(GATEWAY)


def waiting(rig: VmRig) -> int:
    """How many bytes that the VMM has printed are with the gateway."""
    serial = rig.gateway.core.serial
    assert serial is not None
    return len(serial.waiting)


def test_what_the_vmm_prints_is_at_the_terminal(rig: VmRig) -> None:
    """In order, however it came."""
    for part in (b"Linux ", b"version\n", bytes(range(256)) * 40):
        rig.gateway.happen(SerialPrinted(part))

    rig.run_until(lambda: len(shown(rig)) >= 14 + 40 * 256, what="the last byte")

    assert shown(rig) == b"Linux version\n" + bytes(range(256)) * 40
    assert waiting(rig) == 0


def test_what_is_typed_reaches_the_vmm(rig: VmRig) -> None:
    """Each time that somebody types."""
    rig.terminals.type(GATEWAY, b"root\n")
    rig.run_until(lambda: rig.vmm.typed == b"root\n", what="a login")
    rig.terminals.type(GATEWAY, b"ls\n")
    rig.run_until(lambda: rig.vmm.typed == b"root\nls\n", what="a command")


@pytest.mark.parametrize("victim", [HYPERVISOR, CONSOLE])
def test_what_is_printed_while_somebody_is_away_is_shown_once_he_is_back(rig: VmRig, victim: str) -> None:
    """Nothing is lost; what was under way may be shown twice where the hypervisor has died."""
    rig.gateway.happen(SerialPrinted(b"before\n"))
    rig.run_until(lambda: shown(rig) == b"before\n", what="the first line")
    rig.kill(victim)
    rig.gateway.happen(SerialPrinted(b"meanwhile\n"))
    rig.run_for(2_000_000_000)
    rig.start(victim)
    rig.run_until(lambda: shown(rig).endswith(b"meanwhile\n"), what="the second line")

    rig.gateway.happen(SerialPrinted(b"after\n"))
    rig.run_until(lambda: shown(rig).endswith(b"after\n"), what="the third line")

    assert shown(rig).count(b"meanwhile\n") == 1
    assert waiting(rig) == 0


def test_line_is_full_while_nobody_takes_what_is_printed(rig: VmRig) -> None:
    """So that no more is read from the VMM; it is not once the hypervisor is back."""
    serial = rig.gateway.core.serial
    assert serial is not None
    rig.kill(HYPERVISOR)
    rig.gateway.happen(SerialPrinted(b"x" * (MAX_WAITING_BYTES - 1)))
    before = serial.full
    rig.gateway.happen(SerialPrinted(b"y"))
    after = serial.full
    rig.start(HYPERVISOR)
    rig.run_until(lambda: len(shown(rig)) == MAX_WAITING_BYTES, what="all of it")

    assert (before, after, serial.full) == (False, True, False)
