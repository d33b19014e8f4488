"""The power-off device of the `virt` machine: SiFive's test finisher (``sifive,test0``), one 32-bit register.

The low half says what to do and the high half gives the code of a failure (SiFive test device, TEST_FINISHER). The
device tree maps ``syscon-poweroff`` and ``syscon-reboot`` onto it.
"""

from __future__ import annotations

from collections.abc import Callable

from iovirt_dist.hypervisor.vdev.device import Quiet, State

SYSCON_BYTES = 0x1000
FINISHER_FAIL = 0x3333
FINISHER_PASS = 0x5555
FINISHER_RESET = 0x7777


class Syscon(Quiet):
    """A register that ends the machine. It keeps nothing and reads 0, as read-modify-write drivers expect.

    Args:
        power_off: Called with 0 for PASS, with the code 0..65535 for FAIL.
        reboot: Called for RESET.
    """

    max_width = 4

    def __init__(self, power_off: Callable[[int], None], reboot: Callable[[], None]) -> None:
        self._power_off = power_off
        self._reboot = reboot

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Every register reads 0."""
        return 0

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write the finisher; 16-bit writes carry no code. All else is ignored."""
        if offset != 0 or width < 2:
            return
        action = value & 0xFFFF
        if action == FINISHER_PASS:
            self._power_off(0)
        elif action == FINISHER_FAIL:
            self._power_off(value >> 16 & 0xFFFF)
        elif action == FINISHER_RESET:
            self._reboot()

    def state(self) -> State:
        """There is none."""
        return {}

    def restore(self, state: State) -> None:
        """There is nothing to take over."""
