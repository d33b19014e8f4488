"""Values of 64 bits behind two registers."""

from __future__ import annotations

from iovirt_dist.hypervisor.vdev.registers import with_half


def test_half_is_replaced_and_the_other_stays() -> None:
    """The high one and the low one."""
    value = 0x1111_2222_3333_4444

    assert with_half(value, True, 0xFFFF_FFFF) == 0xFFFF_FFFF_3333_4444
    assert with_half(value, False, 0) == 0x1111_2222_0000_0000
