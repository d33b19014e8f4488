"""The machines that a topology may name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from iovirt_dist.hypervisor.machines.machine import Machine, MachineParts
from iovirt_dist.hypervisor.machines.pc import build_pc
from iovirt_dist.hypervisor.machines.virt import build_virt

BUILDERS: Mapping[str, Callable[[MachineParts], Machine]] = {"pc": build_pc, "virt": build_virt}
"""Builders by the topology's word for the machine."""
