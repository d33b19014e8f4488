"""The virtual CPU of the `virt` machine: an engine, memory, images, and the rules that connect them to a `Bus`.

Memory map: RAM from 80000000h; every access below that goes to the bus, every access above RAM is an access fault.

Interrupts. `Bus.lines` holds the inputs of mip (MSIP, MTIP, SEIP, MEIP). They are presented to the engine before
each start, ORed with the bits that machine-mode software wrote (SSIP, STIP, SEIP; RISC-V Privileged ISA 1.10, section
3.1.14), and the engine takes interrupts by itself: also in the middle of a run, at the very MRET, SRET or CSR write
that enables one, so nothing polls while one waits. Only, of several it would take the one with the lowest number,
which is not the architecture's order. While more than one is pending, enabled or not, they are therefore taken here,
between slices of a millisecond; an M-mode write to mip lets the engine take them for the rest of its slice. A rising
line needs a `kick`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Final, Protocol

from iovirt_dist.errors import ImageError
from iovirt_dist.guest.bus import Bus, IoPrivilege
from iovirt_dist.guest.engine import Callbacks, Engine, Stop, StopKind
from iovirt_dist.guest.fdt import virt_blob
from iovirt_dist.guest.loader.image import LoadedImage
from iovirt_dist.guest.riscv.traps import LINES, SEIP, SSIP, STIP, choose_interrupt, enter_exception, enter_interrupt
from iovirt_dist.guest.vcpu import CpuCounters, Exit, ExitReason
from iovirt_dist.platform.virt import RAM_BASE
from iovirt_dist.virtio.memory import GuestMemory

_TREE_ALIGNMENT: Final = 2 << 20
"""Large enough for every firmware's idea of alignment; what is behind the tree is scratch."""

_CONTENDED_SLICE_US: Final = 1000
_PRIVILEGES: Final = tuple(IoPrivilege(level) for level in range(4))


class RiscvEngine(Engine, Protocol):
    """What the RISC-V rules need of an engine beyond `Engine`.

    Unlike other engines it takes interrupts by itself, from mip, mie, mideleg and mstatus.
    """

    def present(self, mip: int, lines: int, *, armed: bool) -> None:
        """Replace all of mip.

        Args:
            mip: All bits.
            lines: Those that are inputs now, so that software cannot clear them.
            armed: Whether the engine takes what is enabled by itself; it may also do so once software writes mip.
        """
        ...

    def run_slice(self, pc: int, slice_us: int) -> Stop | None:
        """As `Engine.run`, but give up after about `slice_us` microseconds and return None; 0 is for ever."""
        ...

    def clear_ram(self) -> None:
        """Zero all RAM."""
        ...

    def power_on(self) -> None:
        """Put all registers into their state after reset (RISC-V Privileged ISA 1.10, section 3.3)."""
        ...


