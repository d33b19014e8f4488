"""Interception at the system-call level: a program's calls, carried out by `iovirt_dist.hypervisor.linux`.

Two modes. A *program* guest has no kernel: every call is carried out here. A *machine* guest has one, and its programs'
calls are taken before that sees them: opening the disk's device file gives a descriptor that is ours, with a number
that the kernel never gives, and calls on such descriptors are carried out here; all others pass.

What the hypervisor knows here is a process, a file and a range in it: what the program meant. It is told to an observer
call by call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import count

from iovirt_dist.abi.registry import ABIS
from iovirt_dist.drivers.backend import DiskRequest
from iovirt_dist.hypervisor.intercept.interceptor import Outgoing
from iovirt_dist.hypervisor.intercept.syscall_parts import Mode, SystemCallParts, system_parts
from iovirt_dist.hypervisor.linux.decoder import decoder_of
from iovirt_dist.hypervisor.linux.errno import CallError, Errno
from iovirt_dist.hypervisor.linux.memory import AddressSpace
from iovirt_dist.hypervisor.linux.process import Process
from iovirt_dist.hypervisor.linux.request import Reply, Request
from iovirt_dist.hypervisor.linux.routines import routines_of
from iovirt_dist.hypervisor.linux.system import System
from iovirt_dist.hypervisor.linux.time_calls import has_mask
from iovirt_dist.hypervisor.linux.tree import DISK_PATH
from iovirt_dist.hypervisor.linux.waits import (
    Deadline,
    DiskTransfer,
    InterruptedWaitError,
    Outcome,
    Randomness,
    Steps,
    TerminalChange,
    Wait,
)
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Status
from iovirt_dist.wire.messages import Message
from iovirt_dist.wire.syscall_messages import (
    Disposition,
    InterceptCalls,
    ProgramStarted,
    SystemCall,
    SystemCallReply,
)

MAX_PROCESSES = 64
"""Processes of a machine that have the disk open; of more the one that was silent longest is forgotten."""

_OPENING = frozenset({"open", "openat"})
_ENDING = frozenset({"exit", "exit_group"})
_ON_DESCRIPTORS = frozenset(
    {"read", "readv", "pread64", "preadv", "write", "writev", "pwrite64", "pwritev", "lseek", "_llseek"}
    | {"fstat", "fstat64", "fsync", "fdatasync", "syncfs", "close", "dup", "fcntl", "fcntl64", "ioctl"}
)


@dataclass(slots=True)
class _Call:
    """A call that waits.

    Attributes:
        request: The call.
        steps: Its routine.
        wait: What it waits for.
    """

    request: Request
    steps: Steps[Reply]
    wait: Wait | None = None


class SystemCallInterception:
    """One guest's calls; the client of its disk's, terminal's and entropy source's backends.

    Args:
        parts: What it is built from.

    Attributes:
        takes: Messages that are its own.
        calls: How often each call was made, by name.
        passed: How often each was left to the guest's kernel, by name.
        system: The emulated operating system.

    Raises:
        ValueError: The files' paths contradict each other or the devices'.
    """

    takes: tuple[type[Message], ...] = (ProgramStarted, SystemCall)

    def __init__(self, parts: SystemCallParts) -> None:
        abi = ABIS[parts.abi]
        self.calls: Counter[str] = Counter()
        self.passed: Counter[str] = Counter()
        self._mode = parts.mode
        self._lines = parts.lines
        self._disk = parts.disk
        self._entropy = parts.entropy
        self._memory_bytes = parts.memory_bytes
        self._user_end = abi.user_end
        self._decoder = decoder_of(parts.abi)
        self._routines = routines_of(abi)
        self.system = System(system_parts(parts))
        self._processes: dict[int, Process] = {}
        self._waiting: dict[int, _Call] = {}
        self._requested: dict[int, _Call] = {}
        self._next_tag = count(1).__next__
        self._replies: list[tuple[Request, Disposition, Reply]] = []
        taken = _OPENING | _ENDING | _ON_DESCRIPTORS if parts.mode is Mode.MACHINE else frozenset[str]()
        numbers = tuple(sorted(call.number for call in abi.calls.values() if call.name in taken))
        self._announcement: InterceptCalls | None = InterceptCalls(parts.abi, numbers)

    @property
    def unknown(self) -> Counter[str]:
        """How often each call that nothing carries out was made, by name or number."""
        return self.system.unknown

    # Interceptor

    def message(self, body: Message, payload: Sequence[Buffer], now_ns: int) -> bool:
        """Take a message of the guest; False if it is malformed."""
        if isinstance(body, SystemCall):
            return len(payload) <= 1 and self._call(body, payload[0] if payload else b"", now_ns)
        if not isinstance(body, ProgramStarted) or payload or self._mode is Mode.MACHINE:
            return False
        self._waiting.clear()
        memory = AddressSpace(body.break_start, body.map_top, self._user_end, self._memory_bytes)
        self._processes = {body.process: Process(self.system, body.process, body.name, memory)}
        return True

    def flush(self, now_ns: int) -> Sequence[Outgoing]:  # noqa: ARG002 - the protocol's signature
        """Return the replies of calls that are done; before them, once, which calls are to be taken."""
        outgoing: list[Outgoing] = []
        if self._announcement is not None:
            outgoing.append(Outgoing(self._announcement))
            self._announcement = None
        if self._replies:
            replies, self._replies = self._replies, []
            outgoing += [_message(*reply, self._lines.take_changes()) for reply in replies]
        return outgoing

    def deadline_ns(self) -> int | None:
        """When `advance` must be called next, machine time; None while nothing is timed."""
        return min((at for call in self._waiting.values() if (at := _deadline(call)) is not None), default=None)

    def advance(self, now_ns: int) -> None:
        """Let time pass: calls whose deadline has come go on."""
        for call in list(self._waiting.values()):
            due = _deadline(call)
            if due is not None and due <= now_ns:
                self._go_on(call, Outcome(Status.OK, b"", now_ns))

    # Client of the backends

    def complete(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Take the disk's outcome; one that nobody waits for any more is ignored."""
        call = self._requested.pop(tag, None)
        if call is not None and self._is_waiting(call):
            self._go_on(call, Outcome(status, data, now_ns))

    def supply(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Take random bytes; success without any is the source's error."""
        call = self._requested.pop(tag, None)
        if call is None or not self._is_waiting(call) or not isinstance(call.wait, Randomness):
            return
        if status is Status.OK and not data:
            status = Status.MEDIUM_ERROR
        self._go_on(call, Outcome(status, data[: call.wait.length], now_ns))

    def receive(self, data: bytes, now_ns: int) -> int:
        """Take what was typed; returns how many bytes were taken."""
        taken = self.system.terminal.receive(data)
        for signal in self.system.terminal.take_signals():
            for process in list(self._processes.values()):
                self._interrupt(process, signal, now_ns)
        self._wake_readers(now_ns)
        return taken

    def resume(self, now_ns: int) -> None:
        """The terminal's backend has space again."""
        self.system.terminal.resume()
        self._wake_readers(now_ns)

    # Calls

    def _call(self, message: SystemCall, data: Buffer, now_ns: int) -> bool:
        """Begin a call, unless its process waits for another one, or there is no such process."""
        number = message.process
        plan = self._decoder.decode(message, len(data))
        if plan is None or number in self._waiting:
            return False
        process = self._processes.get(number)
        if self._mode is Mode.PROGRAM:
            if process is None:
                return False
            self.calls[plan.name] += 1
            self._perform(Request(process, plan, message, data, now_ns), message.call)
            return True
        self.calls[plan.name] += 1
        request = Request(process or self._new_process(number), plan, message, data, now_ns)
        if self._is_ours(request) and self._keep(request.process):
            self._perform(request, message.call)
            return True
        if plan.name in _ENDING:
            self._processes.pop(number, None)
        self.passed[plan.name] += 1
        self._replies.append((request, Disposition.PASS, Reply()))
        return True

    def _perform(self, request: Request, number: int) -> None:
        """Carry out a call, as far as it goes without waiting."""
        routine = self._routines.get(number)
        process = request.process
        signal = process.take_signals(masked=not has_mask(request)) if process.pending else 0
        if signal:
            self._finish(request, Reply(-signal, ends=True))
            return
        if routine is None:
            self.system.unknown[request.plan.name] += 1
            self._fail(request, Errno.ENOSYS)
            return
        try:
            result = routine(request)
        except CallError as error:
            self._fail(request, error.errno)
            return
        if isinstance(result, Generator):
            call = _Call(request, result)
            self._waiting[process.number] = call
            self._go_on(call, None)
        else:
            self._finish(request, result)

    def _go_on(self, call: _Call, outcome: Outcome | InterruptedWaitError | None) -> None:
        """Carry a call on to its next wait, or to its end.

        Args:
            call: The call.
            outcome: What its wait ended with; None to begin.
        """
        now_ns = outcome.now_ns if outcome else call.request.now_ns
        try:
            while True:
                if isinstance(outcome, InterruptedWaitError):
                    wait = call.steps.throw(outcome)
                else:
                    wait = call.steps.send(outcome) if outcome else next(call.steps)
                call.wait = wait
                if not (isinstance(wait, Deadline) and wait.deadline_ns <= now_ns):
                    break
                outcome = Outcome(Status.OK, b"", now_ns)
        except StopIteration as stop:
            self._end(call)
            self._finish(call.request, stop.value)
        except CallError as error:
            self._end(call)
            self._fail(call.request, error.errno)
        else:
            self._ask(call, wait)

    def _ask(self, call: _Call, wait: Wait) -> None:
        """Hand what a call waits for to a backend; time and terminal come by themselves."""
        if not isinstance(wait, DiskTransfer | Randomness):
            return
        tag = self._next_tag()
        self._requested[tag] = call
        if isinstance(wait, DiskTransfer):
            assert self._disk is not None, "there is a disk behind its node"
            self._disk.submit(DiskRequest(tag, wait.opcode, wait.offset, wait.length, wait.data))
        else:
            assert self._entropy is not None, "there is a source behind its node"
            self._entropy.request(tag, wait.length)

    def _is_waiting(self, call: _Call) -> bool:
        """Whether a call still is what its process waits for: it may have been killed, or loaded anew."""
        return self._waiting.get(call.request.process.number) is call

    def _end(self, call: _Call) -> None:
        del self._waiting[call.request.process.number]

    def _finish(self, request: Request, reply: Reply) -> None:
        """Queue a reply; where something is to be written to a bad pointer, EFAULT instead."""
        if reply.ends:
            self._processes.pop(request.process.number, None)
            self._replies.append((request, Disposition.EXIT, Reply(reply.result)))
            return
        if reply.outputs and any(
            length < 0 and reply.outputs.get(name)
            for name, length in zip(request.plan.pointers, request.buffers, strict=True)
        ):
            reply = Reply(-Errno.EFAULT)
        self._replies.append((request, Disposition.DONE, reply))

    def _fail(self, request: Request, errno: Errno) -> None:
        self._replies.append((request, Disposition.DONE, Reply(-errno)))

    # Terminal

    def _wake_readers(self, now_ns: int) -> None:
        for call in list(self._waiting.values()):
            if isinstance(call.wait, TerminalChange):
                self._go_on(call, Outcome(Status.OK, b"", now_ns))

    def _interrupt(self, process: Process, signal: int, now_ns: int) -> None:
        """A key sends a signal: the process dies of it, or the call that waits is interrupted, or neither."""
        process.pending.add(signal)
        call = self._waiting.get(process.number)
        if call is None or (process.is_blocked(signal) and not has_mask(call.request)):
            return
        process.pending.discard(signal)
        if process.dies_of(signal):
            self._end(call)
            self._finish(call.request, Reply(-signal, ends=True))
        elif process.has_handler(signal) and isinstance(call.wait, TerminalChange | Deadline):
            self._go_on(call, InterruptedWaitError(now_ns))

    # Machines

    def _new_process(self, number: int) -> Process:
        """Return a process that has nothing open; it is kept when it opens the disk."""
        return Process(self.system, number, "", AddressSpace(0, 0, 0, 0))

    def _keep(self, process: Process) -> bool:
        """Remember a process as the latest; where there are too many, forget the one that was silent longest.

        Returns:
            False if there are too many and all of them wait.
        """
        processes = self._processes
        if process.number not in processes and len(processes) >= MAX_PROCESSES:
            silent = next((number for number in processes if number not in self._waiting), None)
            if silent is None:
                return False
            del processes[silent]
        processes.pop(process.number, None)
        processes[process.number] = process
        return True

    def _is_ours(self, request: Request) -> bool:
        """Whether a machine's call is about the disk's device file."""
        name = request.plan.name
        if name in _ON_DESCRIPTORS:
            return request.signed("fd") in request.process.files
        if name not in _OPENING or self._disk is None:
            return False
        try:
            return request.text("path") == DISK_PATH
        except CallError:
            return False


def _deadline(call: _Call) -> int | None:
    """Return the machine time at which a call goes on whatever happens."""
    return call.wait.deadline_ns if isinstance(call.wait, Deadline | TerminalChange) else None


def _message(request: Request, disposition: Disposition, reply: Reply, lines: tuple[int, ...]) -> Outgoing:
    """Return the message of a reply; what is longer than its buffer is cut."""
    if not reply.outputs and not reply.effects:
        done = SystemCallReply(request.number, disposition, reply.result, (0,) * len(request.buffers), (), lines)
        return Outgoing(done)
    data = [
        memoryview(reply.outputs.get(name, b""))[: max(length, 0)]
        for name, length in zip(request.plan.pointers, request.buffers, strict=True)
    ]
    body = SystemCallReply(request.number, disposition, reply.result, tuple(map(len, data)), reply.effects, lines)
    return Outgoing(body, [piece for piece in data if piece])
