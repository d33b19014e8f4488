"""From a topology's guest to its CPU: programs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.machines import build_cpu
from iovirt_dist.guest.program.architecture import I386, RISCV64, X86_64, Architecture
from iovirt_dist.guest.program.cpu import ProgramCpu
from iovirt_dist.guest.vcpu import Exit, ExitReason
from iovirt_dist.ids import GuestName, ProcessName
from iovirt_dist.topology.specs import ProgramSpec
from tests.unit.guest.program.support import ProgramBus, program

EXITS_WITH_ARGC = {
    X86_64: "b83c000000 8b3c24 0f05",
    I386: "b801000000 8b1c24 cd80",
    RISCV64: "9308d005 03350100 73000000",
}


def spec(image: Path, abi: str) -> ProgramSpec:
    """A program with three arguments."""
    return ProgramSpec(
        name=GuestName("prog"),
        hypervisor=ProcessName("hv0"),
        restart="never",
        memory_bytes=1 << 20,
        image=image,
        image_name="program",
        arguments=("program", "a", "b"),
        environment=("A=1",),
        abi=abi,
        files={},
    )


@pytest.mark.parametrize("architecture", list(EXITS_WITH_ARGC))
def test_program_guest_is_built_for_its_architecture(tmp_path: Path, architecture: Architecture) -> None:
    """The file decides the CPU; arguments arrive."""
    image = tmp_path / "program"
    image.write_bytes(program(architecture, EXITS_WITH_ARGC[architecture]))
    cpu = build_cpu(spec(image, architecture.abi), ProgramBus(architecture.abi))
    assert cpu.run() == Exit(ExitReason.STOPPED, "exited with status 3")


def test_program_guest_gets_the_same_random_bytes_each_time(tmp_path: Path) -> None:
    """They follow from its name."""
    image = tmp_path / "program"
    image.write_bytes(program(X86_64, "ebfe"))
    cpu = build_cpu(spec(image, "auto"), ProgramBus(X86_64.abi))
    assert isinstance(cpu, ProgramCpu)
    top = X86_64.user_end - 4096
    assert hashlib.sha256(b"prog").digest()[:16] in cpu.read_memory(top - 512, 512)


def test_program_guest_of_another_abi_is_one_line(tmp_path: Path) -> None:
    """The topology names one ABI, the file is for another."""
    image = tmp_path / "program"
    image.write_bytes(program(I386, "90"))
    with pytest.raises(ImageError, match="a program for linux_i386, not for linux_x86_64"):
        build_cpu(spec(image, "linux_x86_64"), ProgramBus(X86_64.abi))
