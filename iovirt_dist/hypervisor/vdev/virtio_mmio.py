"""The virtio-mmio transport, version 2: registers, negotiation and interrupts of one virtio device.

Source: Virtual I/O Device (VIRTIO) Version 1.2, sections 2.1 (status), 2.2 (features), 3.1.1 (initialisation), 4.2.2
(registers).

Theory of operation. A queue is armed while its QueueReady is 1 and the device is live: DRIVER_OK set, neither FAILED
nor DEVICE_NEEDS_RESET. Every write that can change that ends in `_rearm`.

Acknowledging. The ring is in the guest's process, so a used buffer is seen there later than its bit is set in
InterruptStatus here. A driver that has read the register may acknowledge bits that rose after it read, for completions
that it has not seen: it would look at its ring too early, and never again. Real devices cannot get there, as they write
the ring first. Therefore InterruptACK does not take back what no read of InterruptStatus has shown: the line stays up
and the driver is called once more, for nothing at worst (section 2.7.7.1 allows that). It does so once per batch: a
driver that acknowledges without reading gets through with its second write.
"""

from __future__ import annotations

from collections.abc import Callable

from iovirt_dist.hypervisor.vdev.device import IrqLine, Quiet, State
from iovirt_dist.hypervisor.vdev.registers import with_half
from iovirt_dist.hypervisor.vdev.virtio_function import VirtioFunction
from iovirt_dist.hypervisor.vdev.virtio_queue import NOT_ARMED, QueueHost, VirtioQueue
from iovirt_dist.virtio import mmio
from iovirt_dist.virtio.features import Feature, has, mask
from iovirt_dist.virtio.mmio import InterruptBit, Register, Status

RING_FEATURES = mask(Feature.RING_INDIRECT_DESC, Feature.RING_EVENT_IDX, Feature.VERSION_1, Feature.RING_PACKED)
"""What every device offers besides the features of its class."""

_USED, _CONFIGURATION = int(InterruptBit.USED_BUFFER), int(InterruptBit.CONFIGURATION)
_FEATURES_OK, _DRIVER_OK = int(Status.FEATURES_OK), int(Status.DRIVER_OK)
_NEEDS_RESET, _FAILED = int(Status.DEVICE_NEEDS_RESET), int(Status.FAILED)
_FREELY_SET = int(Status.ACKNOWLEDGE | Status.DRIVER | Status.FAILED)
"""Status bits that need no condition."""
_LIVE, _LIVE_MASK = _DRIVER_OK, _DRIVER_OK | _NEEDS_RESET | _FAILED
_ONES = {width: (1 << 8 * width) - 1 for width in (1, 2, 4)}
_LOW = _ONES[4]
_CONFIG = int(Register.CONFIG)


