"""Memory map and interrupt numbers of the `virt` machine (riscv64).

The map is that of QEMU's machine of the same name, for which firmware and kernels are built ("'virt' Generic Virtual
Platform", hw/riscv/virt.c, `virt_memmap`), as far as devices exist here.
"""

from __future__ import annotations

from typing import Final

RAM_BASE: Final = 0x8000_0000
PAYLOAD_BASE: Final = RAM_BASE + 0x20_0000
"""Where OpenSBI's ``fw_jump`` for 64-bit systems enters S mode (its FW_JUMP_OFFSET)."""

TEST_BASE: Final = 0x0010_0000
RTC_BASE: Final = 0x0010_1000
CLINT_BASE: Final = 0x0200_0000
PLIC_BASE: Final = 0x0C00_0000
UART_BASE: Final = 0x1000_0000
VIRTIO_BASE: Final = 0x1000_1000
VIRTIO_STRIDE: Final = 0x1000
VIRTIO_SLOTS: Final = 8

PLIC_SOURCES: Final = 95
"""Highest interrupt source."""
VIRTIO_IRQ: Final = 1
"""Source of slot 0; slot n has n more."""
UART_IRQ: Final = 10
RTC_IRQ: Final = 11

TIMEBASE_HZ: Final = 10_000_000
UART_CLOCK_HZ: Final = 3_686_400

POWEROFF_VALUE: Final = 0x5555
REBOOT_VALUE: Final = 0x7777

MSIP: Final = 3
"""CPU inputs are numbered as their bits in ``mip`` (privileged ISA 1.12, section 3.1.9)."""
MTIP: Final = 7
SEIP: Final = 9
MEIP: Final = 11
