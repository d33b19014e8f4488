"""The power-off device of `virt`."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.vdev.syscon import Syscon


def build() -> tuple[Syscon, list[str]]:
    """A device and the log of what it asked for."""
    log: list[str] = []
    return Syscon(lambda code: log.append(f"off {code}"), lambda: log.append("reboot")), log


@pytest.mark.parametrize(
    ("value", "width", "asked"),
    [
        (0x5555, 4, ["off 0"]),
        (0x3333, 4, ["off 0"]),
        (0x0007_3333, 4, ["off 7"]),
        (0x7777, 4, ["reboot"]),
        (0x5555, 2, ["off 0"]),
        (0x1234, 4, []),
        (0x55, 1, []),
    ],
)
def test_syscon_write_does_what_the_low_half_says(value: int, width: int, asked: list[str]) -> None:
    """PASS, FAIL with a code, RESET; all else is ignored."""
    device, log = build()

    device.write(0, width, value, 0)

    assert log == asked


def test_syscon_reads_zero_for_drivers_that_modify() -> None:
    """U-Boot's syscon driver reads, changes and writes back."""
    device, log = build()

    device.write(0, 4, device.read(0, 4, 0) & ~0xFFFF | 0x5555, 0)

    assert log == ["off 0"]


def test_syscon_other_offsets_do_nothing() -> None:
    """One register only."""
    device, log = build()

    device.write(4, 4, 0x5555, 0)

    assert log == []
