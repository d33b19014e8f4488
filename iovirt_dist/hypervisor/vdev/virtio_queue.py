"""A virtqueue as its device sees it: registers, its armed life, and completions on their way to the driver.

The ring itself is walked in the guest's process (see `wire.queue_messages`); what is here is the other end of that.
A queue is *armed* while the driver's side of it may be used: each time it is, it gets a new generation, which is in
every message about it. What the guest's process was told (`announced`) follows that at the next flush, so a queue that
is enabled and disabled within one step costs no messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from iovirt_dist.hypervisor.vdev.device import State
from iovirt_dist.virtio.features import Feature, has
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.queue_messages import NEVER
from iovirt_dist.wire.requests import COMPLETION

NOT_ARMED = 0
"""Generation of a queue that is not armed."""

_ALIGNMENT_SPLIT = (16, 2, 4)
"""Bytes, of descriptor table, available ring and used ring (VIRTIO 1.2, section 2.7)."""
_ALIGNMENT_PACKED = (16, 4, 4)
"""Bytes, of descriptor ring and both event suppression structures (section 2.8)."""
_pack = COMPLETION.pack


class QueueHost(Protocol):
    """What carries a queue's completions to the driver: `intercept.driver`."""

    def touch(self, queue: VirtioQueue) -> None:
        """Have the queue looked at in the next flush. Called once until then."""
        ...

    def next_generation(self) -> int:
        """Return the generation of a queue that is being armed, 1..2**32-1."""
        ...

    def fault(self, device: int, reason: str) -> None:
        """A device asks to be reset because of what its driver did; count the reason."""
        ...


