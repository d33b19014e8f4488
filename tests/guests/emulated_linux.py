"""The emulated Linux of the hypervisor, joined to a program's CPU without any wire: a disk, a terminal, randomness."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path

from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.guest.bus import SystemCallOutcome, WithoutSystemCalls
from iovirt_dist.guest.program.build import build_program
from iovirt_dist.hypervisor.intercept.syscall import SystemCallInterception
from iovirt_dist.hypervisor.intercept.syscall_parts import Mode, SystemCallParts
from iovirt_dist.hypervisor.irqchip.lines import InterruptLines
from iovirt_dist.wire.commands import Opcode, Status
from iovirt_dist.wire.syscall_messages import InterceptCalls, ProgramStarted, SystemCall, SystemCallReply

_RANDOM = bytes(range(16))
_MOST_STEPS = 10_000


class Disk:
    """A disk in memory; what is asked waits in `queue`."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.size_bytes = len(content)
        self.block_bytes = 512
        self.read_only = False
        self.serial = "TEST"
        self.queue: deque[DiskRequest] = deque()
        self.requests: list[tuple[Opcode, int, int]] = []

    def submit(self, request: DiskRequest) -> None:
        """Take a request."""
        self.requests.append((request.opcode, request.offset, request.length))
        self.queue.append(request)

    def perform(self, request: DiskRequest) -> bytes:
        """Carry a request out."""
        end = request.offset + request.length
        assert end <= self.size_bytes
        if request.opcode is Opcode.WRITE:
            self.content[request.offset : end] = request.data
        return bytes(self.content[request.offset : end]) if request.opcode is Opcode.READ else b""


class Screen:
    """A terminal that takes everything."""

    def __init__(self) -> None:
        self.shown = bytearray()

    def transmit(self, data: bytes) -> None:
        """Show."""
        self.shown += data

    def space(self) -> int:
        """Always some."""
        return 4096


class Entropy:
    """A source of the same bytes each time."""

    def __init__(self) -> None:
        self.queue: deque[tuple[int, int]] = deque()

    def request(self, tag: int, length: int) -> None:
        """Take a request."""
        self.queue.append((tag, length))


class EmulatedLinux(WithoutSystemCalls):
    """A `Bus` whose hypervisor is `SystemCallInterception` itself.

    Args:
        abi: Name of the ABI.
        disk: Content of /dev/vda.
        typed: What is typed when the program waits.
        files: Read-only files.
        mode: Whether all calls are carried out, or those on the disk.
    """

    def __init__(
        self,
        abi: str,
        disk: bytes = b"",
        typed: bytes = b"",
        files: Mapping[str, bytes] | None = None,
        mode: Mode = Mode.PROGRAM,
    ) -> None:
        self.disk = Disk(disk)
        self.screen = Screen()
        self.entropy = Entropy()
        self.typed = typed
        self.now_ns = 0
        self.number = 0
        self.rejected: Counter[str] = Counter()
        self.known: list[tuple[int, str, int, int, str]] = []
        self.linux = SystemCallInterception(
            SystemCallParts(
                abi,
                mode,
                InterruptLines(),
                disk=self.disk,
                terminal=self.screen,
                entropy=self.entropy,
                files=files or {},
                observer=lambda *call: self.known.append(call),
            )
        )
        announcement = self.linux.flush(0)[0].body
        assert isinstance(announcement, InterceptCalls)
        self.taken = (announcement.abi, frozenset(announcement.calls))

    def intercepted_calls(self) -> tuple[str, frozenset[int]] | None:
        """What the interception announced."""
        return self.taken

    def program_started(self, process: int, name: str, break_start: int, map_top: int) -> None:
        """Hand over."""
        assert self.linux.message(ProgramStarted(process, name, break_start, map_top), (), self.now_ns)

    def system_call(
        self, process: int, call: int, arguments: tuple[int, ...], buffers: tuple[int, ...], data: bytes
    ) -> SystemCallOutcome:
        """Hand over, and serve the devices until the reply leaves."""
        self.number += 1
        message = SystemCall(self.number, process, call, arguments, buffers)
        taken = self.linux.message(message, (data,) if data else (), self.now_ns)
        assert taken, f"malformed: {message}"
        for _ in range(_MOST_STEPS):
            for body, payload in self.linux.flush(self.now_ns):
                assert isinstance(body, SystemCallReply)
                assert body.number == self.number
                joined = b"".join(payload)
                return SystemCallOutcome(body.disposition, body.result, body.outputs, joined, body.effects)
            self._serve()
        raise AssertionError(f"no reply to {message}")

    def _serve(self) -> None:
        """Let one device do one thing; if none has anything to do, let time pass, then type."""
        if self.disk.queue:
            request = self.disk.queue.popleft()
            self.linux.complete(request.tag, Status.OK, self.disk.perform(request), self.now_ns)
        elif self.entropy.queue:
            tag, length = self.entropy.queue.popleft()
            self.linux.supply(tag, Status.OK, hashlib.sha256(b"%d" % tag).digest()[:length], self.now_ns)
        elif self.typed:
            taken = self.linux.receive(self.typed, self.now_ns)
            self.typed = self.typed[taken:]
        elif (deadline := self.linux.deadline_ns()) is not None:
            self.now_ns = max(deadline, self.now_ns)
            self.linux.advance(self.now_ns)


def run_program(image: Path, arguments: list[str], linux: EmulatedLinux) -> str:
    """Run a program to its end; returns why it ended."""
    cpu = build_program(image, arguments, (), linux, _RANDOM)  # type: ignore[arg-type] # a program uses no ports
    return cpu.run().detail
