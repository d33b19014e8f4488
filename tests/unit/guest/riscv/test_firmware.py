"""Unmodified third-party firmware on the RISC-V CPU, with local devices and the generated device tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from iovirt_dist.guest.loader import LoadedImage, load_path, virt_target
from iovirt_dist.guest.riscv.vcpu import RiscvCpu
from iovirt_dist.guest.unicorn.riscv import UnicornRiscv
from tests.unit.guest.riscv.local_board import LocalBoard

pytestmark = pytest.mark.firmware

MEMORY_BYTES = 128 << 20
PAYLOAD = 0x8020_0000
TIMEOUT_S = 30.0
UBOOT = Path("/usr/lib/u-boot/qemu-riscv64/u-boot.bin")
UBOOT_SUPERVISOR = Path("/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin")
OPENSBI = Path("/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.bin")

needs_uboot = pytest.mark.skipif(not UBOOT.exists(), reason=f"{UBOOT} is missing: install package u-boot-qemu")
needs_supervisor_uboot = pytest.mark.skipif(
    not UBOOT_SUPERVISOR.exists(), reason=f"{UBOOT_SUPERVISOR} is missing: install package u-boot-qemu"
)
needs_opensbi = pytest.mark.skipif(not OPENSBI.exists(), reason=f"{OPENSBI} is missing: install package opensbi")


def board_with(*images: LoadedImage) -> tuple[LocalBoard, RiscvCpu]:
    """Build a machine around images."""
    board = LocalBoard()
    return board, RiscvCpu(UnicornRiscv, board, images, MEMORY_BYTES)


@needs_uboot
def test_uboot_in_machine_mode_reaches_its_prompt_and_powers_off() -> None:
    """U-Boot finds memory, console and power switch in our device tree."""
    board, cpu = board_with(load_path(UBOOT, virt_target(MEMORY_BYTES)))
    board.typed += b"   "  # one of them stops the autoboot

    board.run_until(cpu, b"=> ", TIMEOUT_S)
    prompt = board.output.decode("latin-1")
    board.typed += b"fdt addr ${fdtcontroladdr}; fdt print /chosen\rpoweroff\r"
    board.run_until(cpu, b"<never printed>", TIMEOUT_S)

    assert "DRAM:  128 MiB" in prompt
    assert "Model: iovirt,virt" in prompt
    assert "serial@10000000" in board.output.decode("latin-1")
    assert board.powered_off == 0x5555


@needs_supervisor_uboot
@needs_opensbi
def test_opensbi_starts_uboot_in_supervisor_mode() -> None:
    """OpenSBI emulates rdtime, delegates and hands over; U-Boot reaches its prompt and asks SBI for its version."""
    target = virt_target(MEMORY_BYTES)
    board, cpu = board_with(
        load_path(OPENSBI, target), load_path(UBOOT_SUPERVISOR, target, image_format="flat", address=PAYLOAD)
    )
    board.typed += b"   "  # one of them stops the autoboot

    board.run_until(cpu, b"=> ", TIMEOUT_S)
    board.typed += b"sbi\r"
    board.run_until(cpu, b"SBI 1.0", TIMEOUT_S)

    output = board.output.decode("latin-1")
    assert "Platform Timer Device     : aclint-mtimer @ 10000000Hz" in output
    assert "Boot HART PMP Count       : 16" in output
    assert "=> " in output
    assert "SBI 1.0" in output
    assert cpu.counters().exceptions > 0