class VirtioQueue:
    """One queue of a device.

    Args:
        device: Number of the device in its machine.
        number: Number of the queue in its device.
        maximum: Largest Queue Size.
        header_bytes: Readable bytes at the start of each request that travel inside its entry.
        host: Where completions go.

    Attributes:
        size: Queue Size, as are `ready`, `descriptors`, `driver_area` and `device_area` the driver's registers.
        generation: Of the armed life, `NOT_ARMED` without one.
        announced: Generation that the guest's process was told of last.
        interrupt_at: See `Doorbell.interrupt_at`.
        completed: Completions that left since the queue was armed.
        outstanding: Requests that came and did not leave again.
        completions: Packed entries that wait for the flush.
        wanting: Whether the flush shall ask the guest's process for requests that no doorbell told of.
        joined: Which of these entries must not reach the driver later than the one before, by index.
        pieces: Data of these entries, where they have any, in their order; each piece is the data of whole entries.
        piece_bytes: Sum of their lengths.
    """

    __slots__ = (
        "_host",
        "_touched",
        "announced",
        "completed",
        "completions",
        "descriptors",
        "device",
        "device_area",
        "driver_area",
        "generation",
        "header_bytes",
        "interrupt_at",
        "joined",
        "maximum",
        "number",
        "outstanding",
        "piece_bytes",
        "pieces",
        "ready",
        "size",
        "wanting",
    )

    def __init__(self, device: int, number: int, maximum: int, header_bytes: int, host: QueueHost) -> None:
        self.device = device
        self.number = number
        self.maximum = maximum
        self.header_bytes = header_bytes
        self._host = host
        self._touched = self.wanting = False
        self.generation = self.announced = NOT_ARMED
        self.completions: list[bytes] = []
        self.joined: set[int] = set()
        self.pieces: list[Buffer] = []
        self.piece_bytes = self.completed = self.outstanding = 0
        self.interrupt_at = NEVER
        self.reset_registers()

    def reset_registers(self) -> None:
        """Take the values after a device reset."""
        self.size = self.maximum
        self.ready = False
        self.descriptors = self.driver_area = self.device_area = 0

    def problem(self, features: int) -> str:
        """Why the queue cannot be armed with these negotiated features, a word for counting; empty if it can.

        Source: VIRTIO 1.2, sections 2.7 (sizes and alignment of the split layout) and 2.8.
        """
        packed = has(features, Feature.RING_PACKED)
        if not packed and self.size & (self.size - 1):
            return "queue-size"
        areas = zip(
            (self.descriptors, self.driver_area, self.device_area),
            _ALIGNMENT_PACKED if packed else _ALIGNMENT_SPLIT,
            strict=True,
        )
        return "queue-alignment" if any(address % alignment for address, alignment in areas) else ""

    def arm(self) -> None:
        """Begin an armed life; the guest's process hears of it with the next flush."""
        self._end_life()
        self.generation = self._host.next_generation()
        self.touch()

    def disarm(self) -> None:
        """End the armed life, if there is one; what was not flushed is dropped."""
        if self.generation != NOT_ARMED:
            self._end_life()
            self.touch()

    def complete(self, head: int, data: Buffer = b"", tail: int | None = None) -> None:
        """Return a request to the driver, with the next flush.

        Args:
            head: The request's number.
            data: Bytes for the start of its writable part, at most that long.
            tail: Value for its last writable byte, None to leave that.
        """
        if self.generation == NOT_ARMED:
            return
        length = len(data)
        self.completions.append(_pack(head, 0, 0, length) if tail is None else _pack(head, 1, tail, length))
        if length:
            self.pieces.append(data)
            self.piece_bytes += length
        if not self._touched:
            self.touch()

    def complete_many(self, entries: Sequence[bytes], frames: Sequence[Buffer], data_bytes: int) -> None:
        """Return requests to the driver, with the next flush.

        Args:
            entries: Packed (`wire.requests.COMPLETION`).
            frames: Their data in their order, the data of whole requests in each.
            data_bytes: Sum of their lengths.
        """
        if self.generation == NOT_ARMED:
            return
        self.completions += entries
        self.pieces += frames
        self.piece_bytes += data_bytes
        if not self._touched:
            self.touch()

    def complete_together(self, heads: Sequence[int], pieces: Sequence[Buffer]) -> None:
        """Return requests that the driver must find used all at once, with the next flush.

        Args:
            heads: Their numbers.
            pieces: Data of each, not empty.
        """
        first = len(self.completions)
        for head, piece in zip(heads, pieces, strict=True):
            self.complete(head, piece)
        self.joined.update(range(first + 1, len(self.completions)))

    def want(self) -> None:
        """Have the ring looked at for requests: there are drivers that ring no doorbell for them."""
        if self.generation != NOT_ARMED:
            self.wanting = True
            self.touch()

    def touch(self) -> None:
        """Have the queue looked at in the next flush."""
        if not self._touched:
            self._touched = True
            self._host.touch(self)

    def flushed(self) -> None:
        """The flush has looked at the queue and taken what there was."""
        self._touched = self.wanting = False
        self.completed += len(self.completions)
        self.outstanding -= len(self.completions)
        self._clear()

    def _clear(self) -> None:
        self.completions, self.pieces, self.piece_bytes = [], [], 0
        if self.joined:
            self.joined = set()

    def _end_life(self) -> None:
        self.generation = NOT_ARMED
        self.wanting = False
        self._clear()
        self.completed = self.outstanding = 0
        self.interrupt_at = NEVER

    def state(self) -> State:
        """Registers, the armed life, and what waits for the flush."""
        return {
            "registers": [self.size, self.ready, self.descriptors, self.driver_area, self.device_area],
            "life": [self.generation, self.announced, self.interrupt_at, self.completed, self.outstanding],
            "wanting": self.wanting,
            "completions": list(self.completions),
            "joined": sorted(self.joined),
            "pieces": [bytes(piece) for piece in self.pieces],
        }

    def restore(self, state: State) -> None:
        """Take over a state. A life that the guest's process knows of goes on there as it is."""
        self.size, self.ready, self.descriptors, self.driver_area, self.device_area = state["registers"]
        self.generation, self.announced, self.interrupt_at, self.completed, self.outstanding = state["life"]
        self.completions, self.pieces = list(state["completions"]), list(state["pieces"])
        self.joined = set(state["joined"])
        self.piece_bytes = sum(map(len, self.pieces))
        self.wanting = state["wanting"]
        if self.completions or self.wanting or self.announced != self.generation:
            self.touch()