class RiscvCpu:
    """Hart 0 with its memory; implements `iovirt_dist.guest.vcpu.VirtualCpu`.

    Args:
        make_engine: Builds the engine around our callbacks, such as `iovirt_dist.guest.unicorn.riscv.UnicornRiscv`.
        bus: Everything that is not RAM.
        images: What to load: the image that is entered in M mode first, then payloads that it starts.
        ram_bytes: Size of RAM; a multiple of 4 KiB.
        command_line: ``/chosen/bootargs`` of the device tree.

    Raises:
        ImageError: There is no room for the device tree, or images overlap.
        LocalError: A size that cannot be mapped.
    """

    def __init__(
        self,
        make_engine: Callable[[Callbacks], RiscvEngine],
        bus: Bus,
        images: tuple[LoadedImage, ...],
        ram_bytes: int,
        command_line: str = "",
    ) -> None:
        self._bus = bus
        self._images = images
        self._tree = virt_blob(ram_bytes, command_line)
        self._tree_address = (RAM_BASE + ram_bytes - len(self._tree)) // _TREE_ALIGNMENT * _TREE_ALIGNMENT
        _check_apart(images, self._tree_address)
        self._engine = make_engine(Callbacks(_no_port_in, _no_port_out, self._load, self._store))
        self._engine.map_ram(RAM_BASE, ram_bytes)
        self._interrupts = 0
        self._faults = 0
        self._exceptions = 0
        self._pc = 0
        self._waiting = False
        self._lines = 0
        self._contended = False
        self._software_external = 0
        self.reset()

    @property
    def tree_address(self) -> int:
        """Where the device tree lies, the value of a1 at entry."""
        return self._tree_address

    def run(self) -> Exit:
        """Execute guest code until WFI with nothing to wake it, or `kick`.

        Raises:
            BusClosedError: The bus closed inside a trap; the CPU must not be run again.
        """
        engine = self._engine
        while True:
            self._present_lines()
            if self._waiting:
                if not self._wakes():
                    return Exit(ExitReason.HALTED)
                self._waiting = False
            stop = engine.run_slice(self._pc, _CONTENDED_SLICE_US if self._contended else 0)
            if stop is None:
                self._pc = engine.read_register("pc")
                continue
            self._pc = stop.pc
            if stop.kind is StopKind.KICKED:
                return Exit(ExitReason.KICKED)
            if stop.kind is StopKind.HALTED:
                self._waiting = True
            else:
                self._exceptions += 1
                self._faults += stop.kind is StopKind.REFUSED
                self._pc = enter_exception(engine, stop.vector, stop.pc, stop.error_code)

    def kick(self) -> None:
        """Make `run` return soon; from any thread."""
        self._engine.kick()

    def reset(self) -> None:
        """Power-on reset: M mode at the first image's entry, a0 = hart id 0, a1 = the device tree; RAM cleared."""
        engine = self._engine
        engine.clear_ram()
        engine.power_on()
        for image in self._images:
            for segment in image.segments:
                engine.write_memory(segment.address, segment.data)
        engine.write_memory(self._tree_address, self._tree)
        engine.write_register("a0", 0)
        engine.write_register("a1", self._tree_address)
        self._pc = self._images[0].entry
        self._waiting = False
        self._lines = 0
        self._interrupts = self._faults = self._exceptions = 0
        self._contended = False
        self._software_external = 0

    @property
    def memory(self) -> GuestMemory:
        """RAM as devices see it; see `VirtualCpu`."""
        return self._engine.memory

    def read_memory(self, address: int, length: int) -> bytes:
        """Read guest physical RAM.

        Raises:
            LocalError: The range is not RAM.
        """
        return self._engine.read_memory(address, length)

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write guest physical RAM; errors as in `read_memory`."""
        self._engine.write_memory(address, data)

    def read_register(self, name: str) -> int:
        """Read a register by its lower-case name, for debuggers and tests; not while another thread runs the CPU."""
        return self._pc if name == "pc" else self._engine.read_register(name)

    def counters(self) -> CpuCounters:
        """Counts since power-on. An interrupt is counted when its line is first presented, not when it is taken."""
        return CpuCounters(self._interrupts, self._faults, self._exceptions)

    # Interrupt inputs

    def _present_lines(self) -> None:
        lines = self._bus.lines() & LINES
        if lines == self._lines and not self._contended:
            return
        pending = lines | self._software_bits()
        self._contended = pending.bit_count() > 1
        self._engine.present(pending, lines, armed=not self._contended)
        self._interrupts += (lines & ~self._lines).bit_count()
        self._lines = lines
        if self._contended and (cause := choose_interrupt(self._engine)) is not None:
            self._waiting = False
            self._pc = enter_interrupt(self._engine, cause, self._pc)

    def _software_bits(self) -> int:
        """Bits of mip that software wrote. While the SEIP line is up, what it wrote to SEIP before stands."""
        mip = self._engine.read_register("mip")
        if not self._lines & SEIP:
            self._software_external = mip & SEIP
        return mip & (SSIP | STIP) | self._software_external

    def _wakes(self) -> bool:
        """Section 3.2.3: WFI resumes on any locally enabled interrupt, globally enabled or not."""
        return bool(self._engine.read_register("mip") & self._engine.read_register("mie"))

    # Device accesses

    def _load(self, address: int, width: int) -> int:
        return self._bus.load(address, width, _PRIVILEGES[self._engine.read_register("priv")])

    def _store(self, address: int, width: int, value: int) -> None:
        self._bus.store(address, width, value, _PRIVILEGES[self._engine.read_register("priv")])


def _check_apart(images: tuple[LoadedImage, ...], tree_address: int) -> None:
    segments = sorted((s for image in images for s in image.segments), key=lambda s: s.address)
    for lower, upper in itertools.pairwise(segments):
        if lower.end > upper.address:
            raise ImageError(
                f"image and payload overlap at {upper.address:#x}", "payload", "use firmware linked to other addresses"
            )
    if tree_address < RAM_BASE or segments[-1].end > tree_address:
        raise ImageError("no room for the device tree behind the image", "image", "give the guest more memory")


def _no_port_in(_port: int, _width: int, _count: int) -> bytes:
    raise NotImplementedError("RISC-V has no ports")


def _no_port_out(_port: int, _width: int, _data: bytes) -> None:
    raise NotImplementedError("RISC-V has no ports")
