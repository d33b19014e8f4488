"""A virtio device of a foreign VMM: its front end on one side, the hypervisor's virtual device on the other.

Theory of operation. The front end says over vhost-user which features were negotiated and where the vrings lie. One
coroutine per life of the hypervisor's machine brings the virtual device in line with that, as a driver would, through
its registers: reset, features, queues, DRIVER_OK; what differs is done one step at a time until nothing does. So a
hypervisor that comes back is told everything again, and the front end does not notice.

Once the hypervisor arms a queue, its requests do not pass here: the guest's core walks the vring where it is, in memory
that the front end shares, when the front end kicks. Used buffers are told to the driver from here, by the call
descriptor. A vring goes on where its log of requests in flight says, whoever had served it before, and its driver is
interrupted once when it does, for what the one before may have used and not told.

A device that wants to be reset, because of what one of its rings holds, serves none of them any more. All of them count
as broken then, and the virtual device is reset before the next one starts.

A stopped queue is drained: its front end hears that it has stopped when no request that somebody waits for is in
flight. Buffers to receive in are handed back with the index.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from iovirt_dist.gateway.vhost_user import actions as vu
from iovirt_dist.gateway.vhost_user.backend import Backend
from iovirt_dist.gateway.vhost_user.device import DeviceFacts
from iovirt_dist.gateway.vhost_user.memory import RegionMemory
from iovirt_dist.guest.queues import ArmedQueues
from iovirt_dist.guest.script.access import GuestAccess
from iovirt_dist.guest.script.transport import DeviceError, VirtioDevice
from iovirt_dist.platform import vm
from iovirt_dist.platform.slots import VirtioSlot
from iovirt_dist.virtio.features import DeviceId, Feature, has
from iovirt_dist.virtio.mmio import Register, Status
from iovirt_dist.virtio.resumed import ResumedSplitDevice
from iovirt_dist.virtio.ring import DeviceRing, RingError, RingSetup

DEVICE_IDS = {
    VirtioSlot.DISK: DeviceId.BLOCK,
    VirtioSlot.CONSOLE: DeviceId.CONSOLE,
    VirtioSlot.ENTROPY: DeviceId.ENTROPY,
    VirtioSlot.NETWORK: DeviceId.NETWORK,
}
MAX_HELD = 64
"""Messages of a front end that wait while the device is looked at."""

_CONFIG_BYTES = {DeviceId.BLOCK: 72, DeviceId.CONSOLE: 12, DeviceId.ENTROPY: 0, DeviceId.NETWORK: 12}


class ServedDevice:
    """One device; the `QueueHome` of its queues.

    Args:
        slot: Which.
        backend: The vhost-user side.
        queues: The guest's armed queues.
        perform: Takes what is to be done for the front end.

    Attributes:
        backend: The same.
        connected: Whether there is a front end.
        faults: Why rings could not be walked, the latest last.
    """

    interrupts = True

    def __init__(
        self, slot: VirtioSlot, backend: Backend, queues: ArmedQueues, perform: Callable[[vu.Action], None]
    ) -> None:
        self.slot = slot
        self.backend = backend
        self.connected = False
        self.faults: deque[str] = deque(maxlen=8)
        self._perform = perform
        self._queues = queues
        self._rings: dict[int, ResumedSplitDevice] = {}
        self._stopping: deque[int] = deque()
        self._broken: set[int] = set()
        self._armed: set[int] = set()
        self._live_features = 0
        self._reset = False
        self._changed = False
        self._connecting = False
        self._held: deque[tuple[bytes, Sequence[int]]] = deque()
        self._wake: Callable[[], None] = lambda: None
        queues.homes[slot] = self

    @property
    def memory(self) -> RegionMemory:
        """The front end's memory."""
        return self.backend.memory

    @property
    def notify_address(self) -> int:
        """Address of the notify register."""
        return vm.window(self.slot) + Register.QUEUE_NOTIFY

    # --- the front end

    def front_end_came(self) -> None:
        """A front end has connected; it is answered once the device has been looked at."""
        self.connected = self._connecting = True
        self._wake()

    def front_end_went(self) -> None:
        """It is gone: what its queues had in flight completes into nothing."""
        while self._held:
            self._perform(vu.CloseFds(tuple(self._held.popleft()[1])))
        self._connecting = False
        self._take(self.backend.disconnect())
        self._cut_off()

    def received(self, data: bytes, fds: Sequence[int]) -> None:
        """Take a message of the front end."""
        if self._connecting:
            if len(self._held) < MAX_HELD:
                self._held.append((data, fds))
                return
            self._perform(vu.CloseFds(tuple(fds)))
            self._perform(vu.Disconnect("flood"))
            return
        self._take(self.backend.receive(data, fds))

    def kicked(self, queue: int) -> bool:
        """Return whether a kick is a store to the notify register; if not, the ring is looked at when it is armed."""
        return queue in self._armed and queue not in self._stopping

    def _take(self, actions: Sequence[vu.Action]) -> None:
        for action in actions:
            if isinstance(action, vu.QueueStarted):
                self._broken.discard(action.queue)
            elif isinstance(action, vu.QueueStopping):
                self._stopping.append(action.queue)
            elif isinstance(action, vu.MemoryChanged):
                self._remap()
            self._perform(action)
            if isinstance(action, vu.Reset):
                self._abandon()
                self._take(self.backend.device_reset())
            elif isinstance(action, vu.Disconnect):
                self._cut_off()
        self._wake()

    def _cut_off(self) -> None:
        """There is no front end any more: nobody waits for what its queues had in flight."""
        self.connected = False
        stopping = list(self._stopping)
        self._abandon()
        for queue in stopping:
            self._take(self.backend.queue_stopped(queue, 0))

    def _abandon(self) -> None:
        """Forget all queues at once; the virtual device is reset before it gets another."""
        for queue in list(self._armed):
            self._queues.drop(self.slot, queue)
        self._armed.clear()
        self._rings.clear()
        self._broken.clear()
        self._stopping.clear()
        self._reset = True
        self._wake()

    def _remap(self) -> None:
        """The front end's memory is mapped otherwise now."""
        for queue, ring in list(self._rings.items()):
            armed = self._queues.find(self.slot, queue)
            try:
                ring.remap()
            except RingError as error:
                self._queues.drop(self.slot, queue)
                self.broke(queue, str(error))
            else:
                if armed is not None:
                    armed.remapped()

    # --- QueueHome

    def ring(self, queue: int, setup: RingSetup) -> DeviceRing:
        """Return the device's side of a vring, which goes on where it was."""
        ring = ResumedSplitDevice(self.memory, setup, self.backend.queues[queue].log)
        self._rings[queue] = ring
        self.interrupt(queue)
        return ring

    def interrupt(self, queue: int) -> None:
        """Have the driver told."""
        call = self.backend.queues[queue].call
        if call is not None:
            self._perform(vu.Signal(call))

    def broke(self, queue: int, reason: str) -> None:
        """Have the front end told; the queue rests until it is started anew."""
        self.faults.append(f"queue {queue}: {reason}")
        self._armed.discard(queue)
        self._rings.pop(queue, None)
        self._broken.add(queue)
        self._live_features = 0  # the virtual device wants a reset
        self._take(self.backend.queue_broken(queue))

    # --- the virtual device

    async def serve(self, guest: GuestAccess) -> None:
        """Keep the virtual device as the front end wants it, for one life of the machine."""
        changed = guest.event()
        self._wake = changed.set
        self._armed.clear()
        self._rings.clear()
        self._reset, self._changed, self._live_features = False, False, 0
        device = VirtioDevice(guest, vm.window(self.slot), self.slot)
        sizes = await _queue_sizes(device)
        await self._describe(device, sizes)
        guest.spawn(self._follow(device))
        while True:
            while await self._step(device, sizes):
                pass
            await changed

    async def _step(self, device: VirtioDevice, sizes: tuple[int, ...]) -> bool:
        """Do one thing that differs; False if nothing does."""
        if self._reset:
            self._reset, self._live_features = False, 0
            await device.reset()
            return True
        if device.needs_reset:
            device.needs_reset = False
            self._fail()
            return True
        if self._changed or self._connecting:
            self._changed = False
            await self._describe(device, sizes)
            if self._connecting:
                self._connect()
            return True
        if wanted := self._wanted() - self._armed - self._broken:
            await self._start(device, wanted)
            return True
        if self._stopping:
            await self._stop(device, self._stopping[0])
            return True
        return False

    def _wanted(self) -> set[int]:
        """Queues that run; one that is to stop may have to end what an earlier life of the hypervisor had begun."""
        return {at for at, vring in enumerate(self.backend.queues) if vring.started} | set(self._stopping)

    def _fail(self) -> None:
        """The device has stopped all queues."""
        self._live_features = 0
        for queue in sorted(self._armed):
            self._queues.drop(self.slot, queue)
            self.broke(queue, "the device needs a reset")

    async def _start(self, device: VirtioDevice, queues: set[int]) -> None:
        if not has(self.backend.features, Feature.VERSION_1):
            for queue in sorted(queues):
                self.broke(queue, "the driver does not know VERSION_1")
            return
        if not self._armed and await device.read(Register.STATUS) & Status.DEVICE_NEEDS_RESET:
            self._live_features = 0
        if self._live_features != self.backend.features and not self._armed:
            await self._negotiate(device)
        for queue in sorted(queues & self._wanted()):
            self._arm(device, queue)
        await device.read(Register.QUEUE_READY)  # what was armed is known here when the answer comes

    def _connect(self) -> None:
        if not self.connected:
            return
        self._connecting = False
        self._take(self.backend.connect())
        while self._held and self.connected:
            self._take(self.backend.receive(*self._held.popleft()))

    async def _describe(self, device: VirtioDevice, sizes: tuple[int, ...]) -> None:
        """Look at the device, and tell the front end what it is."""
        offered = await device.offered()
        config = await device.config(_CONFIG_BYTES[DEVICE_IDS[self.slot]])
        self._take(self.backend.describe(DeviceFacts(offered, sizes, config)))

    async def _follow(self, device: VirtioDevice) -> None:
        """Have the device looked at when it says that it is another, or wants to be reset."""
        while True:
            await device.configured
            self._changed = True
            self._wake()

    async def _negotiate(self, device: VirtioDevice) -> None:
        features = self.backend.features
        try:
            agreed = await device.start(DEVICE_IDS[self.slot], features)
        except DeviceError as error:
            self._perform(vu.Disconnect(str(error)))
            self._abandon()
            return
        self._live_features = features
        if agreed != features:
            self._perform(vu.Note(f"the driver's features {features:#x} are taken as {agreed:#x}"))
        device.go()
        if await device.read(Register.CONFIG_GENERATION) != device.generation:
            self._changed = True  # before the driver was there, it was told to nobody

    def _arm(self, device: VirtioDevice, queue: int) -> None:
        """Give the device a queue (VIRTIO 1.2, section 4.2.3.2)."""
        vring = self.backend.queues[queue]
        device.write(Register.QUEUE_SEL, queue)
        areas = (vring.descriptors, vring.driver_area, vring.device_area)
        device.enable_queue(RingSetup(vring.size, *areas, self.backend.features))
        self._armed.add(queue)

    async def _stop(self, device: VirtioDevice, queue: int) -> None:
        """Drain a queue and take it from the device; its front end waits for that."""
        while (armed := self._queues.find(self.slot, queue)) is not None and armed.awaited:
            armed.rest()
            await device.guest.dma
            if self._reset:
                return
        device.write(Register.QUEUE_SEL, queue)
        device.write(Register.QUEUE_READY, 0)
        await device.read(Register.QUEUE_READY)
        if self._reset:
            return
        self._queues.drop(self.slot, queue)
        self._armed.discard(queue)
        ring, vring = self._rings.pop(queue, None), self.backend.queues[queue]
        base = vring.base if ring is None else ring.completed & 0xFFFF
        if ring is not None:  # else it broke, and what was in flight is still due
            vring.log.clear(base)
        self._stopping.popleft()
        self._take(self.backend.queue_stopped(queue, base))


async def _queue_sizes(device: VirtioDevice) -> tuple[int, ...]:
    sizes: list[int] = []
    while True:
        device.write(Register.QUEUE_SEL, len(sizes))
        size = await device.read(Register.QUEUE_NUM_MAX)
        if not size:
            return tuple(sizes)
        sizes.append(size)
