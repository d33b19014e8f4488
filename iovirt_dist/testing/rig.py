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
from typing import Any

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
from iovirt_dist.hypervisor.virtual_machine import Attachment, GuestPlan, VirtualMachine
from iovirt_dist.testing.clock import VirtualClock
from iovirt_dist.testing.guest import RigGuest
from iovirt_dist.testing.nodes import ControllerNode, HypervisorNode, LogLine, Node, World
from iovirt_dist.testing.storage import SECTOR_BYTES, MemoryStorage
from iovirt_dist.testing.terminal import MemoryTerminals
from iovirt_dist.testing.trace import DEFAULT_CAPACITY, MessageTrace
from iovirt_dist.testing.vcpu import RigCpu, RigCpus
from iovirt_dist.transport.memory import LinkModel, MemoryNetwork

HYPERVISOR, BLOCK, CONSOLE = "hypervisor", "block", "console"

MESSAGE_NS = 50_000
"""Default time of a message: half of a measured round trip between two processes (105 us)."""

WALL_NS = 1_767_225_600_000_000_000
"""Default wall clock at virtual time 0: 2026-01-01 00:00 UTC."""

SECOND_NS = 1_000_000_000
_SETTLE_LIMIT_NS = 60 * SECOND_NS
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


class Rig:
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
        lease_ms: Silence after which a peer counts as lost.
        wall_ns: Wall clock (ns since 1970 UTC) at virtual time 0.
        capacity: Messages kept in `messages`.
        start: Start everything and power the guests on; False: `start` the nodes in an order of your own.

    Attributes:
        clock: Virtual time.
        network: The links.
        messages: Every message that arrived anywhere, decoded, oldest first.
        log: What the processes would have logged.
        storage: The medium of the block controller: tear it, fail it, cut its power.
        nodes: Simulated processes by name.
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
        machine: str = "pc",
        disk: bytes | int | None = 1 << 20,
        guests: Sequence[str] = ("guest",),
        faults: LinkModel | None = None,
        seed: int = 0,
        storage_ns: int = 0,
        durability: Durability = Durability.WRITE_THROUGH,
        memory_bytes: int = 32 << 20,
        lease_ms: int = 2000,
        wall_ns: int = WALL_NS,
        capacity: int = DEFAULT_CAPACITY,
        start: bool = True,
    ) -> None:
        _check_names(guests)
        self.clock = VirtualClock()
        self.faults: LinkModel = faults if faults is not None else Faults(delay_ns=(MESSAGE_NS, MESSAGE_NS))
        self.network = MemoryNetwork(self.clock, seed, self.faults)
        self.messages = MessageTrace(capacity)
        self.log: list[LogLine] = []
        self._world = World(self.clock, self.network, self.messages, self.log, lease_ms)
        self._disk_bytes = _disk_bytes(disk)
        self.storage = _storage(disk, self._disk_bytes, len(guests))
        self._runner = BlockRunner(self.storage, _never)
        self._terminals: list[MemoryTerminals] = []
        self._machine, self._memory_bytes, self._durability = machine, memory_bytes, durability
        self._ticked_ns = -1
        self._cpus = RigCpus(self)
        self.nodes: dict[str, Node] = self._make_nodes(guests, storage_ns, wall_ns)
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

    def run_cpus(self, done: Callable[[], bool], limit_ns: int = 600 * SECOND_NS) -> None:
        """Run the attached CPUs, and everything else, until `done` holds.

        Raises:
            LocalError: It does not hold after `limit_ns` of virtual time.
        """
        self._cpus.run(done, limit_ns)

    # --- time

    def now_ns(self) -> int:
        """Return the virtual time."""
        return self.clock.now_ns

    def step(self) -> None:
        """Let the next thing happen: one message is handled, or time moves on to the next event.

        Raises:
            LocalError: Nothing will ever happen: no node runs.
        """
        for node in self.nodes.values():
            if node.handle_message():
                return
        due = [at for node in self.nodes.values() if (at := node.deadline_ns()) is not None]
        arrival = self.network.next_event_ns()
        if arrival is not None:
            due.append(arrival)
        if not due:
            raise LocalError("nothing will ever happen", "rig", "start a node")
        self._advance_to(min(due))

    def run_until(self, done: Callable[[], bool], limit_ns: int = 60 * SECOND_NS, what: str = "a condition") -> None:
        """Run until `done` holds; it is asked before the first step and after each.

        Raises:
            LocalError: It does not hold after `limit_ns` of virtual time; the text says what is under way.
        """
        end_ns = self.clock.now_ns + limit_ns
        while not done():
            if self.clock.now_ns > end_ns:
                waiting = "; ".join(self.busy()) or "nothing is under way"
                raise LocalError(f"still no {what} after {limit_ns / 1e9:.3g} virtual seconds: {waiting}", "rig")
            self.step()

    def run_for(self, duration_ns: int) -> None:
        """Let everything happen that happens within this virtual time, and let that time pass."""
        end_ns = self.clock.now_ns + duration_ns
        while True:
            at_ns = self._next_ns()
            if at_ns is None or at_ns > end_ns:
                break
            self.step()
        self.clock.advance_to(end_ns)

    def settle(self, limit_ns: int = _SETTLE_LIMIT_NS) -> None:
        """Run until nothing is under way: no message, no command at the block controller, nothing unacknowledged.

        A parked console receive is not under way, as it waits for somebody to type. Signs of life go on for ever.

        Raises:
            LocalError: Something is still under way after `limit_ns` of virtual time, for instance because a node is
                down; the text says what.
        """
        self.run_until(lambda: not self.busy(), limit_ns, "rest")

    def busy(self) -> list[str]:
        """Say what is under way, a line each; empty when all is settled."""
        lines = [line for node in self.nodes.values() if (line := node.busy())]
        if self.network.next_event_ns() is not None:
            lines.append("messages on the network")
        node = self.nodes[HYPERVISOR]
        if node.running and BLOCK in self.hypervisor.config.controllers:
            in_flight = self.hypervisor.config.controllers[BLOCK].in_flight
            if in_flight:
                lines.append(f"{in_flight} block commands in flight")
        return lines

    def power_on(self) -> None:
        """Run until every guest has a machine, and take note of the power-on.

        Raises:
            LocalError: A guest gets none; the text says what is under way.
        """
        for node in list(self.nodes.values()):
            if isinstance(node, RigGuest) and node.running:
                node.wait_power_on(_POWER_LIMIT_NS)
                self.run_until(lambda node=node: self._has_machine(node.name), _POWER_LIMIT_NS, "machine")  # type: ignore[misc]  # mypy does not type lambda defaults

    # --- breaking things

    def start(self, *names: str) -> None:
        """Start nodes, in this order."""
        for name in names:
            self._node(name).start()

    def kill(self, *names: str) -> None:
        """End nodes as SIGKILL does."""
        for name in names:
            self._node(name).kill()

    def stop(self, *names: str) -> None:
        """End nodes as SIGTERM does: they say goodbye."""
        for name in names:
            self._node(name).stop()

    def restart(self, name: str) -> None:
        """Kill a node and start it in a new life."""
        self.kill(name)
        self.start(name)

    def cut(self, one: str, other: str) -> None:
        """Lose everything between two nodes from now on; they are not told."""
        self._set_link(one, other, Faults(loss=1.0))

    def heal(self, one: str, other: str) -> None:
        """Undo `cut`."""
        self._set_link(one, other, self.faults)

    # --- inside

    def _make_nodes(self, guests: Sequence[str], storage_ns: int, wall_ns: int) -> dict[str, Node]:
        controllers = (BLOCK, CONSOLE) if self._disk_bytes else (CONSOLE,)
        nodes: list[Node] = []
        if self._disk_bytes:
            nodes.append(
                ControllerNode(BLOCK, self._world, self._make_block, self._runner.perform, HYPERVISOR, storage_ns)
            )
        nodes.append(ControllerNode(CONSOLE, self._world, self._make_console, self._perform_console, HYPERVISOR))
        nodes.append(
            HypervisorNode(HYPERVISOR, self._world, lambda pairs: self._plans(guests, pairs), controllers, wall_ns)
        )
        nodes += [RigGuest(name, self._world, HYPERVISOR, self.run_until) for name in guests]
        return {node.name: node for node in nodes}

    def _plans(self, guests: Sequence[str], pairs: Mapping[str, QueuePair]) -> dict[str, GuestPlan]:
        return {
            name: GuestPlan(
                name,
                self._machine,
                self._memory_bytes,
                Attachment(pairs[BLOCK], name) if BLOCK in pairs else None,
                Attachment(pairs[CONSOLE], name),
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

    def _node(self, name: str) -> Node:
        if name not in self.nodes:
            raise LocalError("no such node", name, f"nodes: {', '.join(self.nodes)}")
        return self.nodes[name]

    def _has_machine(self, guest: str) -> bool:
        return self.nodes[HYPERVISOR].running and self.hypervisor.guests[guest].vm.machine is not None

    def _set_link(self, one: str, other: str, model: LinkModel) -> None:
        for source, destination in ((one, other), (other, one)):
            self._node(source)
            self.network.set_faults(model, source, destination)

    def _next_ns(self) -> int | None:
        """When the next thing happens."""
        arrival = self.network.next_event_ns()
        if arrival is not None and arrival <= self.clock.now_ns:
            return self.clock.now_ns
        due = [at for node in self.nodes.values() if (at := node.deadline_ns()) is not None]
        if arrival is not None:
            due.append(arrival)
        return max(min(due), self._ticked_ns + 1) if due else None

    def _advance_to(self, at_ns: int) -> None:
        """Move time on, by a nanosecond at least if timers have fired at this instant already, and fire timers."""
        now_ns = self.clock.advance_to(max(at_ns, self._ticked_ns + 1))
        ticked = False
        for node in self.nodes.values():
            due = node.deadline_ns()
            if due is not None and due <= now_ns:
                node.tick()
                ticked = True
        if ticked:
            self._ticked_ns = now_ns


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
