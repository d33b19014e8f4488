"""What one front end has told: features, memory, queues; and what each of its requests changes.

Every descriptor that is kept is in `Vring` or `request_fd`, and nowhere else. A request either does all that it asks
for or raises and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from iovirt_dist.gateway.vhost_user.actions import (
    Action,
    CallChanged,
    CloseFds,
    KickChanged,
    MemoryChanged,
    QueueStarted,
    QueueStopping,
    Send,
    StatusChanged,
)
from iovirt_dist.gateway.vhost_user.device import NEEDS, NOT_OURS, OFFERED_PROTOCOL_FEATURES, DeviceFacts, RequestError
from iovirt_dist.gateway.vhost_user.inflight import InflightRegion, QueueLog, create_region, take_region
from iovirt_dist.gateway.vhost_user.memory import MAX_SLOTS, Mapper, RegionMemory
from iovirt_dist.gateway.vhost_user.messages import (
    MAX_CONFIG_BYTES,
    PROTOCOL_FEATURES,
    ConfigSpace,
    Inflight,
    Message,
    ProtocolFeature,
    Region,
    Request,
    VringAddress,
    VringFile,
    VringState,
    reply_config,
    reply_inflight,
    reply_number,
    reply_state,
)
from iovirt_dist.gateway.vhost_user.vring import RingState, Vring, areas
from iovirt_dist.virtio.features import has, mask
from iovirt_dist.virtio.memory import MemoryRangeError


class Connection:
    """The state of one connection.

    Args:
        mapper: Maps what the front end shares.
        facts: What the device is like.

    Attributes:
        facts: As above; the configuration space may change.
        features: Negotiated, without `PROTOCOL_FEATURES`.
        enables: Whether the front end enables queues one by one (`PROTOCOL_FEATURES` is negotiated).
        protocol_features: Negotiated.
        status: Device status register.
        memory: The regions.
        queues: All queues of the device.
        request_fd: For requests of ours; None if the front end takes none.
    """

    def __init__(self, mapper: Mapper, facts: DeviceFacts) -> None:
        self.facts = facts
        self.features = 0
        self.enables = False
        self.protocol_features = 0
        self.status = 0
        self.memory = RegionMemory(mapper)
        self.queues = [Vring() for _ in facts.queue_sizes]
        self.request_fd: int | None = None
        self._mapper = mapper
        self._inflight: InflightRegion | None = None

    @property
    def fds(self) -> tuple[int, ...]:
        """All descriptors that are kept."""
        kept = [fd for vring in self.queues for fd in vring.fds]
        return tuple(kept if self.request_fd is None else [*kept, self.request_fd])

    @property
    def offered(self) -> int:
        """Features that the front end may choose from."""
        return self.facts.features & ~NOT_OURS | mask(PROTOCOL_FEATURES)

    def negotiated(self, feature: ProtocolFeature) -> bool:
        """Whether both sides have a protocol feature."""
        return has(self.protocol_features, feature)

    def handle(self, message: Message) -> list[Action]:
        """Carry out a request that we know.

        Returns:
            What must be done; with the reply, if it is one that is ready. Descriptors of `KEEPS_FDS` are kept now.

        Raises:
            RequestError: It cannot be.
            MappingError: A descriptor is not what is said.
            RegionError: The memory table cannot be.
            InflightError: The memory for requests in flight cannot be.
        """
        request = Request(message.request)
        needed = NEEDS.get(request)
        if needed is not None and not self.negotiated(needed):
            raise RequestError("protocol-feature", needed.name)
        return _HANDLERS[request](self, message)

    def stop(self) -> list[Action]:
        """Stop all queues that run."""
        return [action for queue in range(len(self.queues)) for action in self._stop(queue)]

    def reset_rings(self) -> list[Action]:
        """The device is reset: no queue is enabled, and each must be told anew. Memory and calls stay."""
        actions: list[Action] = []
        for queue, vring in enumerate(self.queues):
            if vring.kick is not None:
                actions.append(CloseFds((vring.kick,)))
            self.queues[queue] = Vring(call=vring.call, err=vring.err)
        self.status = 0
        self._inflight = None
        return actions

    def base_reply(self, queue: int) -> list[Action]:
        """Tell where a queue has stopped (GET_VRING_BASE); it starts with another kick."""
        vring = self.queues[queue]
        reply = Send(reply_state(Request.GET_VRING_BASE, VringState(queue, vring.base)))
        kick, vring.kick = vring.kick, None
        return [reply] if kick is None else [CloseFds((kick,)), reply]

    # --- queues

    def _queue(self, number: int) -> Vring:
        if number >= len(self.queues):
            raise RequestError("queue-number", f"{number} of {len(self.queues)}")
        return self.queues[number]

    def _stopped_queue(self, number: int) -> Vring:
        vring = self._queue(number)
        if vring.started:
            raise RequestError("queue-running", str(number))
        return vring

    def _stop(self, queue: int) -> list[Action]:
        vring = self.queues[queue]
        if not vring.started:
            return []
        vring.state = RingState.STOPPING
        return [QueueStopping(queue)]

    def start(self, queue: int) -> list[Action]:
        """Start a queue if it can run."""
        vring = self.queues[queue]
        if not vring.ready or (self.enables and not vring.enabled):
            return []
        try:
            vring.locate(self.memory)
        except MemoryRangeError:
            return []
        kept = self._inflight.log(queue, vring.size) if self._inflight else None
        vring.log = kept or QueueLog.local(vring.size)
        vring.state = RingState.STARTED
        return [QueueStarted(queue)]

    def _start_all(self) -> list[Action]:
        return [action for queue in range(len(self.queues)) for action in self.start(queue)]

    # --- requests: features

    def _get_features(self, message: Message) -> list[Action]:
        return [Send(reply_number(message.request, self.offered))]

    def _set_features(self, message: Message) -> list[Action]:
        assert isinstance(message.body, int)
        unknown = message.body & ~self.offered
        if unknown:
            raise RequestError("feature-unknown", f"{unknown:#x}")
        chosen, enables = message.body & ~mask(PROTOCOL_FEATURES), has(message.body, PROTOCOL_FEATURES)
        if (chosen, enables) != (self.features, self.enables) and any(vring.started for vring in self.queues):
            raise RequestError("feature-late", f"{chosen:#x} instead of {self.features:#x}")
        self.features, self.enables = chosen, enables
        return self._start_all()

    def _get_protocol_features(self, message: Message) -> list[Action]:
        return [Send(reply_number(message.request, OFFERED_PROTOCOL_FEATURES))]

    def _set_protocol_features(self, message: Message) -> list[Action]:
        assert isinstance(message.body, int)
        unknown = message.body & ~OFFERED_PROTOCOL_FEATURES
        if unknown:
            raise RequestError("feature-unknown", f"protocol {unknown:#x}")
        self.protocol_features = message.body
        return []

    def _get_queue_num(self, message: Message) -> list[Action]:
        return [Send(reply_number(message.request, len(self.queues)))]

    def _set_owner(self, message: Message) -> list[Action]:
        del message
        return []

    # --- requests: memory

    def _set_mem_table(self, message: Message) -> list[Action]:
        self.memory.set_table(cast("tuple[Region, ...]", message.body), message.files)
        return self._moved()

    def _add_mem_reg(self, message: Message) -> list[Action]:
        assert isinstance(message.body, Region)
        self.memory.add(message.body, message.files[0])
        return self._moved()

    def _rem_mem_reg(self, message: Message) -> list[Action]:
        assert isinstance(message.body, Region)
        self.memory.remove(message.body)
        return self._moved()

    def _moved(self) -> list[Action]:
        """Stop queues whose areas are in no region any more; the others look again."""
        actions: list[Action] = []
        for queue, vring in enumerate(self.queues):
            if vring.started:
                try:
                    vring.locate(self.memory)
                except MemoryRangeError:
                    actions += self._stop(queue)
        if any(vring.started for vring in self.queues):
            actions.append(MemoryChanged())
        return actions + self._start_all()

    def _get_max_mem_slots(self, message: Message) -> list[Action]:
        return [Send(reply_number(message.request, MAX_SLOTS))]

    # --- requests: rings

    def _set_vring_num(self, message: Message) -> list[Action]:
        assert isinstance(message.body, VringState)
        queue, size = message.body
        vring = self._stopped_queue(queue)
        if not 1 <= size <= self.facts.queue_sizes[queue] or size & (size - 1):
            raise RequestError("queue-size", f"{size} entries, queue {queue} has {self.facts.queue_sizes[queue]}")
        if vring.address is not None:
            self._check_areas(vring.address, size)
        vring.size = size
        return self.start(queue)

    def _set_vring_addr(self, message: Message) -> list[Action]:
        assert isinstance(message.body, VringAddress)
        address = message.body
        vring = self._queue(address.queue)
        if vring.started and vring.address is not None:
            if address[2:5] != vring.address[2:5]:
                raise RequestError("queue-running", str(address.queue))
            return []
        self._check_areas(address, vring.size or 1)
        vring.address = address
        return self.start(address.queue)

    def _check_areas(self, address: VringAddress, size: int) -> None:
        try:
            areas(self.memory, address, size)
        except MemoryRangeError as error:
            raise RequestError("queue-memory", str(error)) from error

    def _set_vring_base(self, message: Message) -> list[Action]:
        assert isinstance(message.body, VringState)
        vring = self._stopped_queue(message.body.queue)
        if message.body.number > 0xFFFF:
            raise RequestError("queue-base", f"{message.body.number:#x}")
        vring.base = message.body.number
        return []

    def _get_vring_base(self, message: Message) -> list[Action]:
        assert isinstance(message.body, VringState)
        self._queue(message.body.queue)
        return self._stop(message.body.queue)

    def _set_vring_kick(self, message: Message) -> list[Action]:
        vring, queue, fd = self._event(message)
        if fd is None:
            raise RequestError("queue-polled", str(queue))
        old, vring.kick = vring.kick, fd
        changed: list[Action] = [KickChanged(queue)] if vring.started else []
        return changed + _close(old) + self.start(queue)

    def _set_vring_call(self, message: Message) -> list[Action]:
        vring, queue, fd = self._event(message)
        old, vring.call = vring.call, fd
        changed: list[Action] = [CallChanged(queue)] if vring.started else []
        return changed + _close(old)

    def _set_vring_err(self, message: Message) -> list[Action]:
        vring, _, fd = self._event(message)
        old, vring.err = vring.err, fd
        return _close(old)

    def _event(self, message: Message) -> tuple[Vring, int, int | None]:
        """Return the queue that a descriptor is for, its number, and the descriptor; None if it is to be polled."""
        assert isinstance(message.body, VringFile)
        vring = self._queue(message.body.queue)
        for fd in message.files:
            self._mapper.check_event(fd)
        return vring, message.body.queue, message.files[0] if message.files else None

    def _set_vring_enable(self, message: Message) -> list[Action]:
        assert isinstance(message.body, VringState)
        queue, enable = message.body
        vring = self._queue(queue)
        if enable > 1:
            raise RequestError("queue-enable", str(enable))
        vring.enabled = bool(enable)
        if not self.enables:  # QEMU's network front end says so before it has negotiated
            return []
        return self.start(queue) if enable else self._stop(queue)

    def _reset_owner(self, message: Message) -> list[Action]:
        """Disable all queues; those that run stop."""
        del message
        for vring in self.queues:
            vring.enabled = False
        return self.stop()

    def _reset_device(self, message: Message) -> list[Action]:
        del message
        return self.stop()

    # --- requests: the device

    def _set_backend_req_fd(self, message: Message) -> list[Action]:
        self._mapper.check_event(message.files[0])
        old, self.request_fd = self.request_fd, message.files[0]
        return _close(old)

    def _get_config(self, message: Message) -> list[Action]:
        """Tell the part; behind the end of the device's there are zeroes: drivers differ in how much they know."""
        assert isinstance(message.body, ConfigSpace)
        offset, flags, asked = message.body
        if offset + len(asked) > MAX_CONFIG_BYTES:
            raise RequestError("config-range", f"{len(asked)} bytes at {offset}")
        data = self.facts.config[offset : offset + len(asked)].ljust(len(asked), b"\0")
        return [Send(reply_config(message.request, ConfigSpace(offset, flags, data)))]

    def _set_config(self, message: Message) -> list[Action]:
        assert isinstance(message.body, ConfigSpace)
        raise RequestError("config-read-only", f"{len(message.body.data)} bytes at {message.body.offset}")

    def _set_status(self, message: Message) -> list[Action]:
        assert isinstance(message.body, int)
        if message.body > 0xFF:
            raise RequestError("status", f"{message.body:#x}")
        self.status = message.body
        return [StatusChanged(self.status)]

    def _get_status(self, message: Message) -> list[Action]:
        return [Send(reply_number(message.request, self.status))]

    def _get_inflight_fd(self, message: Message) -> list[Action]:
        assert isinstance(message.body, Inflight)
        if message.body.queues > len(self.queues):
            raise RequestError("inflight-queues", f"{message.body.queues} of {len(self.queues)}")
        fd, made = create_region(self._mapper, message.body)
        return [Send(reply_inflight(message.request, made), (fd,))]

    def _set_inflight_fd(self, message: Message) -> list[Action]:
        assert isinstance(message.body, Inflight)
        if any(vring.started for vring in self.queues):
            raise RequestError("queue-running", "")
        self._inflight = take_region(self._mapper, message.files[0], message.body)
        return []


def _close(fd: int | None) -> list[Action]:
    return [] if fd is None else [CloseFds((fd,))]


KEEPS_FDS: Final = frozenset(
    {Request.SET_VRING_KICK, Request.SET_VRING_CALL, Request.SET_VRING_ERR, Request.SET_BACKEND_REQ_FD}
)
"""Requests whose descriptors are kept if they succeed; those of others are done with."""

_HANDLERS: Final[dict[Request, Callable[[Connection, Message], list[Action]]]] = {
    request: getattr(Connection, f"_{request.name.lower()}") for request in Request
}
"""Each request has a method of its name."""
