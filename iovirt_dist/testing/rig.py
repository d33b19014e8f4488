"""The whole ring in one process: guests, hypervisor and controllers in virtual time, with faults on request.

    rig = Rig(disk=b"..." , faults=Faults(loss=0.1), seed=7)
    guest = rig.guest()
    guest.outb(0x3F8, ord("A"))          # one OUT: trap, hypervisor, UART, console controller
    rig.settle()
    assert rig.console.output == b"A"
    print(rig.messages)                  # every message, in order

The cores are those of the real processes; only sockets, clock and media are replaced. One run equals the next: time is
virtual, luck is seeded, and every message takes `delay_ns`, so that a guest that polls lets time pass.

Nodes are ``hypervisor``, ``block``, ``console`` and the guests by name. `kill`, `start`, `stop`, `restart`, `cut` and
`heal` break them and their links on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from iovirt_dist.controllers.block.core import BlockController
from iovirt_dist.controllers.block.extents import Durability, Extent, ExtentTable
from iovirt_dist.controllers.block.runner import BlockRunner
from iovirt_dist.controllers.console.core import ConsoleController, ConsoleEvent
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.faults.link import Faults
from iovirt_dist.guest.bus import Bus
from iovirt_dist.guest.vcpu import VirtualCpu
from iovirt_dist.hypervisor.core import Hypervisor
from iovirt_dist.hypervisor.plan import Attachment, GuestPlan
from iovirt_dist.hypervisor.virtual_machine import VirtualMachine
from iovirt_dist.ids import GuestName, ProcessName
from iovirt_dist.platform.level import Level
from iovirt_dist.platform.virt import RAM_BASE
from iovirt_dist.testing.guest import RigGuest
from iovirt_dist.testing.nodes import ControllerNode, HypervisorNode, Node
from iovirt_dist.testing.simulation import SECOND_NS, Simulation
from iovirt_dist.testing.storage import SECTOR_BYTES, MemoryStorage
from iovirt_dist.testing.terminal import MemoryTerminals
from iovirt_dist.testing.trace import DEFAULT_CAPACITY
from iovirt_dist.testing.vcpu import RigCpu, RigCpus
from iovirt_dist.topology.specs import MachineSpec
from iovirt_dist.transport.memory import LinkModel

HYPERVISOR, BLOCK, CONSOLE = "hypervisor", "block", "console"

MESSAGE_NS = 50_000
"""Default time of a message: half of a measured round trip between two processes (105 us)."""

WALL_NS = 1_767_225_600_000_000_000
"""Default wall clock at virtual time 0: 2026-01-01 00:00 UTC."""

ImageFormat: TypeAlias = Literal["auto", "elf", "multiboot", "flat", "rom"]

_POWER_LIMIT_NS = 600 * SECOND_NS


class RigConsole:
    """One guest's terminal.

    Args:
        name: The terminal, named as the guest.
        terminals: Gives the console controller's terminals, also those of its earlier lives.
    """

    def __init__(self, name: str, terminals: Callable[[], Sequence[MemoryTerminals]]) -> None:
        self._name = name
        self._terminals = terminals

    @property
    def output(self) -> bytes:
        """Everything that the guest has written and that has reached the terminal."""
        return b"".join(terminals.output(self._name) for terminals in self._terminals())

    def type(self, data: bytes) -> None:
        """Type: the input is under way when this returns.

        Raises:
            LocalError: The terminal is not open yet.
        """
        try:
            self._terminals()[-1].type(self._name, data)
        except (KeyError, IndexError):
            raise LocalError("the terminal is not open", self._name, "settle first") from None


class Rig(Simulation):
    """A simulated system.

    Args:
        machine: Machine type of every guest: ``pc`` or ``virt``.
        disk: Content of each guest's disk, or its size in bytes; a multiple of 512. None for no disk.
        guests: Names.
        faults: What happens to messages on every link; None for a perfect network of `MESSAGE_NS` a message.
        seed: Of the network's luck.
        storage_ns: Virtual time of each access to the medium.
        durability: What a completed write promises.
        memory_bytes: RAM of each guest, as its hypervisor knows it.
        prefetch: Whether data port reads may come ahead of the INs that ask for them.
        level: Where disks are intercepted.
        lease_ms: Silence after which a peer counts as lost.
        wall_ns: Wall clock (ns since 1970 UTC) at virtual time 0.
        capacity: Messages kept in `messages`.
        start: Start everything and power the guests on; False: `start` the nodes in an order of your own.

    Attributes:
        storage: The medium of the block controller: tear it, fail it, cut its power.
        device: The block controller's core in its present life.
        terminal_device: The console controller's core in its present life.

    Raises:
        ConfigError: The disk is no whole number of sectors, or names are not unique.
        LocalError: The guests do not get power (`start` only).
    """

    device: BlockController
    terminal_device: ConsoleController

    def __init__(  # noqa: PLR0913 - keyword-only settings of one experiment, each with a default
        self,
        *,
        machine: Literal["pc", "virt"] = "pc",
        disk: bytes | int | None = 1 << 20,
        guests: Sequence[str] = ("guest",),
        faults: LinkModel | None = None,
        seed: int = 0,
        storage_ns: int = 0,
        durability: Durability = Durability.WRITE_THROUGH,
        memory_bytes: int = 32 << 20,
        prefetch: bool = True,
        level: Level = Level.OPERATION,
        lease_ms: int = 2000,
        wall_ns: int = WALL_NS,
        capacity: int = DEFAULT_CAPACITY,
        start: bool = True,
    ) -> None:
        _check_names(guests)
        if faults is None:
            faults = Faults(delay_ns=(MESSAGE_NS, MESSAGE_NS))
        super().__init__(faults, seed, lease_ms, capacity)
        self._disk_bytes = _disk_bytes(disk)
        self.storage = _storage(disk, self._disk_bytes, len(guests))
        self._runner = BlockRunner(self.storage, _never)
        self._terminals: list[MemoryTerminals] = []
        self._machine, self._memory_bytes, self._durability = machine, memory_bytes, durability
        self._prefetch, self._level = prefetch, level
        self._cpus = RigCpus(self)
        self.nodes = self._make_nodes(guests, storage_ns, wall_ns)
        if start:
            self.start(*self.nodes)
            self.power_on()

    # --- parts

    def guest(self, name: str = "") -> RigGuest:
        """Return a guest; without a name the first one.

        Raises:
            LocalError: There is none of that name.
        """
        guests = {node.name: node for node in self.nodes.values() if isinstance(node, RigGuest)}
        if name and name not in guests:
            raise LocalError("no such guest", name, f"guests: {', '.join(guests)}")
        return guests[name] if name else next(iter(guests.values()))

    @property
    def hypervisor(self) -> Hypervisor:
        """The hypervisor's core in its present life."""
        node = self.nodes[HYPERVISOR]
        assert isinstance(node, HypervisorNode)
        return node.core

    @property
    def controller(self) -> ControllerNode:
        """The block controller's node."""
        node = self.nodes[BLOCK]
        assert isinstance(node, ControllerNode)
        return node

    def vm(self, guest: str = "") -> VirtualMachine:
        """Return a guest as the hypervisor holds it: machine, drivers, counts."""
        return self.hypervisor.guests[self.guest(guest).name].vm

    @property
    def console(self) -> RigConsole:
        """The first guest's terminal."""
        return self.terminal()

    def terminal(self, guest: str = "") -> RigConsole:
        """Return a guest's terminal; without a name the first one's."""
        return RigConsole(self.guest(guest).name, lambda: self._terminals)

    @property
    def disk(self) -> bytes:
        """Content of the first guest's disk, as a read would see it."""
        return self.disk_of()

    def disk_of(self, guest: str = "") -> bytes:
        """Return the content of a guest's disk; without a name the first one's."""
        names = [node.name for node in self.nodes.values() if isinstance(node, RigGuest)]
        at = names.index(self.guest(guest).name) * self._disk_bytes
        return bytes(self.storage.read_at(at, self._disk_bytes))

    # --- machine code

    def attach_cpu(self, make_cpu: Callable[[Bus], VirtualCpu], guest: str = "") -> RigCpu:
        """Give a guest a CPU that runs machine code; `run_cpus` runs it.

        Args:
            make_cpu: Builds it on the guest's bus, e.g. ``lambda bus: build_cpu(spec, bus)`` of `guest.machines`.
            guest: Whose; without a name the first one's.
        """
        return self._cpus.attach(self.guest(guest), make_cpu)

    def boot(
        self, image: Path, command_line: str = "", *, guest: str = "", image_format: ImageFormat = "auto"
    ) -> RigCpu:
        """Give a guest a CPU with an image loaded, e.g. ``rig.boot(guestos_path(), "run=job")``.

        Args:
            image: ELF, multiboot, flat binary or ROM for the rig's machine.
            command_line: For the image's kernel.
            guest: Whose; without a name the first one's.
            image_format: As in a topology.

        Raises:
            ImageError: The image is missing or cannot run on the machine.
        """
        from iovirt_dist.guest.machines import build_cpu  # noqa: PLC0415 - loads the CPU emulator, which few rigs need

        name = self.guest(guest).name
        spec = MachineSpec(
            name=GuestName(name),
            hypervisor=ProcessName(HYPERVISOR),
            restart="never",
            machine=self._machine,
            memory_bytes=self._memory_bytes,
            image=image,
            image_name=str(image),
            image_format=image_format,
            payload=None,
            command_line=command_line,
            prefetch=self._prefetch,
        )
        return self.attach_cpu(lambda bus: build_cpu(spec, bus), name)

    def run_cpus(self, done: Callable[[], bool], limit_ns: int = 600 * SECOND_NS) -> None:
        """Run the attached CPUs, and everything else, until `done` holds.

        Raises:
            LocalError: It does not hold after `limit_ns` of virtual time.
        """
        self._cpus.run(done, limit_ns)

    def power_on(self) -> None:
        """Run until every guest has a machine, and take note of the power-on.

        Raises:
            LocalError: A guest gets none; the text says what is under way.
        """
        for node in list(self.nodes.values()):
            if isinstance(node, RigGuest) and node.running:
                node.wait_power_on(_POWER_LIMIT_NS)
                self.run_until(lambda node=node: self._has_machine(node.name), _POWER_LIMIT_NS, "machine")  # type: ignore[misc]  # mypy does not type lambda defaults

    # --- inside

    def _make_nodes(self, guests: Sequence[str], storage_ns: int, wall_ns: int) -> dict[str, Node]:
        controllers = (BLOCK, CONSOLE) if self._disk_bytes else (CONSOLE,)
        nodes: list[Node] = []
        if self._disk_bytes:
            nodes.append(
                ControllerNode(BLOCK, self.world, self._make_block, self._runner.perform, HYPERVISOR, storage_ns)
            )
        nodes.append(ControllerNode(CONSOLE, self.world, self._make_console, self._perform_console, HYPERVISOR))
        plans = partial(self._plans, guests)
        nodes.append(HypervisorNode(HYPERVISOR, self.world, plans, controllers, controllers[:-1], wall_ns))
        base = RAM_BASE if self._machine == "virt" else 0
        nodes += [RigGuest(name, self.world, HYPERVISOR, self.run_until, self._memory_bytes, base) for name in guests]
        return {node.name: node for node in nodes}

    def _plans(self, guests: Sequence[str], pairs: Mapping[str, QueuePair]) -> dict[str, GuestPlan]:
        return {
            name: GuestPlan(
                name,
                self._machine,
                self._memory_bytes,
                Attachment(pairs[BLOCK], name) if BLOCK in pairs else None,
                Attachment(pairs[CONSOLE], name),
                self._prefetch,
                self._level,
            )
            for name in guests
        }

    def _make_block(self) -> BlockController:
        names = [node.name for node in self.nodes.values() if isinstance(node, RigGuest)]
        size = self._disk_bytes
        extents = [Extent(name, number * size, size) for number, name in enumerate(names)]
        self.device = BlockController(ExtentTable(extents, self.storage.size_bytes), self._durability)
        return self.device

    def _make_console(self) -> ConsoleController:
        node = self.nodes[CONSOLE]
        assert isinstance(node, ControllerNode)
        self._terminals.append(MemoryTerminals(node.deliver))
        names = [node.name for node in self.nodes.values() if isinstance(node, RigGuest)]
        self.terminal_device = ConsoleController(names)
        return self.terminal_device

    def _perform_console(self, action: Any) -> ConsoleEvent | None:
        return self._terminals[-1].perform(action)

    def _has_machine(self, guest: str) -> bool:
        return self.nodes[HYPERVISOR].running and self.hypervisor.guests[guest].vm.machine is not None


def _never(event: object) -> None:
    """Inline, nothing ends later."""
    raise AssertionError(f"{event} came from nowhere")


def _check_names(guests: Sequence[str]) -> None:
    names = [HYPERVISOR, BLOCK, CONSOLE, *guests]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not guests:
        raise ConfigError(f"names are not unique: {', '.join(twice)}" if twice else "no guest", "rig", "name guests")


def _disk_bytes(disk: bytes | int | None) -> int:
    size = len(disk) if isinstance(disk, bytes) else disk or 0
    if size % SECTOR_BYTES or size < 0:
        raise ConfigError(f"a disk of {size} bytes", "rig", f"use a multiple of {SECTOR_BYTES}")
    return size


def _storage(disk: bytes | int | None, size_bytes: int, guests: int) -> MemoryStorage:
    """The medium: the guests' disks one after another, all stable."""
    storage = MemoryStorage(max(size_bytes * guests, SECTOR_BYTES))
    if isinstance(disk, bytes) and disk:
        for number in range(guests):
            storage.write_at(number * size_bytes, disk)
        storage.sync()
        storage.log.clear()
    return storage
