"""Small programs for program guests: an ELF builder, machine code of three architectures, and a bus that answers."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from iovirt_dist.abi.registry import ABIS
from iovirt_dist.guest.bus import IoPrivilege, SystemCallOutcome
from iovirt_dist.guest.program.architecture import I386, RISCV64, X86_64, Architecture
from iovirt_dist.guest.program.build import ENGINES
from iovirt_dist.guest.program.cpu import Program, ProgramCpu
from iovirt_dist.guest.program.elf import parse_program
from iovirt_dist.wire.syscall_messages import Disposition, EffectKind

CODE = 0x10_0000
DATA = 0x20_0000
DATA_BYTES = 0x3000
RANDOM = bytes(range(16))
DONE = SystemCallOutcome(Disposition.DONE, 0, (), b"", ())
MACHINES = {X86_64.abi: 62, I386.abi: 3, RISCV64.abi: 243}


class Call(NamedTuple):
    """A system call as it arrived."""

    name: str
    arguments: tuple[int, ...]
    buffers: tuple[int, ...]
    data: bytes


@dataclass
class ProgramBus:
    """A hypervisor that knows `exit` and answers everything else as told.

    Attributes:
        abi: Name of the ABI.
        answer: Outcome of a call.
        taken: What `intercepted_calls` says; None for everything of the ABI.
        calls: What was asked.
        started: What was announced: process, name, break, top.
    """

    abi: str
    answer: Callable[[Call], SystemCallOutcome] = lambda call: DONE
    taken: tuple[str, frozenset[int]] | None = None
    calls: list[Call] = field(default_factory=list)
    started: list[tuple[int, str, int, int]] = field(default_factory=list)

    def intercepted_calls(self) -> tuple[str, frozenset[int]] | None:
        """As told."""
        return self.taken or (self.abi, frozenset())

    def program_started(self, process: int, name: str, break_start: int, map_top: int) -> None:
        """Record."""
        self.started.append((process, name, break_start, map_top))

    def system_call(
        self, process: int, call: int, arguments: tuple[int, ...], buffers: tuple[int, ...], data: bytes
    ) -> SystemCallOutcome:
        """Record and answer."""
        seen = Call(ABIS[self.abi].call_name(call), arguments, buffers, data)
        self.calls.append(seen)
        if seen.name == "exit":
            return DONE._replace(disposition=Disposition.EXIT, result=arguments[0])
        return self.answer(seen)

    def port_in(self, port: int, width: int, count: int, privilege: IoPrivilege) -> bytes:
        """Not for programs."""
        raise AssertionError

    def port_out(self, port: int, width: int, data: bytes, privilege: IoPrivilege) -> None:
        """Not for programs."""
        raise AssertionError

    def load(self, address: int, width: int, privilege: IoPrivilege) -> int:
        """Not for programs."""
        raise AssertionError

    def store(self, address: int, width: int, value: int, privilege: IoPrivilege) -> None:
        """Not for programs."""
        raise AssertionError

    def acknowledge_interrupt(self) -> int:
        """Not for programs."""
        raise AssertionError

    def lines(self) -> int:
        """Nothing asserted."""
        return 0


class Segment(NamedTuple):
    """A PT_LOAD segment of `elf`; `flags` are 4 read, 2 write, 1 execute."""

    address: int
    data: bytes
    memory_bytes: int
    flags: int


def elf(
    architecture: Architecture,
    segments: list[Segment],
    entry: int,
    *,
    kind: int = 2,
    machine: int | None = None,
    extra: list[tuple[int, int]] | None = None,
) -> bytes:
    """Build an ELF file; `kind` is ``e_type``, `extra` are program headers of other types: (type, flags)."""
    wide = architecture.word_bytes == 8
    number = MACHINES[architecture.abi] if machine is None else machine
    header_bytes, size = (64, 56) if wide else (52, 32)
    others = extra or []
    count = len(segments) + len(others)
    body = b""
    table = b""
    at = header_bytes + size * count
    for segment in segments:
        place = (at + len(body), segment.address, len(segment.data), segment.memory_bytes)
        table += _program_header(wide, 1, segment.flags, *place)
        body += segment.data
    table += b"".join(_program_header(wide, kind_, flags, 0, 0, 0, 0) for kind_, flags in others)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    layout = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    fields = (kind, number, 1, entry, header_bytes, 0, 0, header_bytes, size, count, 0, 0, 0)
    return ident + struct.pack(layout, *fields) + table + body


def _program_header(wide: bool, kind: int, flags: int, offset: int, address: int, size: int, memory: int) -> bytes:
    if wide:
        return struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, memory, 4096)
    return struct.pack("<IIIIIIII", kind, offset, address, address, size, memory, flags, 4096)


def program(architecture: Architecture, code: str, data: bytes = b"") -> bytes:
    """A program: hexadecimal code at `CODE`, writable data at `DATA` with zeros behind."""
    text = bytes.fromhex("".join(line.split(";")[0] for line in code.splitlines()))
    return elf(architecture, [Segment(CODE, text, len(text), 5), Segment(DATA, data, DATA_BYTES, 6)], CODE)


def program_cpu(
    architecture: Architecture,
    code: str,
    answer: Callable[[Call], SystemCallOutcome] = lambda call: DONE,
    data: bytes = b"",
    arguments: tuple[str, ...] = ("prog",),
    environment: tuple[str, ...] = (),
) -> tuple[ProgramCpu, ProgramBus]:
    """A CPU with a program, and the bus that it is on."""
    bus = ProgramBus(architecture.abi, answer)
    image = parse_program(program(architecture, code, data), "prog")
    loaded = Program(image, "/bin/prog", arguments, environment, RANDOM, 1 << 20)
    return ProgramCpu(ENGINES[architecture.abi], bus, loaded, ABIS[architecture.abi]), bus


def effect(kind: EffectKind, first: int, second: int = 0, third: int = 0) -> SystemCallOutcome:
    """A call that is done with one effect."""
    return DONE._replace(effects=((kind, first, second, third),))
