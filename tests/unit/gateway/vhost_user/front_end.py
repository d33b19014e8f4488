"""The other side: what a front end sends, message by message, and descriptors that are only numbers."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Sequence

from iovirt_dist.gateway.vhost_user.actions import Action, CloseFds, Send
from iovirt_dist.gateway.vhost_user.backend import Backend
from iovirt_dist.gateway.vhost_user.device import DeviceFacts
from iovirt_dist.gateway.vhost_user.memory import MappingError
from iovirt_dist.gateway.vhost_user.messages import Region, Request

VERSION_1 = 1 << 32
PROTOCOL = 1 << 30
ALL_PROTOCOL = sum(1 << bit for bit in (0, 3, 5, 9, 12, 13, 15, 16))
FACTS = DeviceFacts(VERSION_1 | 1 << 34 | 1 << 9, (256, 64), b"0123456789abcdef")

GUEST = 0x8000_0000
USER = 0x7F00_0000_0000
REGION = Region(GUEST, 0x1_0000, USER, 0)

BAD_FD = 13
"""A descriptor that is no file and no event."""


def message(request: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """Header and payload."""
    return struct.pack("=III", request, 1 | flags, len(payload)) + payload


def number(request: int, value: int, flags: int = 0) -> bytes:
    """A message whose payload is a u64."""
    return message(request, struct.pack("=Q", value), flags)


def state(request: int, queue: int, value: int, flags: int = 0) -> bytes:
    """A message whose payload is a vring state."""
    return message(request, struct.pack("=II", queue, value), flags)


def address(queue: int, descriptors: int, available: int, used: int, flags: int = 0) -> bytes:
    """SET_VRING_ADDR."""
    return message(Request.SET_VRING_ADDR, struct.pack("=IIQQQQ", queue, 0, descriptors, used, available, 0), flags)


def table(regions: Sequence[Region], flags: int = 0, room: int = 0) -> bytes:
    """SET_MEM_TABLE, with room for more regions behind those that it counts."""
    payload = struct.pack("=II", len(regions), 0) + b"".join(struct.pack("=QQQQ", *region) for region in regions)
    return message(Request.SET_MEM_TABLE, payload + bytes(32 * room), flags)


def single(request: int, region: Region, flags: int = 0) -> bytes:
    """ADD_MEM_REG or REM_MEM_REG."""
    return message(request, struct.pack("=QQQQQ", 0, *region), flags)


def config(request: int, offset: int, data: bytes, flags: int = 0) -> bytes:
    """GET_CONFIG or SET_CONFIG."""
    return message(request, struct.pack("=III", offset, len(data), 0) + data, flags)


def inflight(request: int, size_bytes: int, queues: int, queue_size: int, flags: int = 0) -> bytes:
    """GET_INFLIGHT_FD or SET_INFLIGHT_FD, padded as QEMU does."""
    return message(request, struct.pack("=QQHHI", size_bytes, 0, queues, queue_size, 0), flags)


def reply_of(request: int, payload: bytes) -> bytes:
    """What the back end answers."""
    return struct.pack("=III", request, 5, len(payload)) + payload


def ack(request: int, value: int = 0) -> Send:
    """The answer to NEED_REPLY."""
    return Send(reply_of(request, struct.pack("=Q", value)))


def u64(value: int) -> bytes:
    """A payload."""
    return struct.pack("=Q", value)


def the(fd: int | None) -> int:
    """Return a descriptor that is there."""
    assert fd is not None
    return fd


class FakeMapper:
    """Memory is bytes; descriptors from 100 up are real to it.

    Attributes:
        files: Bytes behind each descriptor.
        created: Descriptors that were made.
    """

    def __init__(self) -> None:
        self.files: dict[int, bytearray] = {}
        self.created: list[int] = []

    def map(self, file: int, offset: int, length: int) -> memoryview:
        """Map a part of a file of a megabyte."""
        data = self.files.setdefault(file, bytearray(1 << 20))
        if file == BAD_FD or offset + length > len(data):
            raise MappingError("file-kind", str(file))
        return memoryview(data)[offset : offset + length]

    def create(self, length: int) -> tuple[int, memoryview]:
        """Make a file."""
        file = 1000 + len(self.created)
        self.created.append(file)
        self.files[file] = bytearray(length)
        return file, memoryview(self.files[file])

    def check_event(self, file: int) -> None:
        """Check."""
        if file == BAD_FD:
            raise MappingError("event-kind", str(file))


class FrontEnd:
    """A front end whose descriptors are counted.

    Args:
        facts: What the device is like; None if that is not known yet.

    Attributes:
        backend: Whom it talks to.
        open: Descriptors that the back end has.
    """

    def __init__(self, facts: DeviceFacts | None = FACTS) -> None:
        self.mapper = FakeMapper()
        self.backend = Backend(self.mapper)
        self.open: set[int] = set()
        self._numbers = itertools.count(100)
        if facts is not None:
            self.backend.describe(facts)
        self.backend.connect()

    def fd(self) -> int:
        """Return a new descriptor."""
        return next(self._numbers)

    def send(self, data: bytes, *fds: int) -> list[Action]:
        """Send a message; return what the back end wants done."""
        self.open.update(fds)
        return self.did(self.backend.receive(data, fds))

    def did(self, actions: Iterable[Action]) -> list[Action]:
        """Account for what is closed; each descriptor once."""
        done = list(actions)
        for action in done:
            if isinstance(action, CloseFds):
                assert self.open.issuperset(action.fds)
                self.open.difference_update(action.fds)
        return done

    def negotiate(self, features: int = VERSION_1 | PROTOCOL, protocol: int = ALL_PROTOCOL) -> None:
        """Do what comes first."""
        self.send(message(Request.SET_OWNER))
        self.send(message(Request.GET_FEATURES))
        self.send(message(Request.GET_PROTOCOL_FEATURES))
        self.send(number(Request.SET_PROTOCOL_FEATURES, protocol))
        self.send(number(Request.SET_FEATURES, features))

    def set_up(self, queue: int = 0, size: int = 8) -> None:
        """Describe memory and a queue, all but what starts it."""
        self.send(table([REGION]), self.fd())
        self.send(number(Request.SET_VRING_CALL, queue), self.fd())
        self.send(state(Request.SET_VRING_NUM, queue, size))
        self.send(state(Request.SET_VRING_BASE, queue, 5))
        self.send(address(queue, USER, USER + 0x1000, USER + 0x2000))

    def start(self, queue: int = 0, size: int = 8) -> list[Action]:
        """Describe and start a queue; return what the last message did."""
        self.set_up(queue, size)
        self.send(number(Request.SET_VRING_KICK, queue), self.fd())
        return self.send(state(Request.SET_VRING_ENABLE, queue, 1))
