"""System calls from a guest that sends anything at all.

Whatever comes: nothing is raised, memory and files of the hypervisor are bounded, a reply never holds more than its
buffers, the disk is never asked for what it does not have, and what changes in the guest stays in its address space.
"""

from __future__ import annotations

from collections import deque
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.abi import linux_codes as codes
from iovirt_dist.abi.registry import ABIS
from iovirt_dist.abi.table import MAX_BUFFER_BYTES, POINTERS, READ, WRITTEN, Argument, ArgumentKind, Call
from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.hypervisor.intercept.syscall import MAX_PROCESSES, SystemCallInterception
from iovirt_dist.hypervisor.intercept.syscall_parts import FIRST_MACHINE_FD, Mode, SystemCallParts
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.hypervisor.linux.process import MAX_FILES
from iovirt_dist.wire.codec import MAX_PAYLOAD_BYTES, decode, encode
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode, Status
from iovirt_dist.wire.syscall_messages import BAD_POINTER, ProgramStarted, SystemCall, SystemCallReply
from tests.properties.amount import PER_EXAMPLE, examples

EXAMPLES = examples(2000)
"""Calls per ABI and mode."""
SECTORS = 16
MEMORY_BYTES = 1 << 24
FAVOURITES = (
    "read",
    "write",
    "pread64",
    "pwrite64",
    "readv",
    "writev",
    "lseek",
    "sendfile",
    "ioctl",
    "getdents64",
    "openat",
)
ENDING = ("exit", "exit_group", "kill", "tkill", "tgkill")
KEYS = range(256)
KEY_WEIGHTS = [
    0.01 if key in (3, 28) else 4 if key in (4, 8, 9, 10, 13, 17, 19, 21, 22, 23, 127) else 1 for key in KEYS
]
"""^C and ^\\ end the program: now and then is enough."""
LARGEST_BUFFER = 1 << 14
"""Of the random ones: more would only cost time."""

HINTS: dict[str, tuple[int, ...]] = {
    "address": (0, 0, 0x50_0000, 0x50_1800, 0x60_0000, 0x2000_0000, 0x2000_1000, 0x3FFF_E000, 0x4000_0000, 0x40_0000),
    "length": (1, 100, 4096, 8192, 12288, 1 << 20, 1 << 24, 1 << 25),
    "old_length": (1, 4096, 8192),
    "protection": (0, 1, 2, 3, 5, 7),
    "flags": (0, 1, 2, 0x22, 0x22, 0x32, 0x32, 0x100022, 0x21, 0x100, 0x1000),
    "count": (0, 1, 7, 16, 100, 512, 513, 4096, 10_000, 1 << 23),
    "offset": (0, 1, 511, 512, 4096, SECTORS * 512 - 7, SECTORS * 512, -1),
    "offset_low": (0, 1, 511, 512, 4096, SECTORS * 512 - 7, SECTORS * 512),
    "offset_high": (0, 0, 0, 1, -1),
    "whence": (0, 1, 2, 3),
    "vectors": (0, 1, 2, 3, 1024, 1025),
    "nfds": (0, 1, 2, 5, 64, 256, 257, 1024),
    "signal": (0, 2, 3, 6, 9, 17, 64),
    "clock": (0, 1, 2, 7, 99),
    "command": (0, 1, 2, 3, 4, 5, 1030),
    "option": (15, 16, 1),
    "size": (8, 8, 16),
}
"""Values that get past the first checks, by the argument's name."""

