"""A foreign VMM and its gateway in virtual time: a front end with a virtio-blk driver, the gateway's core, the ring."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from iovirt_dist.controllers.block.core import BlockController
from iovirt_dist.controllers.block.extents import Durability, Extent, ExtentTable
from iovirt_dist.controllers.block.runner import BlockRunner
from iovirt_dist.controllers.console.core import ConsoleController, ConsoleEvent
from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.faults.link import Faults
from iovirt_dist.gateway.vhost_user import actions as vu
from iovirt_dist.gateway.vhost_user.backend import Backend
from iovirt_dist.gateway.vhost_user.messages import HEADER, Region, Request
from iovirt_dist.gateway.vm_core import (
    Event,
    ForFrontEnd,
    FrontEndCame,
    FrontEndSaid,
    FrontEndWent,
    Kicked,
    SerialTyped,
    VmCore,
)
from iovirt_dist.guest import core as gc
from iovirt_dist.guest.script.core import Drained
from iovirt_dist.hypervisor.plan import Attachment, GuestPlan
from iovirt_dist.platform.level import Level
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.step import TracePoint
from iovirt_dist.testing.nodes import ControllerNode, HypervisorNode, Node, World
from iovirt_dist.testing.simulation import Simulation
from iovirt_dist.testing.storage import MemoryStorage
from iovirt_dist.testing.terminal import MemoryTerminals
from iovirt_dist.virtio.block import HEADER as BLOCK_HEADER
from iovirt_dist.virtio.block import HEADER_BYTES, BlockRequest
from iovirt_dist.virtio.features import Feature, mask
from iovirt_dist.virtio.memory import ByteMemory
from iovirt_dist.virtio.ring import driver_ring, ring_setup
from iovirt_dist.wire.messages import Role
from iovirt_dist.wire.session import SessionConfig
from tests.unit.gateway.vhost_user.front_end import (
    ALL_PROTOCOL,
    PROTOCOL,
    FakeMapper,
    address,
    inflight,
    message,
    number,
    state,
    table,
)

HYPERVISOR, BLOCK, CONSOLE, GATEWAY = "hypervisor", "block", "console", "vm"
SECTOR_BYTES = 512
FEATURES = mask(Feature.VERSION_1, Feature.RING_EVENT_IDX, Feature.RING_INDIRECT_DESC, 9)
GUEST_BASE = 0x8000_0000
USER_BASE = 0x7F00_0000_0000
MEMORY_BYTES = 4 << 20
SIZE = 64
RING, HEADERS, DATA = GUEST_BASE + 0x1000, GUEST_BASE + 0x8000, GUEST_BASE + 0x1_0000
DATA_BYTES = 0x4000
MEMORY_FILE, KICK, CALL, ERR, INFLIGHT_FILE = 100, 101, 102, 103, 104
DISK = VirtioSlot.DISK


class Vmm:
    """A VMM with one device, a disk, whose driver runs in it; it outlives its gateway.

    Args:
        mapper: Has what the VMM shares.
        slot: The device.
        features: What the driver accepts.

    Attributes:
        node: Its gateway.
        connected: Whether it is connected to that.
        slot: The device.
        features: What the driver accepts.
        calls: How often the driver was interrupted.
        errors: How often it was told that the ring is broken.
        replies: Payloads of replies, by request, the latest.
        typed: What was typed at its serial line.
        cut_off: Reasons for which the gateway has sent it away.
    """

    def __init__(self, mapper: FakeMapper, slot: VirtioSlot = DISK, features: int = FEATURES) -> None:
        self.mapper = mapper
        self.slot = slot
        self.node: GatewayNode | None = None
        self.connected = self.started = False
        self.calls = self.errors = 0
        self.replies: dict[int, bytes] = {}
        self.typed = b""
        self.cut_off: list[str] = []
        self.features = features
        self._in_flight: bytes | None = None
        self.power_on()

    def power_on(self) -> None:
        """Begin with memory that is new."""
        self.memory = ByteMemory(MEMORY_BYTES, GUEST_BASE)
        self.mapper.files[MEMORY_FILE] = self.memory.data  # type: ignore[assignment]  # any buffer will do
        self.setup = ring_setup(RING, SIZE, self.features)
        self.driver = driver_ring(self.memory, self.setup)
        self._in_flight = None

    # --- the front end, as QEMU's: what it sends and in which order

    def connect(self) -> None:
        """Connect, and start the queue."""
        assert self.node is not None
        self.connected = True
        self.node.happen(FrontEndCame(self.slot))
        self.send(message(Request.GET_FEATURES))
        self.send(number(Request.SET_PROTOCOL_FEATURES, ALL_PROTOCOL))
        self.send(number(Request.SET_FEATURES, self.features | PROTOCOL))
        self.send(message(Request.SET_OWNER))
        if self._in_flight is None:
            self.send(inflight(Request.GET_INFLIGHT_FD, 0, 1, SIZE))
        else:
            self._start()

    def _start(self, base: int = 0) -> None:
        assert self._in_flight is not None
        size_bytes, _, queues, entries = struct.unpack("=QQHH", self._in_flight[:20])
        self.send(inflight(Request.SET_INFLIGHT_FD, size_bytes, queues, entries), INFLIGHT_FILE)
        self.share_memory()
        self.start_queue(base)

    def start_queue(self, base: int = 0) -> None:
        """Describe the queue, and start it."""
        user = USER_BASE - GUEST_BASE
        areas = (self.setup.descriptors + user, self.setup.driver_area + user, self.setup.device_area + user)
        self.send(state(Request.SET_VRING_NUM, 0, SIZE))
        self.send(state(Request.SET_VRING_BASE, 0, base))
        self.send(address(0, *areas))
        self.send(number(Request.SET_VRING_CALL, 0), CALL)
        self.send(number(Request.SET_VRING_ERR, 0), ERR)
        self.send(number(Request.SET_VRING_KICK, 0), KICK)
        self.send(state(Request.SET_VRING_ENABLE, 0, 1))

    def share_memory(self) -> None:
        """Tell of memory, once or once more."""
        self.send(table([Region(GUEST_BASE, MEMORY_BYTES, USER_BASE, 0)]), MEMORY_FILE)

    def stop_queue(self) -> None:
        """Ask where the queue stops; the answer is `replies[GET_VRING_BASE]`."""
        self.started = False
        self.send(state(Request.GET_VRING_BASE, 0, 0))

    def send(self, data: bytes, *fds: int) -> None:
        """Send a message, while there is a gateway."""
        if self.connected and self.node is not None:
            self.node.happen(FrontEndSaid(self.slot, data, fds))

    def disconnect(self) -> None:
        """Close the connection."""
        self.connected = self.started = False
        if self.node is not None and self.node.running:
            self.node.happen(FrontEndWent(self.slot))

    def gateway_died(self) -> None:
        """The connection breaks."""
        self.connected = self.started = False

    def take(self, action: vu.Action) -> None:
        """What the gateway does for us."""
        if isinstance(action, vu.Send):
            self._reply(action)
        elif isinstance(action, vu.Signal):
            self.calls += action.fd == CALL
            self.errors += action.fd == ERR
        elif isinstance(action, vu.QueueStarted):
            self.started = True
        elif isinstance(action, vu.QueueStopping):
            self.started = False
        elif isinstance(action, vu.Disconnect):
            self.cut_off.append(action.reason)
            self.connected = self.started = False

    def _reply(self, action: vu.Send) -> None:
        request = HEADER.unpack_from(action.data)[0]
        payload = self.replies[request] = action.data[HEADER.size :]
        if request == Request.GET_INFLIGHT_FD:
            self._in_flight = payload
            self.mapper.files[INFLIGHT_FILE] = self.mapper.files[action.fds[0]]
            self._start()

    # --- the driver

    def offer(self, slot: int, kind: BlockRequest, sector: int, data: bytes | int = b"") -> int:
        """Make a request available; returns its number. A slot is where its header and data are."""
        header, buffer = HEADERS + 32 * slot, DATA + DATA_BYTES * slot
        self.memory.write(header, BLOCK_HEADER.pack(kind, 0, sector) + b"\xff")
        status = (header + HEADER_BYTES, 1)
        if isinstance(data, int):
            return self.driver.add([(header, HEADER_BYTES)], [(buffer, data), status])
        self.memory.write(buffer, data)
        readable = [(header, HEADER_BYTES), (buffer, len(data))] if data else [(header, HEADER_BYTES)]
        return self.driver.add(readable, [status])

    def kick(self) -> None:
        """Notify, if the device wants it and the queue runs."""
        if self.driver.notify_needed() and self.started and self.node is not None and self.node.running:
            self.node.happen(Kicked(self.slot, 0))

    def status(self, slot: int) -> int:
        """A request's status; 255 before it has one."""
        return self.memory.read(HEADERS + 32 * slot + HEADER_BYTES, 1)[0]

    def data(self, slot: int, length: int) -> bytes:
        """What a request has read."""
        return self.memory.read(DATA + DATA_BYTES * slot, length)


