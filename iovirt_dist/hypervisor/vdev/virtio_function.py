"""What a virtio device does, apart from the transport that it is reached through.

A *function* is a device class (VIRTIO 1.2, section 5): it knows requests and configuration, and neither registers nor
rings. Its transport, `virtio_mmio`, knows these and nothing of what the requests mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from iovirt_dist.hypervisor.vdev.device import State
from iovirt_dist.hypervisor.vdev.virtio_queue import VirtioQueue
from iovirt_dist.wire.requests import QueueRequest


class FunctionPort(Protocol):
    """What a function may use of its transport."""

    @property
    def queues(self) -> Sequence[VirtioQueue]:
        """The device's queues; requests are returned through `VirtioQueue.complete`."""
        ...

    def config_changed(self) -> None:
        """The configuration space is another now: new generation, configuration change notification."""
        ...

    def needs_reset(self, reason: str) -> None:
        """The driver broke the rules: set DEVICE_NEEDS_RESET (section 2.1.2), stop all queues, count the reason."""
        ...


class VirtioFunction(Protocol):
    """A device class with its backend.

    Attributes:
        device_id: `virtio.features.DeviceId`.
        features: Offered features of the device class, a set of bits.
        queue_sizes: Largest size of each queue.
        header_bytes: For each queue, see `VirtioQueue`.
        config: Configuration space as it reads now.
    """

    device_id: int
    features: int
    queue_sizes: Sequence[int]
    header_bytes: Sequence[int]
    config: bytes

    def connect(self, port: FunctionPort) -> None:
        """Learn which transport this is behind; called once, before everything else."""
        ...

    def enable(self, features: int) -> None:
        """The driver is ready (DRIVER_OK).

        Args:
            features: Negotiated features.
        """
        ...

    def reset(self) -> None:
        """The device was reset; all its queues were stopped before."""
        ...

    def stop(self, queue: int) -> None:
        """The queue is no longer armed: forget its requests; completions of its backend's are void."""
        ...

    def requests(self, queue: int, batch: list[QueueRequest], now_ns: int) -> None:
        """Take requests that the driver made available, in their order. What they hold is untrusted.

        Each is returned by `VirtioQueue.complete`, at once or later.
        """
        ...

    def write_config(self, offset: int, width: int, value: int, now_ns: int) -> None:
        """The driver writes configuration space: 1, 2 or 4 bytes anywhere, fields or not."""
        ...

    def state(self) -> State:
        """Return everything but `config`; as in `Device`."""
        ...

    def restore(self, state: State) -> None:
        """Take over a state; what its backend had not completed is asked of it once more."""
        ...
