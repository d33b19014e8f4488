"""The machines that a topology may name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from iovirt_dist.hypervisor.machines.machine import Machine, MachineParts
from iovirt_dist.hypervisor.machines.pc import build_pc
from iovirt_dist.hypervisor.machines.system_calls import build_without_machine, take_system_calls
from iovirt_dist.hypervisor.machines.virt import build_virt
from iovirt_dist.hypervisor.machines.vm import build_vm
from iovirt_dist.platform.level import Level

NO_MACHINE = "none"
"""What a program has."""

_BUILDERS: Mapping[str, Callable[[MachineParts], Machine]] = {"pc": build_pc, "virt": build_virt, "vm": build_vm}


def build_machine(name: str, parts: MachineParts) -> Machine:
    """Build a machine by the topology's word for it, or `NO_MACHINE`.

    Raises:
        ConfigError: The disk is none that the machine can have.
    """
    if name == NO_MACHINE:
        return build_without_machine(parts)
    machine = _BUILDERS[name](parts)
    return take_system_calls(machine, parts) if parts.level is Level.SYSCALL else machine
