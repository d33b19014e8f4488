"""Unmodified U-Boot on our CPU with the least of devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.guest.loader.raw import load_rom
from iovirt_dist.guest.vcpu import Exit, ExitReason
from tests.unit.guest.x86.support import MIB, FirmwareBus, make_cpu

ROM = Path("/usr/lib/u-boot/qemu-x86/u-boot.rom")


@pytest.mark.firmware
@pytest.mark.skipif(not ROM.exists(), reason="package u-boot-qemu is not installed")
def test_u_boot_boots_to_its_prompt() -> None:
    """From the reset vector through protected mode and relocation to the command line."""
    bus = FirmwareBus()
    cpu = make_cpu(load_rom(ROM.read_bytes(), str(ROM)), bus, 128 * MIB)
    bus.on_prompt = cpu.kick
    assert cpu.run() == Exit(ExitReason.KICKED)
    assert b"DRAM:  128 MiB" in bus.console
    assert bus.console.endswith(b"\n=> ")
    assert cpu.counters() == (0, 0, 0)
