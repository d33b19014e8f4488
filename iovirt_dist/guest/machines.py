"""From what a topology says of a guest to a CPU with its image loaded."""

from __future__ import annotations

import hashlib

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.bus import Bus
from iovirt_dist.guest.loader.image import pc_target, virt_target
from iovirt_dist.guest.loader.path import load_path
from iovirt_dist.guest.program.build import build_program
from iovirt_dist.guest.program.stack import RANDOM_BYTES
from iovirt_dist.guest.riscv.vcpu import RiscvCpu
from iovirt_dist.guest.unicorn.riscv import UnicornRiscv
from iovirt_dist.guest.unicorn.x86 import UnicornX86
from iovirt_dist.guest.vcpu import VirtualCpu
from iovirt_dist.guest.x86.vcpu import X86Cpu
from iovirt_dist.platform import virt
from iovirt_dist.topology.specs import MachineSpec, ProgramSpec


def build_cpu(spec: MachineSpec | ProgramSpec, bus: Bus) -> VirtualCpu:
    """Build the CPU of a guest.

    Args:
        spec: Machine, memory and images; or a program.
        bus: The CPU's way out.

    Raises:
        ImageError: An image is missing or cannot run on this machine.
    """
    if isinstance(spec, ProgramSpec):
        return _build_program(spec, bus)
    return (_build_pc if spec.machine == "pc" else _build_virt)(spec, bus)


def _build_pc(spec: MachineSpec, bus: Bus) -> VirtualCpu:
    if spec.payload is not None:
        raise ImageError("machine pc takes no payload", f"guest {spec.name}", "remove the key 'payload'")
    target = pc_target(spec.memory_bytes)
    image = load_path(spec.image, target, image_format=spec.image_format, command_line=spec.command_line)
    return X86Cpu(UnicornX86, bus, image, spec.memory_bytes)


def _build_virt(spec: MachineSpec, bus: Bus) -> VirtualCpu:
    target = virt_target(spec.memory_bytes)
    images = [load_path(spec.image, target, image_format=spec.image_format)]
    if spec.payload is not None:
        images.append(load_path(spec.payload, target, address=virt.PAYLOAD_BASE))
    return RiscvCpu(UnicornRiscv, bus, tuple(images), spec.memory_bytes, spec.command_line)


def _build_program(spec: ProgramSpec, bus: Bus) -> VirtualCpu:
    """Build a program's CPU; its AT_RANDOM depends on the guest's name alone, so that each run is like the last."""
    random = hashlib.sha256(spec.name.encode()).digest()[:RANDOM_BYTES]
    return build_program(
        spec.image, spec.arguments, spec.environment, bus, random, abi=spec.abi, memory_bytes=spec.memory_bytes
    )
