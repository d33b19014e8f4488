"""A hostile front end: an honest one whose messages and descriptors are damaged, in any order."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from random import Random

from iovirt_dist.gateway.vhost_user.actions import (
    Action,
    CloseFds,
    Disconnect,
    QueueStarted,
    QueueStopping,
    Reset,
    Send,
    SendRequest,
    Signal,
)
from iovirt_dist.gateway.vhost_user.backend import Backend
from iovirt_dist.gateway.vhost_user.inflight import queue_bytes
from iovirt_dist.gateway.vhost_user.mapping import FileMapper
from iovirt_dist.gateway.vhost_user.messages import HEADER, NEED_REPLY, Region, Request
from iovirt_dist.virtio.memory import MemoryRangeError
from iovirt_dist.virtio.ring import RingError, RingSetup, device_ring
from tests.unit.gateway.vhost_user.front_end import (
    ALL_PROTOCOL,
    FACTS,
    PROTOCOL,
    VERSION_1,
    address,
    config,
    inflight,
    message,
    number,
    single,
    state,
    table,
)

FILE_BYTES = 0x3_0000
RAM = Region(0x1_0000, 0x1_0000, 0x7000_0000, 0x123)
RING = Region(0x10_0000, 0x4000, 0x7F00_0000, 0x1_1000)
EXTRA = Region(0x20_0000, 0x1000, 0x7E00_0000, 0)
EDGES = (0, 1, 2, 7, 8, 0xFF, 0x100, 0xFFF, 0x1000, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)

REASONS = {
    "header-size",
    "version",
    "flags",
    "message-size",
    "payload-size",
    "file-count",
    "region-count",
    "config-size",
    "vring-file",
    "unknown-request",
    "protocol-feature",
    "feature-unknown",
    "feature-late",
    "queue-number",
    "queue-size",
    "queue-base",
    "queue-running",
    "queue-memory",
    "queue-enable",
    "queue-polled",
    "config-range",
    "config-read-only",
    "status",
    "inflight-queues",
    "inflight-size",
    "region-empty",
    "region-wraps",
    "region-overlap",
    "region-unknown",
    "file-kind",
    "file-short",
    "map-failed",
    "event-kind",
    "flood",
    "region-slots",
    "memory-none",
}
RARE = {"flood", "region-slots", "memory-none"}
"""Which a unit test has: many messages, or much memory, would be needed for them."""


class Files:
    """What a front end may send: memory of some kinds, events, and what is neither."""

    def __init__(self, stack: ExitStack) -> None:
        self.memory = [_memfd(FILE_BYTES, os.MFD_ALLOW_SEALING), _memfd(FILE_BYTES, 0)]
        near, far = socket.socketpair()
        self.events = [os.eventfd(0, os.EFD_NONBLOCK), *os.pipe(), near.detach(), far.detach()]
        read_only = os.open(f"/proc/self/fd/{self.memory[0]}", os.O_RDONLY)
        self.other = [
            _memfd(0x1000, os.MFD_ALLOW_SEALING),
            read_only,
            os.open("/dev/null", os.O_RDWR),
            os.open("/dev/zero", os.O_RDWR),
            os.open("/", os.O_RDONLY),
        ]
        for fd in [*self.memory, *self.events, *self.other]:
            stack.callback(os.close, fd)


class Fuzzer:
    """One damaged connection after another, to one back end.

    Attributes:
        started: Queues that started in spite of everything.
        backend: Whom they talk to.
    """

    def __init__(self, files: Files, seed: int) -> None:
        self.random = Random(seed)
        self.files = files
        self.started = 0
        self.backend = Backend(FileMapper())
        self.backend.describe(FACTS)
        self._open: set[int] = set()
        self._answers: deque[Callable[[], list[Action]]] = deque()

    def run(self, inputs: int) -> None:
        """Let so many front ends come."""
        for _ in range(inputs):
            self._connect(self._damaged)
            assert not self._open
        self._connect(lambda messages: messages)
        assert not self._open

    def _connect(self, damage: Callable[[list[tuple[bytes, list[int]]]], list[tuple[bytes, list[int]]]]) -> None:
        """Let one front end come and go."""
        self._do(self.backend.connect())
        before = self.started
        honest = self._honest()
        sent = damage(honest)
        for data, kinds in sent:
            fds = [os.dup(fd) for fd in kinds]
            self._open.update(fds)
            self._do(self.backend.receive(data, fds))
            self._probe()
            if self.random.random() < 0.7:
                self._answer()
        assert sent is not honest or self.started == before + 1
        self._do(self.backend.disconnect())
        self._answer()

    def _answer(self) -> None:
        """Queues stop, and the device is reset, some time later."""
        while self._answers:
            self._do(self._answers.popleft()())

    def _do(self, actions: list[Action]) -> None:
        """Perform, with descriptors that are real: to close one that is closed already is an error."""
        for action in actions:
            match action:
                case CloseFds(fds):
                    self._close(fds)
                case Send(data, fds):
                    assert HEADER.unpack_from(data)[1] == 5
                    assert len(data) == HEADER.size + HEADER.unpack_from(data)[2]
                    for fd in fds:
                        os.close(fd)
                case SendRequest(fd) | Signal(fd):
                    assert fd in self._open
                case QueueStarted(queue):
                    self._walk(queue)
                case QueueStopping(queue):
                    base = self.random.randrange(1 << 16)
                    self._answers.append(partial(self.backend.queue_stopped, queue, base))
                case Reset():
                    self._answers.append(self.backend.device_reset)
                case Disconnect():
                    self._close_nothing_twice()
                case _:
                    pass

    def _close(self, fds: tuple[int, ...]) -> None:
        for fd in fds:
            self._open.remove(fd)
            os.close(fd)

    def _close_nothing_twice(self) -> None:
        """A connection that was cut off keeps nothing, and takes no more."""
        assert not self.backend.connected
        assert not self._open
        self._do(self.backend.connect())

    def _walk(self, queue: int) -> None:
        """Do what the owner of a queue does first; its ring and its list may contain anything."""
        self.started += 1
        vring = self.backend.queues[queue]
        assert vring.kick in self._open
        assert len(vring.log.resume(self.random.randrange(1 << 16), vring.size)) <= vring.size
        vring.log.taken([0])
        vring.log.batch([0])
        vring.log.published(1, [0])
        setup = RingSetup(vring.size, vring.descriptors, vring.driver_area, vring.device_area, self.backend.features)
        with suppress(RingError, MemoryRangeError):
            device_ring(self.backend.memory, setup).take(8)

    def _probe(self) -> None:
        """Ask for memory anywhere: it is in a region, or refused."""
        at = self.random.choice((RAM, RING, EXTRA)).guest_address + self.random.choice(
            (-1, 0, 0x3FFF, 0xFFFF, 0x1_0000)
        )
        length = self.random.choice((0, 1, 2, 0x1000, 0x1_0000, 1 << 40))
        regions = self.backend.memory.regions
        inside = any(r.guest_address <= at and at + length <= r.guest_address + r.size_bytes for r in regions)
        try:
            assert len(self.backend.memory.read(at, length)) == length
            found = True
        except MemoryRangeError:
            found = False
        assert found == inside

    def _honest(self) -> list[tuple[bytes, list[int]]]:
        """Return the messages of a front end that does all that there is."""
        need = self.random.choice((0, NEED_REPLY))
        memory, event = self.files.memory, self.files.events
        ram = self.random.choice(memory)
        size = 2 * queue_bytes(64)
        user = RING.user_address
        return [
            (message(Request.SET_OWNER), []),
            (message(Request.GET_FEATURES), []),
            (message(Request.GET_PROTOCOL_FEATURES), []),
            (number(Request.SET_PROTOCOL_FEATURES, ALL_PROTOCOL, need), []),
            (message(Request.GET_QUEUE_NUM), []),
            (message(Request.GET_MAX_MEM_SLOTS), []),
            (message(Request.SET_BACKEND_REQ_FD, b"", need), [event[3]]),
            (config(Request.GET_CONFIG, 0, bytes(self.random.choice((0, 8, 60)))), []),
            (number(Request.SET_FEATURES, VERSION_1 | PROTOCOL, need), []),
            (table([RAM, RING], need), [ram, ram]),
            (single(Request.ADD_MEM_REG, EXTRA, need), [memory[0]]),
            (inflight(Request.GET_INFLIGHT_FD, 0, 2, 64), []),
            (inflight(Request.SET_INFLIGHT_FD, size, 2, 64, need), [memory[0]]),
            (state(Request.SET_VRING_NUM, 0, 64, need), []),
            (state(Request.SET_VRING_BASE, 0, 3, need), []),
            (address(0, user, user + 0x1000, user + 0x2000, need), []),
            (number(Request.SET_VRING_KICK, 0, need), [event[0]]),
            (number(Request.SET_VRING_CALL, 0, need), [event[2]]),
            (number(Request.SET_VRING_ERR, 0, need), [event[0]]),
            (state(Request.SET_VRING_ENABLE, 0, 1, need), []),
            (number(Request.SET_STATUS, 15, need), []),
            (config(Request.SET_CONFIG, 0, b"x", NEED_REPLY), []),
            (single(Request.REM_MEM_REG, EXTRA, need), []),
            (message(Request.GET_STATUS), []),
            (state(Request.GET_VRING_BASE, 0, 0), []),
            (message(Request.RESET_DEVICE, b"", need), []),
            (message(Request.RESET_OWNER, b"", need), []),
        ]

    def _damaged(self, messages: list[tuple[bytes, list[int]]]) -> list[tuple[bytes, list[int]]]:
        """Damage some of the messages, swap, double and leave out others; none may be left."""
        random = self.random
        result = list(messages)
        for _ in range(random.choice((1, 2, 3, 6))):
            at = random.randrange(len(result)) if random.random() < 0.7 else self._memory_message(result)
            what = random.randrange(8)
            if what == 0:
                del result[at]
            elif what == 1:
                result.insert(at, random.choice((*messages, *self._strange())))
            elif what == 2:
                result.insert(random.randrange(len(result)), result.pop(at))
            elif what == 3:
                result[at] = result[at][0], self._other_files(result[at][1])
            elif what == 4:
                result[at] = self._other_bytes(result[at][0]), result[at][1]
            else:
                result[at] = self._other_field(result[at][0]), result[at][1]
        return result

    def _strange(self) -> list[tuple[bytes, list[int]]]:
        """Return messages that are well formed, and that no front end sends."""
        queue = self.random.randrange(3)
        return [
            (number(Request.SET_VRING_KICK, 0x100 | queue, NEED_REPLY), []),
            (number(Request.SET_VRING_CALL, 0x100 | queue, NEED_REPLY), []),
            (number(Request.SET_FEATURES, VERSION_1 | PROTOCOL | 1 << 9, NEED_REPLY), []),
            (state(Request.SET_VRING_BASE, queue, 1 << 16, NEED_REPLY), []),
            (state(Request.SET_VRING_NUM, queue, 48, NEED_REPLY), []),
            (config(Request.GET_CONFIG, 250, bytes(8)), []),
        ]

    def _memory_message(self, messages: list[tuple[bytes, list[int]]]) -> int:
        """Return where memory is described: the lies there are the dearest."""
        wanted = (Request.SET_MEM_TABLE, Request.ADD_MEM_REG)
        places = [at for at, (data, _) in enumerate(messages) if data[:1] in (bytes([request]) for request in wanted)]
        return self.random.choice(places or [0])

    def _other_files(self, kinds: list[int]) -> list[int]:
        files = [*self.files.memory, *self.files.events, *self.files.other]
        count = len(kinds) if self.random.random() < 0.8 else self.random.choice((0, 1, 2, 8))
        return self.random.choices(files, k=count)

    def _other_bytes(self, data: bytes) -> bytes:
        """Shorter, longer, or of another header."""
        random = self.random
        if len(data) < HEADER.size:
            return data
        request, flags, size = HEADER.unpack_from(data)
        what = random.randrange(5)
        if what == 0:
            return data[: random.randrange(len(data))]
        if what == 1:
            return data + random.randbytes(random.choice((1, 8, 64, 2000)))
        if what == 2:
            return HEADER.pack(random.choice((0, 6, 19, 33, 35, 41, 0xFFFF_FFFF)), flags, size) + data[HEADER.size :]
        if what == 3:
            return HEADER.pack(request, random.choice((0, 2, 5, 9, 1, 17)), size) + data[HEADER.size :]
        payload = data[HEADER.size :] + bytes(random.choice((4, 8, 32, 320)))
        size = random.choice((len(payload), len(payload), 1025, 0xFFFF_FFFF))
        return HEADER.pack(request, flags, size) + payload

    def _other_field(self, data: bytes) -> bytes:
        """With another value in a field: an edge, or one near to what was there."""
        random = self.random
        payload = bytearray(data[HEADER.size :])
        form = random.choice(("=I", "=Q", "=Q"))
        slots = len(payload) // struct.calcsize(form)
        if not slots:
            return data
        at = random.randrange(slots) * struct.calcsize(form)
        bits = 8 * struct.calcsize(form)
        value = struct.unpack_from(form, payload, at)[0]
        value = random.choice(
            (*EDGES, value + 1, value - 1, value + 0x100, value << 8, value ^ 1 << random.randrange(64))
        )
        struct.pack_into(form, payload, at, value % (1 << bits))
        return data[: HEADER.size] + payload


def _memfd(size: int, flags: int) -> int:
    file = os.memfd_create("front-end", os.MFD_CLOEXEC | flags)
    os.ftruncate(file, size)
    return file