class GatewayNode(Node):
    """A gateway process.

    Args:
        name: The guest's.
        world: What it shares with the others.
        vmm: Whose it is.
        serial: Whether the VMM has a serial line.
    """

    core: VmCore

    def __init__(self, name: str, world: World, vmm: Vmm, *, serial: bool = False) -> None:
        super().__init__(name, world)
        self.vmm = vmm
        self.serial = serial
        vmm.node = self

    def happen(self, event: Event) -> None:
        """Let the core take an event, and do what it says."""
        for action in self.core.handle(event, self.world.clock.now_ns):
            if isinstance(action, gc.Send):
                self._port.send(b"", action.frames)
            elif isinstance(action, ForFrontEnd):
                self.vmm.take(action.action)
            elif isinstance(action, SerialTyped):
                self.vmm.typed += action.data
            elif isinstance(action, TracePoint):
                self.world.points.append(action)
            else:
                self.log(action.text)

    def handle_message(self) -> bool:
        """Handle one message of the hypervisor."""
        taken = self.take_from(self._port) if self.running else None
        if taken is not None:
            self.happen(gc.FramesReceived(taken[1]))
            self.happen(Drained())
        return taken is not None

    def deadline_ns(self) -> int | None:
        """When the core is due."""
        return self.core.deadline_ns() if self.running else None

    def tick(self) -> None:
        """Fire the core's timer."""
        self.happen(gc.TimerFired())

    def busy(self) -> str:
        """Unacknowledged messages, and requests in flight."""
        core = self.core.script.core if self.running else None
        if core is None or not (core.opener.stream.unacknowledged() or core.queues.awaited):
            return ""
        return f"{self.name}: messages or requests under way"

    def _begin(self) -> None:
        config = SessionConfig(Role.GUEST, self.name, self.lives, lease_ms=self.world.lease_ms)
        self.core = VmCore(config, HYPERVISOR, {self.vmm.slot: Backend(self.vmm.mapper)}, serial=self.serial)
        self._port = self.world.network.dial(HYPERVISOR, self.name)
        self.happen(gc.Started())

    def _end(self) -> None:
        self._port.close()
        self.vmm.gateway_died()

    def _farewell(self, reason: str) -> None:
        self.happen(gc.StopRequested(reason))


