"""From what a topology says of a program guest to a CPU with the program loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from iovirt_dist.abi.registry import ABIS
from iovirt_dist.guest.bus import Bus
from iovirt_dist.guest.program.architecture import I386, RISCV64, X86_64
from iovirt_dist.guest.program.cpu import DEFAULT_MEMORY_BYTES, Program, ProgramCpu
from iovirt_dist.guest.program.elf import load_program
from iovirt_dist.guest.program.engine import UserEngine
from iovirt_dist.guest.unicorn.user_i386 import UnicornUserI386
from iovirt_dist.guest.unicorn.user_riscv64 import UnicornUserRiscv64
from iovirt_dist.guest.unicorn.user_x86_64 import UnicornUserX8664
from iovirt_dist.guest.vcpu import VirtualCpu

ENGINES: Final[dict[str, Callable[[int], UserEngine]]] = {
    X86_64.abi: UnicornUserX8664,
    I386.abi: UnicornUserI386,
    RISCV64.abi: UnicornUserRiscv64,
}
"""What builds the CPU for programs of an ABI."""


def build_program(
    path: Path,
    arguments: Sequence[str],
    environment: Sequence[str],
    bus: Bus,
    random: bytes,
    *,
    abi: str = "auto",
    memory_bytes: int = DEFAULT_MEMORY_BYTES,
) -> VirtualCpu:
    """Build the CPU of a program guest.

    Args:
        path: A static ELF program.
        arguments: argv, the program's own name included; empty for the file's name alone.
        environment: ``NAME=value`` strings.
        bus: The CPU's way to the hypervisor.
        random: 16 bytes for AT_RANDOM.
        abi: Name of the ABI that the program must be for; ``auto`` for what it is for.
        memory_bytes: What it may have mapped besides its own segments and stack.

    Raises:
        ImageError: The file is missing or cannot be run.
    """
    image = load_program(path, abi)
    command = tuple(arguments) or (path.name,)
    program = Program(image, f"/{path.name}", command, tuple(environment), random, memory_bytes)
    return ProgramCpu(ENGINES[image.architecture.abi], bus, program, ABIS[image.architecture.abi])
