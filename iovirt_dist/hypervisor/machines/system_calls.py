"""What stands in front of a guest's devices when its programs' system calls are taken."""

from __future__ import annotations

from dataclasses import replace

from iovirt_dist.hypervisor.address_map import AddressMap
from iovirt_dist.hypervisor.intercept.syscall import SystemCallInterception
from iovirt_dist.hypervisor.intercept.syscall_parts import Mode, SystemCallParts
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.hypervisor.machines.machine import Machine, MachineParts


def build_without_machine(parts: MachineParts) -> Machine:
    """Build what a program has instead of a machine: nothing answers at any address, and all its calls are taken.

    Args:
        parts: Backends, files, ABI and wall clock.
    """
    lines = InterruptLines()
    calls = _interception(parts, Mode.PROGRAM, lines)
    return Machine(
        address_map=AddressMap(parts.guest),
        lines=lines,
        devices={},
        timed=(calls,),
        terminal=calls,
        terminal_name="",
        disk=calls,
        interceptors=(calls,),
        entropy=calls,
        syscall_level=calls,
    )


def take_system_calls(machine: Machine, parts: MachineParts) -> Machine:
    """Return a machine whose programs' calls on the disk are taken before its kernel sees them."""
    calls = _interception(parts, Mode.MACHINE, machine.lines)
    return replace(
        machine,
        disk=calls,
        interceptors=(*machine.interceptors, calls),
        timed=(*machine.timed, calls),
        syscall_level=calls,
    )


def _interception(parts: MachineParts, mode: Mode, lines: InterruptLines) -> SystemCallInterception:
    tracer = parts.tracer

    def observe(process: int, path: str, offset: int, length: int, direction: str) -> None:
        """All that the hypervisor knows at the system-call level."""
        if tracer.on:
            # "process" is the one that makes the point, as in all of them
            tracer.point("system_call", caller=process, file=path, offset=offset, length=length, direction=direction)

    return SystemCallInterception(
        SystemCallParts(
            abi=parts.abi,
            mode=mode,
            lines=lines,
            node=parts.guest,
            disk=parts.disk,
            terminal=parts.terminal if mode is Mode.PROGRAM else None,
            entropy=parts.entropy if mode is Mode.PROGRAM else None,
            files=parts.files,
            wall_ns=parts.wall_ns,
            memory_bytes=parts.memory_bytes,
            observer=observe,
        )
    )