class VirtioMmio(Quiet):
    """A virtio device in a virtio-mmio window; a `Device`, and the `FunctionPort` of its function.

    Control registers are 32 bits wide: narrower reads give a part of one, narrower writes are ignored (a driver may do
    neither, section 4.2.2.2).

    Args:
        number: The device's number in its machine.
        base: Guest physical address of the window.
        function: What the device does.
        irq: Interrupt output, level-triggered: high while InterruptStatus is not 0.
        host: What carries its queues' messages.

    Attributes:
        status: Device status.
        interrupt_status: InterruptStatus.
        features: Features that the driver accepted; they count from FEATURES_OK on.
        offered: Features that the device offers.
        notify_traps: Stores to QueueNotify that came here: the queue was not armed, or armed a moment later. Nothing
            is lost with them: the guest's process looks at a ring when it arms it.
    """

    max_width = 4

    def __init__(self, number: int, base: int, function: VirtioFunction, irq: IrqLine, host: QueueHost) -> None:
        self.number = number
        self.notify_address = base + Register.QUEUE_NOTIFY
        self.function = function
        self.offered = function.features | RING_FEATURES
        sizes = zip(function.queue_sizes, function.header_bytes, strict=True)
        self.queues = tuple(VirtioQueue(number, at, size, header, host) for at, (size, header) in enumerate(sizes))
        self.notify_traps = 0
        self._irq = irq
        self._host = host
        self._generation = 0
        self._clear()
        function.connect(self)
        self._readers: dict[int, Callable[[], int]] = {
            Register.MAGIC_VALUE: lambda: mmio.MAGIC,
            Register.VERSION: lambda: mmio.VERSION,
            Register.DEVICE_ID: lambda: function.device_id,
            Register.VENDOR_ID: lambda: mmio.VENDOR,
            Register.DEVICE_FEATURES: lambda: _half(self.offered, self._device_features_sel),
            Register.QUEUE_NUM_MAX: lambda: queue.maximum if (queue := self._queue()) else 0,
            Register.QUEUE_READY: lambda: int(queue.ready) if (queue := self._queue()) else 0,
            Register.INTERRUPT_STATUS: self._read_interrupt_status,
            Register.STATUS: lambda: self.status,
            Register.SHM_LEN_LOW: lambda: mmio.ABSENT_REGION & _LOW,
            Register.SHM_LEN_HIGH: lambda: mmio.ABSENT_REGION >> 32,
            Register.SHM_BASE_LOW: lambda: mmio.ABSENT_REGION & _LOW,
            Register.SHM_BASE_HIGH: lambda: mmio.ABSENT_REGION >> 32,
            Register.CONFIG_GENERATION: lambda: self._generation,
        }
        self._writers: dict[int, Callable[[int], None]] = {
            Register.DEVICE_FEATURES_SEL: self._write_device_features_sel,
            Register.DRIVER_FEATURES: self._write_driver_features,
            Register.DRIVER_FEATURES_SEL: self._write_driver_features_sel,
            Register.QUEUE_SEL: self._write_queue_sel,
            Register.QUEUE_NUM: self._write_queue_num,
            Register.QUEUE_READY: self._write_queue_ready,
            Register.QUEUE_NOTIFY: self._write_queue_notify,
            Register.INTERRUPT_ACK: self._write_interrupt_ack,
            Register.STATUS: self._write_status,
        }

    def _clear(self) -> None:
        """Take the values after a reset; the configuration generation goes on (section 2.5)."""
        self.status = self.features = 0
        self.interrupt_status = self._unseen = 0
        self._device_features_sel = self._driver_features_sel = self._queue_sel = 0

    # --- Device

    def read(self, offset: int, width: int, now_ns: int) -> int:
        """Read a register, or configuration space as far as the device has any; what is not there reads 0."""
        if offset >= _CONFIG:
            at = offset - _CONFIG
            return int.from_bytes(self.function.config[at : at + width], "little")
        reader = self._readers.get(offset & ~3)
        return reader() >> 8 * (offset & 3) & _ONES[width] if reader else 0

    def write(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """Write a register or configuration space."""
        if offset >= _CONFIG:
            self.function.write_config(offset - _CONFIG, width, value, now_ns)
        elif width == 4:
            writer = self._writers.get(offset)
            if writer:
                writer(value)
            elif Register.QUEUE_DESC_LOW <= offset <= Register.QUEUE_DEVICE_HIGH:
                self._write_queue_address(offset, value)

    def state(self) -> State:
        """Registers, queues, and the function's state."""
        return {
            "status": self.status,
            "features": self.features,
            "interrupt_status": self.interrupt_status,
            "unseen": self._unseen,
            "generation": self._generation,
            "selected": [self._device_features_sel, self._driver_features_sel, self._queue_sel],
            "notify_traps": self.notify_traps,
            "config": self.function.config,
            "queues": [queue.state() for queue in self.queues],
            "function": self.function.state(),
        }

    def restore(self, state: State) -> None:
        """Take over a state and drive the interrupt line accordingly."""
        self.status, self.features = state["status"], state["features"]
        self.interrupt_status, self._unseen = state["interrupt_status"], state["unseen"]
        self._generation = state["generation"]
        self._device_features_sel, self._driver_features_sel, self._queue_sel = state["selected"]
        self.notify_traps = state["notify_traps"]
        for queue, saved in zip(self.queues, state["queues"], strict=True):
            queue.restore(saved)
        self.function.config = state["config"]
        self.function.restore(state["function"])
        self._drive()

    # --- FunctionPort, and what the interception asks for

    def config_changed(self) -> None:
        """Count the configuration's generation (section 2.5) and tell the driver (section 4.2.2, InterruptStatus)."""
        self._generation = self._generation + 1 & _LOW
        if self.status & _DRIVER_OK:
            self._raise(_CONFIGURATION)

    def needs_reset(self, reason: str) -> None:
        """Stop, say so in the status, and send the configuration change notification (section 2.1.2)."""
        self._host.fault(self.number, reason)
        self.status |= _NEEDS_RESET
        self._rearm()
        if self.status & _DRIVER_OK:
            self._raise(_CONFIGURATION)

    def used_buffer(self, *, seen: bool) -> None:
        """Interrupt for used buffers.

        Args:
            seen: They are in the used ring already; False: they are on their way there.
        """
        if not seen:
            self._unseen |= _USED
        self._raise(_USED)

    # --- interrupts

    def _raise(self, bit: int) -> None:
        self.interrupt_status |= bit
        self._drive()

    def _drive(self) -> None:
        self._irq(self.interrupt_status != 0)

    def _read_interrupt_status(self) -> int:
        self._unseen = 0
        return self.interrupt_status

    def _write_interrupt_ack(self, value: int) -> None:
        acknowledged = value & ~self._unseen
        self._unseen &= ~value
        self.interrupt_status &= ~acknowledged
        self._drive()

    # --- status and features

    def _write_status(self, value: int) -> None:
        """Take the bits that the driver adds; only a reset takes bits away (section 2.1.1)."""
        if value == 0:
            self._reset()
            return
        self.status |= value & _FREELY_SET
        if value & _FEATURES_OK and self._acceptable():
            self.status |= _FEATURES_OK
        if value & _DRIVER_OK and self.status & (_FEATURES_OK | _DRIVER_OK) == _FEATURES_OK:
            self.status |= _DRIVER_OK
            self.function.enable(self.features)
        self._rearm()

    def _acceptable(self) -> bool:
        """Whether the driver's features are a subset of what is offered, VERSION_1 among them (sections 2.2.2, 6.2)."""
        return not self.features & ~self.offered and has(self.features, Feature.VERSION_1)

    def _reset(self) -> None:
        """Forget everything, queues included (section 2.4); no interrupt is pending afterwards."""
        self._clear()
        self._rearm()
        for queue in self.queues:
            queue.reset_registers()
        self.function.reset()
        self._drive()

    def _write_device_features_sel(self, value: int) -> None:
        self._device_features_sel = value

    def _write_driver_features_sel(self, value: int) -> None:
        self._driver_features_sel = value

    def _write_driver_features(self, value: int) -> None:
        """Take 32 features, until they are agreed on (section 3.1.1, step 5). There are none above bit 63."""
        if not self.status & _FEATURES_OK and self._driver_features_sel <= 1:
            shift = 32 * self._driver_features_sel
            self.features = self.features & ~(_LOW << shift) | value << shift

    # --- queues

    def _queue(self) -> VirtioQueue | None:
        """The queue that the queue registers mean."""
        return self.queues[self._queue_sel] if self._queue_sel < len(self.queues) else None

    def _write_queue_sel(self, value: int) -> None:
        self._queue_sel = value

    def _write_queue_num(self, value: int) -> None:
        queue = self._queue()
        if queue and not queue.ready and 1 <= value <= queue.maximum:
            queue.size = value

    def _write_queue_address(self, offset: int, value: int) -> None:
        """Take half of an address, unless the queue is in use (section 4.2.2.2)."""
        queue = self._queue()
        if queue is None or queue.ready:
            return
        high, area = bool(offset & 4), offset & ~4
        if area == Register.QUEUE_DESC_LOW:
            queue.descriptors = with_half(queue.descriptors, high, value)
        elif area == Register.QUEUE_DRIVER_LOW:
            queue.driver_area = with_half(queue.driver_area, high, value)
        elif area == Register.QUEUE_DEVICE_LOW:
            queue.device_area = with_half(queue.device_area, high, value)

    def _write_queue_ready(self, value: int) -> None:
        queue = self._queue()
        if queue:
            queue.ready = bool(value & 1)
            self._rearm()

    def _write_queue_notify(self, _value: int) -> None:
        self.notify_traps += 1

    def _rearm(self) -> None:
        """Arm and disarm queues as registers and status now have it."""
        live = self.status & _LIVE_MASK == _LIVE
        for queue in self.queues:
            if queue.generation != NOT_ARMED and not (live and queue.ready):
                queue.disarm()
                self.function.stop(queue.number)
            elif queue.generation == NOT_ARMED and live and queue.ready:
                problem = queue.problem(self.features)
                if problem:
                    self.needs_reset(problem)
                    return
                queue.arm()


def _half(value: int, select: int) -> int:
    """32 of the bits of a set; there are none above bit 63."""
    return value >> 32 * select & _LOW if select <= 1 else 0