class VmRig(Simulation):
    """A VMM with a disk, its gateway, hypervisor and block controller.

    Args:
        content: The disk's.
        faults: What happens to messages.
        seed: Of the network's luck.
        storage_ns: Virtual time of each access to the medium.
        lease_ms: Silence after which a peer counts as lost.
        serial: Whether the VMM has a serial line, and the ring a console controller.

    Attributes:
        vmm: The VMM.
        storage: The medium.
        terminals: Those of the console controller.
    """

    def __init__(
        self,
        content: bytes,
        *,
        faults: Faults | None = None,
        seed: int = 0,
        storage_ns: int = 0,
        lease_ms: int = 500,
        serial: bool = False,
    ) -> None:
        super().__init__(faults or Faults(delay_ns=(50_000, 50_000)), seed, lease_ms, 1000)
        self.storage = MemoryStorage(len(content), content)
        self.vmm = Vmm(FakeMapper())
        runner = BlockRunner(self.storage, _never)
        self.gateway = GatewayNode(GATEWAY, self.world, self.vmm, serial=serial)
        controllers = (BLOCK, CONSOLE) if serial else (BLOCK,)
        self.hypervisor = HypervisorNode(HYPERVISOR, self.world, _plans, controllers, (BLOCK,), 0)
        nodes: list[Node] = [
            ControllerNode(BLOCK, self.world, self._controller(len(content)), runner.perform, HYPERVISOR, storage_ns),
            self.hypervisor,
            self.gateway,
        ]
        self.terminals = MemoryTerminals(self._typed)
        self._console = ControllerNode(
            CONSOLE, self.world, lambda: ConsoleController((GATEWAY,)), self.terminals.perform, HYPERVISOR
        )
        if serial:
            nodes.append(self._console)
        self.nodes = {node.name: node for node in nodes}
        self.start(*controllers, HYPERVISOR, GATEWAY)

    def connect(self) -> None:
        """Connect the VMM, and wait until its queue runs."""
        self.vmm.connect()
        self.run_until(lambda: self.vmm.started, what="start of the queue")

    def restart_gateway(self) -> None:
        """SIGKILL the gateway and start it anew; the VMM connects again."""
        self.restart(GATEWAY)
        self.vmm.connect()

    def _typed(self, event: ConsoleEvent) -> None:
        self._console.deliver(event)

    def _controller(self, size: int) -> Callable[[], BlockController]:
        table_ = ExtentTable([Extent("all", 0)], size)
        return lambda: BlockController(table_, Durability.WRITE_THROUGH)


def _plans(pairs: Mapping[str, QueuePair]) -> dict[str, GuestPlan]:
    disk = Attachment(pairs[BLOCK], "all")
    console = Attachment(pairs[CONSOLE], GATEWAY) if CONSOLE in pairs else None
    return {GATEWAY: GuestPlan(GATEWAY, "vm", MEMORY_BYTES, disk, console, level=Level.DRIVER)}


def _never(event: object) -> None:
    raise AssertionError(f"{event} came from nowhere")
