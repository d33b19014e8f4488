"""Whether an I/O instruction completes or faults in the guest."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.privilege import ALLOWED, GENERAL_PROTECTION, refusal
from iovirt_dist.wire.messages import Trap, TrapKind


def port_out(privilege: int, iopl: int, *, permitted: bool = False) -> Trap:
    """An OUT with the facts that the CPU reports."""
    return Trap(1, TrapKind.PORT_OUT, 0x3F8, 1, 1, 0, privilege, iopl, permitted)


@pytest.mark.parametrize("iopl", range(4))
@pytest.mark.parametrize("cpl", range(4))
def test_port_access_is_allowed_up_to_iopl_only(cpl: int, iopl: int) -> None:
    """CPL <= IOPL, all sixteen combinations (Intel SDM volume 1, section 19.5.1)."""
    expected = {True: ALLOWED, False: GENERAL_PROTECTION}[cpl <= iopl]

    assert refusal(port_out(cpl, iopl)) == expected


def test_port_access_above_iopl_is_allowed_by_the_permission_bitmap() -> None:
    """The TSS lets a user process have ports of its own (section 19.5.2)."""
    assert refusal(port_out(3, 0, permitted=True)) == ALLOWED


@pytest.mark.parametrize("kind", [TrapKind.MMIO_LOAD, TrapKind.MMIO_STORE, TrapKind.INTERRUPT_ACKNOWLEDGE])
def test_access_that_is_no_port_access_passes_at_any_level(kind: TrapKind) -> None:
    """Page tables have allowed loads and stores already; the acknowledge cycle is the CPU's own."""
    assert refusal(Trap(1, kind, 0x1000_0000, 1, 1, 0, 3)) == ALLOWED
