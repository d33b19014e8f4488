"""A `virt` machine beside a script, without wires: the real virtual devices and ring walkers, and media in memory."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.guest.armed_queue import Outgoing
from iovirt_dist.guest.queues import ArmedQueues
from iovirt_dist.guest.script.guest import LoadEnd, ScriptGuest
from iovirt_dist.guest.script.tasks import Scheduler
from iovirt_dist.hypervisor.address_map import Space
from iovirt_dist.hypervisor.machines.machine import MachineParts
from iovirt_dist.hypervisor.machines.virt import build_virt
from iovirt_dist.platform import virt
from iovirt_dist.platform.level import Level
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.wire.commands import Opcode, Status
from iovirt_dist.wire.queue_messages import ArmQueue, Completions, DisarmQueue
from tests.unit.hypervisor.machines.parts import Screen

T = TypeVar("T")

MIB = 1 << 20
LOAD_ACCESS_FAULT = 5
"""RISC-V exception cause (privileged ISA 1.12, table 3.6)."""


class MemoryDisk:
    """A disk in memory whose requests end when they are asked to."""

    block_bytes = 512
    serial = "DISK"

    def __init__(self, content: bytes, *, read_only: bool = False) -> None:
        self.content = bytearray(content)
        self.size_bytes = len(content)
        self.read_only = read_only
        self.waiting: list[DiskRequest] = []
        self.flushes = 0
        self.discards: list[tuple[int, int]] = []
        self.zeroed: list[tuple[int, int]] = []
        self.fails: Status | None = None

    def submit(self, request: DiskRequest) -> None:
        """Take a request."""
        self.waiting.append(request)

    def perform(self, request: DiskRequest) -> tuple[Status, bytes]:
        """Do what a request says."""
        end = request.offset + request.length
        if self.fails is not None:
            return self.fails, b""
        if request.opcode is Opcode.READ:
            return Status.OK, bytes(self.content[request.offset : end])
        if request.opcode is Opcode.WRITE:
            self.content[request.offset : end] = request.data
        elif request.opcode is Opcode.FLUSH:
            self.flushes += 1
        elif request.opcode is Opcode.WRITE_ZEROES:
            self.zeroed.append((request.offset, request.length))
            self.content[request.offset : end] = bytes(request.length)
        else:
            self.discards.append((request.offset, request.length))
        return Status.OK, b""


class CountingEntropy:
    """Randomness that is a count, in pieces of at most three bytes."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, int]] = []
        self.next = 0

    def request(self, tag: int, length: int) -> None:
        """Take a request."""
        self.waiting.append((tag, length))

    def bytes_for(self, length: int) -> bytes:
        """The next of them."""
        data = bytes((self.next + at) & 0xFF for at in range(min(length, 3)))
        self.next += len(data)
        return data


class Board:
    """A machine, its media and a script.

    Args:
        disk: Content of its disk; None for no disk.
        read_only: Whether the disk refuses writes.
        memory_bytes: RAM.

    Attributes:
        traps: Loads and stores that reached the machine.
        doorbells: Stores that ended at an armed queue.
    """

    def __init__(self, disk: bytes | None = None, *, read_only: bool = False, memory_bytes: int = 8 * MIB) -> None:
        self.disk = MemoryDisk(disk, read_only=read_only) if disk is not None else None
        self.serial, self.terminal, self.entropy = Screen(), Screen(), CountingEntropy()
        self.said: list[str] = []
        self.loads = self.stores = self.doorbells = 0
        self.machine = build_virt(
            MachineParts(
                guest="load",
                memory_bytes=memory_bytes,
                disk=self.disk,
                terminal=self.serial,
                wall_ns=0,
                power=lambda action, reason: None,
                level=Level.DRIVER,
                console=self.terminal,
                entropy=self.entropy,
            )
        )
        self.scheduler = Scheduler()
        memory = ByteMemory(memory_bytes, virt.RAM_BASE)
        self.queues = ArmedQueues(memory)
        self.guest = ScriptGuest("load", {}, memory, self, self.scheduler, {})
        self.now_ns = 0
        self._line_levels = 0

    # --- RegisterBus

    def begin_load(self, address: int, width: int) -> None:
        """Load at once."""
        self.loads += 1
        found = self.machine.address_map.find(Space.MEMORY, address)
        if found is None:
            self.guest.finish_load(LoadEnd(0, LOAD_ACCESS_FAULT, address))
            return
        value = found.device.read(address - found.base, width, self.now_ns)
        self._exchange()
        self.guest.finish_load(LoadEnd(value))

    def store(self, address: int, width: int, value: int) -> None:
        """Store at once."""
        armed = self.queues.by_doorbell.get((address, value))
        if armed is not None:
            self.doorbells += 1
            self._tell(armed.gather(1))
        else:
            self.stores += 1
            found = self.machine.address_map.find(Space.MEMORY, address)
            assert found is not None
            found.device.write(address - found.base, width, value, self.now_ns)
        self._exchange()

    def say(self, text: str) -> None:
        """Keep the line."""
        self.said.append(text)

    # --- the other side

    def _tell(self, messages: list[Outgoing]) -> None:
        for body, payload in messages:
            assert self.machine.interceptors[0].message(body, payload, self.now_ns)

    def _exchange(self) -> None:
        """Carry messages to the guest until there are none, and its interrupt lines."""
        while outgoing := self.machine.interceptors[0].flush(self.now_ns):
            for body, payload in outgoing:
                if isinstance(body, ArmQueue):
                    self._tell(self.queues.arm(body))
                elif isinstance(body, DisarmQueue):
                    self.queues.disarm(body)
                else:
                    assert isinstance(body, Completions)
                    self._tell(self.queues.complete(body, payload))
                    self.guest.dma.set()
                    self._set_lines(body.lines)
        self._set_lines(self.machine.lines.take_changes())

    def _set_lines(self, changes: tuple[int, ...]) -> None:
        for line, count in zip(changes[::2], changes[1::2], strict=True):
            self.guest.lines = (self.guest.lines & ~(1 << line)) | (count & 1) << line
            self.guest.lines_changed.set()

    def serve(self) -> bool:
        """Let the media answer what they were asked; whether they were."""
        now_ns, busy = self.now_ns, False
        if self.disk is not None and self.machine.disk is not None:
            waiting, self.disk.waiting = self.disk.waiting, []
            busy = bool(waiting)
            for request in waiting:
                status, data = self.disk.perform(request)
                self.machine.disk.complete(request.tag, status, data, now_ns)
        asked, self.entropy.waiting = self.entropy.waiting, []
        for tag, length in asked:
            assert self.machine.entropy is not None
            self.machine.entropy.supply(tag, Status.OK, self.entropy.bytes_for(length), now_ns)
        self._exchange()
        return busy or bool(asked)

    def type(self, data: bytes) -> None:
        """Type at the virtio console."""
        assert self.machine.console is not None
        self.machine.console.receive(data, self.now_ns)
        self._exchange()

    def run(self, script: Callable[[ScriptGuest], Coroutine[Any, None, T]]) -> T:
        """Run a script to its end.

        Raises:
            AssertionError: It waits for something that never comes.
        """
        task = self.scheduler.spawn(script(self.guest))
        while not task.done:
            self.step()
            if not task.done:
                assert self.serve() or self.scheduler.ready, "the script waits for ever"
        assert task.done
        result: T = task.result  # type: ignore[assignment]  # set with `done`
        return result

    def step(self) -> None:
        """Let the script go on until it waits."""
        self.scheduler.run(self.now_ns)
