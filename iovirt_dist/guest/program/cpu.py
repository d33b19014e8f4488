"""The virtual CPU of a program guest: loads the program, runs it, and asks the hypervisor what its system calls do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from iovirt_dist.abi.table import Abi
from iovirt_dist.errors import LocalError
from iovirt_dist.guest.bus import Bus, SystemCallOutcome
from iovirt_dist.guest.program.address_space import AddressSpace, OutOfMemoryError
from iovirt_dist.guest.program.elf import ProgramImage
from iovirt_dist.guest.program.engine import SIGKILL, UserEngine, UserStop, UserStopKind
from iovirt_dist.guest.program.marshal import Marshaller, scatter
from iovirt_dist.guest.program.stack import STACK_BYTES, build_stack
from iovirt_dist.guest.program.tables import PAGE_BYTES, READ, WRITE
from iovirt_dist.guest.vcpu import CpuCounters, Exit, ExitReason
from iovirt_dist.virtio.memory import GuestMemory
from iovirt_dist.wire.syscall_messages import Disposition, EffectKind

PROCESS: Final = 1
"""Identity of the one process."""
DEFAULT_MEMORY_BYTES: Final = 256 << 20
_ENOSYS: Final = -38
_BYTES_PER_TABLE_BYTE: Final = 128  # an entry of 8 bytes per page, and four times that for pages far apart
_SPARE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Program:
    """What to run.

    Attributes:
        image: The program.
        name: Its path, as the program sees it (AT_EXECFN) and as it is reported.
        arguments: argv, the program's own name included.
        environment: ``NAME=value`` strings.
        random: 16 bytes for AT_RANDOM, from which the program's stack protector and pointer guard come.
        memory_bytes: What it may have mapped besides its own segments and stack.
    """

    image: ProgramImage
    name: str
    arguments: tuple[str, ...]
    environment: tuple[str, ...]
    random: bytes
    memory_bytes: int = DEFAULT_MEMORY_BYTES

    @property
    def ram_bytes(self) -> int:
        """Physical memory that this takes, page tables included; host memory is used as it is touched."""
        mapped = self.memory_bytes + self.image.memory_bytes + STACK_BYTES
        return -(-(mapped + mapped // _BYTES_PER_TABLE_BYTE + _SPARE_BYTES) // PAGE_BYTES) * PAGE_BYTES


class ProgramCpu:
    """Implements `iovirt_dist.guest.vcpu.VirtualCpu` for one program.

    Args:
        make_engine: Builds the CPU around so many bytes of memory.
        bus: The way to the hypervisor.
        program: What to run.
        abi: The table of its system calls.

    Raises:
        ImageError: Arguments and environment are too long.
        LocalError: The CPU cannot be built here.
    """

    def __init__(self, make_engine: Callable[[int], UserEngine], bus: Bus, program: Program, abi: Abi) -> None:
        self._bus = bus
        self._program = program
        self._abi = abi
        self._top = program.image.architecture.user_end - PAGE_BYTES
        image, arguments, environment = program.image, program.arguments, program.environment
        self._stack = build_stack(image, self._top, arguments, environment, program.random, program.name)
        self._marshaller = Marshaller(abi)
        self._engine = make_engine(program.ram_bytes)
        self._space: AddressSpace
        self._faults = 0
        self._announced = self._understood = False
        self._stopped: str | None = None
        self.reset()

    # VirtualCpu

    def run(self) -> Exit:
        """Run the program until it ends, or `kick`.

        Raises:
            BusClosedError: The bus closed inside a system call; the program must not be run on.
        """
        if not self._announced:
            self._announce()
        while self._stopped is None:
            stop = self._engine.run()
            if stop.kind is UserStopKind.SYSTEM_CALL:
                self._system_call()
            elif stop.kind is UserStopKind.KICKED:
                return Exit(ExitReason.KICKED)
            else:
                self._kill(stop)
        return Exit(ExitReason.STOPPED, self._stopped)

    def kick(self) -> None:
        """Make `run` return soon; from any thread."""
        self._engine.kick()

    def reset(self) -> None:
        """Load the program anew."""
        self._space = self._engine.reset()
        self._load()
        self._engine.start(self._program.image.entry, self._stack[0])
        self._faults = 0
        self._announced = False
        self._stopped = None

    @property
    def memory(self) -> GuestMemory:
        """Physical RAM; no device of a program guest accesses it."""
        return self._engine.memory

    def read_memory(self, address: int, length: int) -> bytes:
        """Read the program's memory at a virtual address.

        Raises:
            LocalError: It is not mapped.
        """
        data = self._space.read(address, length)
        if len(data) < length:
            raise LocalError(f"{length} bytes at {address:#x} are not mapped")
        return data

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write the program's memory, whatever its protection; errors as in `read_memory`."""
        self.read_memory(address, len(data))
        self._space.load(address, data)

    @property
    def stack_pointer(self) -> int:
        """Stack pointer at the program's first instruction."""
        return self._stack[0]

    def counters(self) -> CpuCounters:
        """A program takes no interrupts; its first exception is its last."""
        return CpuCounters(0, 0, self._faults)

    # Start

    def _load(self) -> None:
        """Map segments and stack; a page that two segments share gets the protection of the latter, as in Linux."""
        space, segments = self._space, self._program.image.segments
        mapped_end = 0
        for pages in sorted((segment.pages for segment in segments), key=lambda pages: pages.start):
            start = max(pages.start, mapped_end)
            space.map(start * PAGE_BYTES, (pages.stop - start) * PAGE_BYTES, READ | WRITE)
            mapped_end = max(mapped_end, pages.stop)
        for segment in segments:
            space.load(segment.address, segment.data)
        for segment in segments:
            pages = segment.pages
            space.protect(pages.start * PAGE_BYTES, len(pages) * PAGE_BYTES, segment.protection)
        space.map(self._top - STACK_BYTES, STACK_BYTES, READ | WRITE)
        space.load(*self._stack)

    def _announce(self) -> None:
        self._announced, self._understood = True, False
        image = self._program.image
        self._bus.program_started(PROCESS, self._program.name, image.break_start, image.architecture.map_top)

    # System calls and faults

    def _system_call(self) -> None:
        number, arguments = self._engine.call()
        gathered = self._marshaller.gather(number, arguments, self._space)
        outcome = self._bus.system_call(PROCESS, number, gathered.arguments, gathered.buffers, gathered.data)
        if not self._understood and not self._understands():
            return
        if outcome.disposition is Disposition.EXIT:
            result = outcome.result
            self._stopped = f"exited with status {result}" if result >= 0 else f"killed by signal {-result}"
            return
        if not self._apply(outcome):
            return
        scatter(gathered, outcome.outputs, outcome.data, self._space)
        # a program has no kernel to pass a call to
        self._engine.finish_call(outcome.result if outcome.disposition is Disposition.DONE else _ENOSYS)

    def _understands(self) -> bool:
        """Whether the hypervisor emulates our OS: it has said so before its first reply."""
        taken = self._bus.intercepted_calls()
        self._understood = taken is not None and taken[0] == self._abi.name
        if not self._understood:
            emulated = "no system calls" if taken is None else f"those of {taken[0]}"
            self._stopped = f"cannot run: the hypervisor takes {emulated}, the program is for {self._abi.name}"
        return self._understood

    def _apply(self, outcome: SystemCallOutcome) -> bool:
        """Apply a reply's effects; the program ends if one cannot be."""
        try:
            for kind, first, second, third in outcome.effects:
                if not self._apply_one(kind, first, second, third):
                    self._stopped = f"cannot go on: effect {kind.name} at {first:#x} is none on this program"
                    return False
        except OutOfMemoryError as error:
            self._stopped = f"killed by signal {SIGKILL}: {error.what}"
            return False
        return True

    def _apply_one(self, kind: EffectKind, first: int, second: int, third: int) -> bool:
        if kind is EffectKind.MAP:
            return self._space.map(first, second, third)
        if kind is EffectKind.UNMAP:
            return self._space.unmap(first, second)
        if kind is EffectKind.PROTECT:
            return self._space.protect(first, second, third)
        self._engine.set_thread_pointer(first)
        return True

    def _kill(self, stop: UserStop) -> None:
        self._faults += 1
        self._stopped = f"killed by signal {stop.signal} at {stop.pc:#x}: {stop.cause}"
