"""A machine as the hypervisor sees it: named virtual devices, their map, and the way to the CPU's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from iovirt_dist.drivers.backend import (
    DiskBackend,
    DiskClient,
    EntropyBackend,
    EntropyClient,
    NetworkBackend,
    NetworkClient,
    TerminalBackend,
    TerminalClient,
)
from iovirt_dist.hypervisor.address_map import AddressMap
from iovirt_dist.hypervisor.intercept.driver import DriverInterception
from iovirt_dist.hypervisor.intercept.interceptor import Interceptor
from iovirt_dist.hypervisor.intercept.syscall import SystemCallInterception
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.hypervisor.vdev.device import Device
from iovirt_dist.platform.level import Level
from iovirt_dist.step import Tracer
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.messages import PowerAction

RequestPower = Callable[[PowerAction, str], None]
"""A device asks that the machine be switched off or reset: action and which device asked."""


@dataclass(frozen=True, slots=True)
class MachineParts:
    """What a machine is built from.

    Attributes:
        guest: The guest's name.
        memory_bytes: RAM.
        disk: Backend of the first disk, None without one.
        terminal: Backend of the first serial port; it takes everything if there is nothing behind the port.
        wall_ns: Wall clock at power-on, ns since 1970 UTC.
        power: How a device switches the machine off.
        level: Where the guest's disk is intercepted, and so which virtual device stands for it.
        console: Backend of the virtio console, None without one.
        entropy: Backend of the virtio entropy device, None without one.
        next_generation: Gives each armed queue its number, over all lives of the machine.
        tracer: Takes what a person may want to see of the guest's I/O.
        abi: Whose system calls are taken at the system-call level.
        files: What a program sees besides its devices: content by absolute path, read-only.
        network: Backend of the virtio network card, None without one.
        disk_queues: Request queues of a virtio disk, 1..8.
        terminal_connected: Whether there is anything behind the first serial port.
    """

    guest: str
    memory_bytes: int
    disk: DiskBackend | None
    terminal: TerminalBackend
    wall_ns: int
    power: RequestPower
    level: Level = Level.OPERATION
    console: TerminalBackend | None = None
    entropy: EntropyBackend | None = None
    next_generation: Callable[[], int] = count(1).__next__
    tracer: Tracer = field(default_factory=Tracer)
    abi: str = "linux_i386"
    files: Mapping[str, Buffer] = field(default_factory=dict)
    network: NetworkBackend | None = None
    disk_queues: int = 1
    terminal_connected: bool = True


class Timed(Protocol):
    """Part of a machine that does things by itself when their time comes."""

    def deadline_ns(self) -> int | None:
        """When `advance` must be called next, virtual time of the machine; None while nothing is timed."""
        ...

    def advance(self, now_ns: int) -> None:
        """Do what is due."""
        ...


@dataclass(frozen=True, slots=True)
class Machine:
    """A built machine.

    Attributes:
        address_map: Where the devices answer.
        lines: The CPU's interrupt inputs.
        devices: Every device that carries state, by name.
        timed: Those of them that have deadlines.
        terminal: What takes the terminal backend's input, None for nothing.
        terminal_name: Name of that device's range, empty without one.
        disk: What takes the disk backend's completions, None without a disk.
        acknowledge: The interrupt controller's INTA cycle; absent on machines without one.
        interceptors: What takes messages besides traps.
        console: What takes the virtio console's input, None without one.
        entropy: What takes the entropy backend's bytes, None without one.
        network: What takes the network backend's frames, None without one.
        driver_level: What takes the messages of its virtio devices, and counts them; also one of `interceptors`.
        syscall_level: What carries out its programs' system calls; also one of `interceptors`.
    """

    address_map: AddressMap
    lines: InterruptLines
    devices: Mapping[str, Device]
    timed: tuple[Timed, ...]
    terminal: TerminalClient | None
    terminal_name: str
    disk: DiskClient | None
    acknowledge: Callable[[], int] | None = None
    interceptors: tuple[Interceptor, ...] = ()
    console: TerminalClient | None = None
    entropy: EntropyClient | None = None
    network: NetworkClient | None = None
    driver_level: DriverInterception | None = None
    syscall_level: SystemCallInterception | None = None

    def deadline_ns(self) -> int | None:
        """Earliest deadline of any device."""
        due = [at for device in self.timed if (at := device.deadline_ns()) is not None]
        return min(due, default=None)

    def advance(self, now_ns: int) -> None:
        """Let all timed devices do what is due."""
        for device in self.timed:
            at = device.deadline_ns()
            if at is not None and at <= now_ns:
                device.advance(now_ns)