PATHS = (
    *(b"/dev/vda", b"/dev/console", b"/dev/hwrng", b"/dev/urandom", b"/dev/null", b"/dev/zero", b"/", b"/etc", b"."),
    *(b"/etc/motd", b"/proc/self/fd/3", b"/proc/self/exe", b"/dev/fd", b"..", b"", b"/dev/vda/", b"\xff\xfe/\x01"),
)
IOCTLS = tuple(value for name, value in vars(codes).items() if isinstance(value, int) and name.isupper()) + tuple(
    code for table in (codes.BLKBSZGET, codes.BLKGETSIZE64) for code in table.values()
)
WORDS = (
    *(0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 36, 100, 512, 1000, 4095, 4096, 8192, 65536, 1 << 20, 1 << 31, 1 << 32),
    *(0o100, 0o2000, 0o4000, 0o40000, 0o200000, 0o2000000, 0x22, 0x32, 0x100, 0x1000, 0x1002, 0x2000_0000),
    *((1 << 31) - 1, (1 << 32) - 1, (1 << 32) - 100, (1 << 47), (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 100),
    *(FIRST_MACHINE_FD, FIRST_MACHINE_FD + 1, SECTORS * 512, SECTORS * 512 - 7, 0x3FFF_F000),
)


def random_name(random: Random) -> str:
    """Return a program's name, which need not be one."""
    return random.choice(("x" * 20, "", "/", "/proc/self/exe", "/dev/fd/0"))


class Disk:
    """Checks every request against what it has; answers later, sometimes badly."""

    size_bytes = SECTORS * 512
    block_bytes = 512
    serial = "DISK"

    def __init__(self, random: Random) -> None:
        self.read_only = random.random() < 0.1
        self.random = random
        self.waiting: deque[DiskRequest] = deque()

    def submit(self, request: DiskRequest) -> None:
        """Take a request that is whole blocks of the disk."""
        assert request.offset % 512 == 0
        assert request.length % 512 == 0
        assert 0 <= request.offset <= request.offset + request.length <= self.size_bytes
        assert request.length <= MAX_DATA_BYTES
        assert len(request.data) == (request.length if request.opcode is Opcode.WRITE else 0)
        assert not self.read_only or request.opcode in (Opcode.READ, Opcode.FLUSH)
        self.waiting.append(request)


class Hostile:
    """A guest, and a host whose backends answer when they like."""

    def __init__(self, abi: str, mode: Mode, seed: int) -> None:
        self.random = Random(seed)
        self.abi = ABIS[abi]
        self.mode = mode
        self.disk = Disk(self.random)
        self.randomness: deque[tuple[int, int]] = deque()
        self.space_bytes = 4096
        self.now_ns = 0
        self.trap = 0
        self.calls = list(self.abi.calls.values())
        self.buffers: dict[int, tuple[int, ...]] = {}
        parts = SystemCallParts(
            abi, mode, InterruptLines(), "guest", self.disk, self, self, {"/etc/motd": b"hello\n"}, 0, MEMORY_BYTES
        )
        self.interception = SystemCallInterception(parts)
        self.by_name = {call.name: call for call in self.calls}
        self.begin()

    def begin(self) -> None:
        """Load a program, and open what is worth attacking: the disk, a terminal, a directory, a source, a file."""
        if self.mode is Mode.PROGRAM:
            self.interception.message(ProgramStarted(1, "/bin/program", 0x50_0000, 0x4000_0000), (), self.now_ns)
        for process in (1, 2):
            for path in (b"/dev/vda", b"/dev/tty", b"/etc", b"/dev/hwrng", b"/etc/motd"):
                self.send(self.by_name["openat"].number, [0, 0x1000, 2, 0, 0, 0], [len(path)], path, process)
                self.send(self.by_name["openat"].number, [0, 0x1000, 0, 0, 0, 0], [len(path)], path, process)
        self.check()

    # Backends

    def transmit(self, data: bytes) -> None:
        """Show no more than there is space for."""
        assert len(data) <= self.space_bytes
        self.space_bytes -= len(data)

    def space(self) -> int:
        """What is left."""
        return self.space_bytes

    def request(self, tag: int, length: int) -> None:
        """Take a request for randomness."""
        assert 1 <= length <= 65536
        self.randomness.append((tag, length))

    # What happens

    def step(self) -> None:
        """Let one thing happen."""
        kind = self.random.randrange(12)
        if kind < 8:
            self.call()
        elif kind == 8:
            keys = self.random.choices(KEYS, KEY_WEIGHTS, k=self.random.randrange(1, 40))
            self.interception.receive(bytes(keys) + b"\n", self.now_ns)
            self.space_bytes = self.random.choice((0, 1, 100, 4096))
            self.interception.resume(self.now_ns)
        elif kind == 9:
            self.now_ns += self.random.choice((1, 1000, 1 << 30, 1 << 62 if self.now_ns < 1 << 62 else 1))
            self.interception.advance(self.now_ns)
        elif kind == 10 and self.random.random() < 0.5:
            self.begin()
        elif kind == 11 and self.random.random() < 0.1:
            words = [self.random.choice(WORDS) for _ in range(3)]
            self.interception.message(ProgramStarted(words[0], random_name(self.random), *words[1:]), (), self.now_ns)
        self.answer()
        self.check()

    def answer(self) -> None:
        """Let backends answer, most of the time, and stale or unknown tags come, too."""
        random = self.random
        while self.disk.waiting and random.random() < 0.9:
            request = self.disk.waiting.popleft()
            status = random.choice((Status.OK,) * 9 + (Status.MEDIUM_ERROR,))
            length = request.length if random.random() < 0.95 else random.randrange(2000)
            data = bytes(length) if request.opcode is Opcode.READ and status is Status.OK else b""
            self.interception.complete(request.tag, status, data, self.now_ns)
        while self.randomness and random.random() < 0.9:
            tag, length = self.randomness.popleft()
            self.interception.supply(tag, Status.OK, bytes(random.choice((0, 1, length, length, 70000))), self.now_ns)
        if random.random() < 0.05:
            self.interception.complete(random.randrange(1000), Status.OK, b"", self.now_ns)
            self.interception.supply(random.randrange(1000), Status.OK, b"x", self.now_ns)

    def check(self) -> None:
        """Check what is sent, as the guest's process would receive it, and what is kept."""
        for body, payload in self.interception.flush(self.now_ns):
            envelope, received = decode(encode(1, 1, 1, 0, body, payload))
            assert envelope.body == body
            if isinstance(body, SystemCallReply):
                buffers = self.buffers.pop(body.number)
                assert len(body.outputs) == len(buffers)
                assert all(out <= max(room, 0) for out, room in zip(body.outputs, buffers, strict=True))
                assert sum(body.outputs) == sum(map(len, received)) <= MAX_PAYLOAD_BYTES
                assert all(word < 1 << 48 for _, *words in body.effects for word in words)
                assert self.mode is Mode.PROGRAM or not body.effects
        processes = self.interception._processes
        assert len(processes) <= MAX_PROCESSES
        assert all(len(process.files.items()) <= MAX_FILES for process in processes.values())
        assert all(process.memory.used_bytes <= MEMORY_BYTES for process in processes.values())

    def call(self) -> None:
        """Send a call: mostly one that agrees with the table, sometimes one that does not."""
        random = self.random
        call = random.choice(self.calls)
        if random.random() < 0.5:
            call = self.by_name[random.choice(FAVOURITES)]
        elif call.name in ENDING and random.random() < 0.9:
            return
        registers = [self.register(argument) for argument in call.arguments]
        registers += [random.choice(WORDS) for _ in range(6 - len(registers))]
        if call.selector >= 0 and random.random() < 0.9:
            registers[call.selector] = random.choice((*call.variants, *IOCTLS))
        registers = [register & ((1 << 8 * self.abi.word_bytes) - 1) for register in registers]
        buffers, payload = self.memory(call, registers)
        number = call.number
        if random.random() < 0.1:
            number, registers, buffers, payload = self.spoil(number, registers, buffers, payload)
        self.send(number, registers, buffers, payload, random.choice((1, 1, 1, 1, 2, random.randrange(200))))

    def send(self, number: int, registers: list[int], buffers: list[int], payload: bytes, process: int) -> None:
        """Send a message, and remember its buffers for as long as a reply may come."""
        self.trap += 1
        message = SystemCall(self.trap, process, number, tuple(registers), tuple(buffers))
        self.buffers[self.trap] = message.buffers
        if not self.interception.message(message, [payload] if payload else [], self.now_ns):
            del self.buffers[self.trap]

    def register(self, argument: Argument) -> int:
        """Return a value that may mean something, or not."""
        random = self.random
        if argument.kind is ArgumentKind.FD:
            fd = random.choice((0, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, -1, -100, random.choice(WORDS)))
            return fd if self.mode is Mode.PROGRAM or fd < 0 else FIRST_MACHINE_FD + fd % 4
        hints = HINTS.get(argument.name)
        if hints and random.random() < 0.8:
            return random.choice(hints)
        return random.choice(WORDS) if random.random() < 0.8 else random.getrandbits(64)

    def memory(self, call: Call, registers: list[int]) -> tuple[list[int], bytes]:
        """Return buffers and payload as a guest's process would, for memory of random content."""
        random = self.random
        buffers: list[int] = []
        payload: list[bytes] = []
        signature = call.signature(registers)
        for index, argument in enumerate(signature):
            if argument.kind not in POINTERS:
                continue
            data = self.content(argument, registers)
            if random.random() < 0.05 or len(data) > LARGEST_BUFFER:
                buffers.append(BAD_POINTER)
            elif random.random() < 0.1:
                registers[index] = 0
                buffers.append(-2)
            else:
                buffers.append(len(data))
                payload += [data] * (argument.kind in READ)
        return buffers, b"".join(payload)

    def content(self, argument: Argument, registers: list[int]) -> bytes:
        """Return what memory holds: a path, a vector's buffers, a structure."""
        random = self.random
        if argument.kind is ArgumentKind.STRING_IN:
            return random.choice(PATHS) if random.random() < 0.95 else random.randbytes(random.choice((5, 300, 4096)))
        if argument.kind in (ArgumentKind.VECTOR_IN, ArgumentKind.VECTOR_OUT):
            return bytes(random.choice((0, 1, 100, 5000)))
        length = argument.extent(registers)
        if length > LARGEST_BUFFER and argument.kind in WRITTEN and argument.kind not in READ:
            return bytes(min(length, random.choice((LARGEST_BUFFER, 700))))
        if length > LARGEST_BUFFER or random.random() < 0.5:
            return bytes(min(length, MAX_BUFFER_BYTES))
        return random.randbytes(length)

    def spoil(
        self, number: int, registers: list[int], buffers: list[int], payload: bytes
    ) -> tuple[int, list[int], list[int], bytes]:
        """Make a message that contradicts the table."""
        random = self.random
        kind = random.randrange(6)
        if kind == 0:
            number = random.choice((random.randrange(600), random.getrandbits(32)))
        elif kind == 1:
            registers = registers[: random.randrange(6)]
        elif kind == 2:
            buffers = [random.choice((-2, -1, 0, 1, 1 << 30)) for _ in range(random.randrange(7))]
        elif kind == 3:
            payload += random.randbytes(random.randrange(1, 50))
        elif kind == 4:
            payload = payload[: random.randrange(len(payload) + 1)]
        else:
            registers[random.randrange(6)] = random.getrandbits(64)
        return number, registers, buffers, payload


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("abi", sorted(ABIS))
@settings(max_examples=EXAMPLES, deadline=None)
@given(seed=st.integers(0, 2**64 - 1))
def test_hostile_calls_stay_without_effect_outside_the_guest(abi: str, mode: Mode, seed: int) -> None:
    """Calls, typing, time and late answers in any order."""
    guest = Hostile(abi, mode, seed)

    for _ in range(PER_EXAMPLE):
        guest.step()
