"""A program without a CPU: it makes system calls by name, with the marshalling of a real guest's process.

Behind it are the real interception and emulated Linux; the backends keep what they are asked for until `serve`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from iovirt_dist.abi.registry import ABIS
from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.guest.program.marshal import Gathered, Marshaller, scatter
from iovirt_dist.hypervisor.intercept.syscall import SystemCallInterception
from iovirt_dist.hypervisor.intercept.syscall_parts import Mode, SystemCallParts
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status
from iovirt_dist.wire.syscall_messages import (
    InterceptCalls,
    ProgramStarted,
    SystemCall,
    SystemCallReply,
)

AT_FDCWD = -100
BREAK_START, MAP_TOP = 0x50_0800, 0x4000_0000
WALL_NS = 1_700_000_000_000_000_000
BAD_ADDRESS = 0x7777_0000
_BASE, _BYTES = 0x10_0000, 1 << 20


class Memory:
    """Implements `UserMemory`: one megabyte, from which `put` takes."""

    def __init__(self) -> None:
        self.content = bytearray(_BYTES)
        self.used = 0

    def accessible(self, address: int, length: int, *, write: bool) -> int:
        """All of it may be read and written."""
        return min(length, _BASE + _BYTES - address) if _BASE <= address < _BASE + _BYTES else 0

    def read(self, address: int, length: int) -> bytes:
        """Read."""
        return bytes(self.content[address - _BASE : address - _BASE + length])

    def write(self, address: int, data: Buffer) -> None:
        """Write."""
        self.content[address - _BASE : address - _BASE + len(data)] = data

    def put(self, data: bytes) -> int:
        """Store data in memory that was never used; returns its address."""
        address = _BASE + self.used
        self.used += len(data) + 16
        self.write(address, data)
        return address


class Disk:
    """A disk whose sectors hold their own number; requests wait for `serve`."""

    serial = "DISK"

    def __init__(self, sectors: int = 64, *, read_only: bool = False, block_bytes: int = 512) -> None:
        self.content = bytearray(b"".join(number.to_bytes(2, "big") * 256 for number in range(sectors)))
        self.size_bytes = len(self.content)
        self.block_bytes = block_bytes
        self.read_only = read_only
        self.asked: list[tuple[Opcode, int, int]] = []
        self.waiting: deque[DiskRequest] = deque()
        self.status = Status.OK

    def submit(self, request: DiskRequest) -> None:
        """Take a request."""
        self.asked.append((request.opcode, request.offset, request.length))
        self.waiting.append(request)

    def perform(self, request: DiskRequest) -> bytes:
        """Do it."""
        end = request.offset + request.length
        if request.opcode is Opcode.WRITE:
            self.content[request.offset : end] = request.data
        return bytes(self.content[request.offset : end]) if request.opcode is Opcode.READ else b""


class Screen:
    """A terminal that shows as much as it has space for."""

    def __init__(self) -> None:
        self.shown = b""
        self.left = 1 << 20

    def transmit(self, data: bytes) -> None:
        """Show."""
        assert len(data) <= self.left
        self.left -= len(data)
        self.shown += data

    def space(self) -> int:
        """What is left."""
        return self.left


class Source:
    """Randomness that counts; it gives `most` bytes at a time."""

    def __init__(self, most: int = 65536) -> None:
        self.waiting: deque[tuple[int, int]] = deque()
        self.most = most
        self.given = 0

    def request(self, tag: int, length: int) -> None:
        """Take a request."""
        assert 1 <= length <= 65536
        self.waiting.append((tag, length))

    def bytes(self, length: int) -> bytes:
        """Return the next bytes."""
        length = min(length, self.most)
        self.given += length
        return bytes(at & 0xFF for at in range(self.given - length, self.given))


class Program:
    """A program, its memory, and what its calls gave.

    Attributes:
        reply: The last reply.
        now_ns: The machine's time.
    """

    def __init__(
        self,
        abi: str = "linux_x86_64",
        *,
        disk: Disk | None = None,
        files: Mapping[str, Buffer] | None = None,
        source: Source | None = None,
        memory_bytes: int = 1 << 26,
        mode: Mode = Mode.PROGRAM,
        with_screen: bool = True,
    ) -> None:
        self.abi = ABIS[abi]
        self.numbers = {self.abi.call_name(number): number for number in (*self.abi.names, *self.abi.calls)}
        self.memory = Memory()
        self.disk = disk
        self.screen = Screen()
        self.source = source
        self.lines = InterruptLines()
        self.observed: list[tuple[int, str, int, int, str]] = []
        self.now_ns = 0
        self.process = 1
        self.replies: list[SystemCallReply] = []
        self.taken: InterceptCalls | None = None
        self._marshaller = Marshaller(self.abi)
        self._calls = 0
        self._gathered: dict[int, Gathered] = {}
        parts = SystemCallParts(
            abi=abi,
            mode=mode,
            lines=self.lines,
            disk=disk,
            terminal=self.screen if with_screen else None,
            entropy=source,
            files=files or {},
            wall_ns=WALL_NS,
            memory_bytes=memory_bytes,
            observer=lambda *call: self.observed.append(call),
        )
        self.interception = SystemCallInterception(parts)
        self.start()

    @property
    def reply(self) -> SystemCallReply:
        """The last reply."""
        return self.replies[-1]

    def start(self, name: str = "/bin/busybox") -> bool:
        """Load a program."""
        started = ProgramStarted(self.process, name, BREAK_START, MAP_TOP)
        return self.interception.message(started, (), self.now_ns)

    def call(self, name: str, *arguments: int | str | bytes) -> int:
        """Make a call and let everything happen; returns its result."""
        answered = len(self.replies)
        assert self.begin(name, *arguments)
        self.serve()
        assert len(self.replies) == answered + 1, "the call waits"
        return self.reply.result

    def begin(self, name: str, *arguments: int | str | bytes) -> bool:
        """Make a call; strings and bytes are put into memory. Returns whether it was well-formed."""
        mask = (1 << 8 * self.abi.word_bytes) - 1
        words = [self._word(argument) & mask for argument in arguments]
        registers = tuple(words + [0] * (6 - len(words)))
        number = self.numbers[name]
        gathered = self._marshaller.gather(number, registers, self.memory)
        self._calls += 1
        self._gathered[self._calls] = gathered
        message = SystemCall(self._calls, self.process, number, registers, gathered.buffers)
        taken = self.interception.message(message, [gathered.data] if gathered.data else [], self.now_ns)
        self.collect()
        return taken

    def _word(self, argument: int | str | bytes) -> int:
        if isinstance(argument, str):
            return self.memory.put(argument.encode() + b"\0")
        return self.memory.put(argument) if isinstance(argument, bytes) else argument

    def buffer(self, length: int) -> int:
        """Return the address of memory for a call to write."""
        return self.memory.put(b"\xee" * length)

    def serve(self) -> None:
        """Let disk and source do what they were asked for."""
        while (self.disk and self.disk.waiting) or (self.source and self.source.waiting):
            if self.disk and self.disk.waiting:
                request = self.disk.waiting.popleft()
                done = self.disk.perform(request) if self.disk.status is Status.OK else b""
                self.interception.complete(request.tag, self.disk.status, done, self.now_ns)
            if self.source and self.source.waiting:
                tag, length = self.source.waiting.popleft()
                self.interception.supply(tag, Status.OK, self.source.bytes(length), self.now_ns)
        self.collect()

    def type(self, text: bytes) -> int:
        """Type on the terminal; returns how many bytes were taken."""
        taken = self.interception.receive(text, self.now_ns)
        self.collect()
        return taken

    def sleep(self, duration_ns: int) -> None:
        """Let time pass."""
        self.now_ns += duration_ns
        self.interception.advance(self.now_ns)
        self.collect()

    def collect(self) -> None:
        """Take what the interception sends, and write the outputs to memory."""
        for body, payload in self.interception.flush(self.now_ns):
            if isinstance(body, InterceptCalls):
                self.taken = body
            else:
                assert isinstance(body, SystemCallReply)
                gathered = self._gathered.pop(body.number)
                assert len(body.outputs) == len(gathered.buffers)
                assert sum(body.outputs) == sum(map(len, payload))
                scatter(gathered, body.outputs, b"".join(payload), self.memory)
                self.replies.append(body)

    def open_disk(self, flags: int = 2) -> int:
        """Open ``/dev/vda``."""
        return self.call("openat", AT_FDCWD, "/dev/vda", flags, 0)

    def read(self, fd: int, length: int) -> bytes:
        """Read from a descriptor."""
        address = self.buffer(length)
        return self.memory.read(address, self.call("read", fd, address, length))
