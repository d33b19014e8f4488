"""The virtual CPU of the `pc` machine: an engine, memory, and the rules that connect them to a `Bus`.

Memory map: RAM from 0 to 640 KiB and from 1 MiB to `ram_bytes`; a ROM ends at 4 GiB and its last 128 KiB are copied to
shadow RAM below 1 MiB, always writable as firmware makes it by the host bridge's PAM registers (Intel 82441FX
datasheet, section 3.2.18); every other access below 4 GiB goes to the bus. Address line 20 is always enabled.

External interrupts are looked at before each start of the engine, so a rising line needs a `kick`. While INTR is
asserted but the guest cannot take it (IF clear, or the instruction behind STI or MOV SS) the engine runs in short
slices; no hook watches the flag, and nothing is slower when nothing is pending.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iovirt_dist.guest.bus import Bus, IoPrivilege
from iovirt_dist.guest.engine import Callbacks, Stop, StopKind
from iovirt_dist.guest.loader.image import ImageFormat, LoadedImage
from iovirt_dist.guest.vcpu import CpuCounters, Exit, ExitReason
from iovirt_dist.guest.x86.delivery import Event, ShutdownError, deliver
from iovirt_dist.guest.x86.faults import Fault
from iovirt_dist.guest.x86.io_privilege import io_privilege
from iovirt_dist.guest.x86.paging import Mmu
from iovirt_dist.guest.x86.state import CR0_PE, CS, IF, CpuState, Segment, X86Engine
from iovirt_dist.guest.x86.system_calls import SYSTEM_CALL_VECTOR, SystemCalls
from iovirt_dist.virtio.memory import GuestMemory

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

_LOW_RAM_BYTES: Final = 640 * KIB
_ROM_SHADOW_BYTES: Final = 128 * KIB
_INTR: Final = 1  # Bus.lines()
_FIRST_SLICE_US: Final = 20
_LAST_SLICE_US: Final = 400
_ONE_BYTE_INTERRUPTS: Final = (b"\xcc", b"\xce")  # INT3, INTO
_REGISTER_ORDER: Final = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
_FLAT_CODE: Final = Segment(0x08, 0, 0xFFFF_FFFF, 0xCF_9B00)
_FLAT_DATA: Final = Segment(0x10, 0, 0xFFFF_FFFF, 0xCF_9300)
_REAL_CODE: Final = Segment(0, 0, 0xFFFF, 0x9B00)


class X86Cpu:
    """One x86 CPU with its memory; implements `iovirt_dist.guest.vcpu.VirtualCpu`.

    Args:
        make_engine: Builds the engine around our callbacks, such as `iovirt_dist.guest.unicorn.x86.UnicornX86`.
        bus: Everything outside RAM and ROM.
        image: What to load and where to start.
        ram_bytes: Size of RAM; a multiple of 4 KiB, at least 1 MiB + 4 KiB and below the ROM.

    Raises:
        LocalError: Sizes that cannot be mapped.
    """

    def __init__(
        self, make_engine: Callable[[Callbacks], X86Engine], bus: Bus, image: LoadedImage, ram_bytes: int
    ) -> None:
        self._bus = bus
        self._image = image
        self._engine = make_engine(Callbacks(self._port_in, self._port_out, self._load, self._store))
        self._mmu = Mmu(self._engine)
        self._system_calls = SystemCalls(self._engine, self._mmu, bus)
        self._interrupts = 0
        self._faults = 0
        self._exceptions = 0
        self._eip = 0
        self._halted = False
        self._stopped: str | None = None
        self._slice_us = _FIRST_SLICE_US
        self._map_memory(ram_bytes)
        self.reset()

    def run(self) -> Exit:
        """Deliver what is pending, execute guest code, and return on HLT, `kick` or the end of the CPU.

        Raises:
            BusClosedError: The bus closed inside a trap; the CPU must not be run again.
        """
        while self._stopped is None:
            waiting = self._take_interrupt()
            if self._halted:
                return Exit(ExitReason.HALTED)
            stop = self._engine.run_slice(self._eip, self._slice_us if waiting else 0)
            if stop is None:
                self._eip = self._engine.read_register("eip")
                continue
            self._eip = stop.pc
            if stop.kind is StopKind.KICKED:
                return Exit(ExitReason.KICKED)
            self._handle(stop)
        return Exit(ExitReason.STOPPED, self._stopped)

    def kick(self) -> None:
        """Make `run` return soon; from any thread."""
        self._engine.kick()

    def reset(self) -> None:
        """Power-on reset: registers as after RESET, RAM cleared, images loaded again."""
        self._engine.clear_ram()
        self._engine.power_on()
        if self._image.kind is ImageFormat.ROM:
            shadow = self._image.segments[0].data[-_ROM_SHADOW_BYTES:]
            self._engine.write_memory(MIB - len(shadow), shadow)
        else:
            for segment in self._image.segments:
                self._engine.write_memory(segment.address, segment.data)
            self._enter_image()
        self._eip = self._engine.read_register("eip")
        self._interrupts = self._faults = self._exceptions = 0
        self._halted = False
        self._stopped = None

    @property
    def memory(self) -> GuestMemory:
        """RAM as devices see it; see `VirtualCpu`."""
        return self._engine.memory

    def read_memory(self, address: int, length: int) -> bytes:
        """Read guest physical memory.

        Raises:
            LocalError: The range is neither RAM nor ROM.
        """
        return self._engine.read_memory(address, length)

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write guest physical memory; errors as in `read_memory`."""
        self._engine.write_memory(address, data)

    def counters(self) -> CpuCounters:
        """Counts since power-on."""
        return CpuCounters(self._interrupts, self._faults, self._exceptions)

    def state(self) -> CpuState:
        """The registers, for debuggers and tests; not while another thread runs the CPU."""
        return self._engine.capture()

    # Start

    def _map_memory(self, ram_bytes: int) -> None:
        self._engine.map_ram(0, _LOW_RAM_BYTES)
        self._engine.map_ram(MIB, ram_bytes - MIB)
        if self._image.kind is ImageFormat.ROM:
            rom = self._image.segments[0]
            shadow_bytes = min(len(rom.data), _ROM_SHADOW_BYTES)
            self._engine.map_rom(rom.address, rom.data)
            self._engine.map_ram(MIB - shadow_bytes, shadow_bytes)
        self._engine.map_io_gaps(4 * GIB)

    def _enter_image(self) -> None:
        """Set the entry state of ELF and multiboot (32-bit, flat, paging off) or of a flat binary (real mode)."""
        state = self._engine.capture()
        if self._image.kind is ImageFormat.FLAT:
            segment = min(self._image.entry >> 4, 0xF000)
            state.segments[CS] = _REAL_CODE if self._image.entry < 64 * KIB else _real_code(segment)
            state.eip = self._image.entry - state.segments[CS].base
        else:
            self._engine.write_register("cr0", CR0_PE | 0x10)
            state = self._engine.capture()
            state.segments = [_FLAT_DATA, _FLAT_CODE, _FLAT_DATA, _FLAT_DATA, _FLAT_DATA, _FLAT_DATA]
            state.eip = self._image.entry
        for name, value in self._image.registers.items():
            state.registers[_REGISTER_ORDER.index(name)] = value
        self._engine.commit(state)

    # Interrupts and exceptions

    def _take_interrupt(self) -> bool:
        """Deliver an external interrupt if one is asserted and can be taken; return whether one has to wait."""
        if not self._bus.lines() & _INTR:
            return False
        state = self._engine.capture()
        if not state.eflags & IF or state.shadow:
            self._slice_us = min(2 * self._slice_us, _LAST_SLICE_US)
            return True
        state.eip = self._eip
        self._slice_us = _FIRST_SLICE_US
        self._halted = False
        self._interrupts += 1
        self._deliver(state, Event(self._bus.acknowledge_interrupt(), external=True))
        return False

    def _handle(self, stop: Stop) -> None:
        """Act on HLT, an exception or a refused instruction."""
        if stop.kind is StopKind.HALTED:
            self._halted = True
            return
        if stop.kind is StopKind.REFUSED:
            self._faults += 1
        state = self._engine.capture()
        state.eip = stop.pc
        if stop.vector == SYSTEM_CALL_VECTOR and stop.software and self._system_calls.take(state):
            return
        start = self._software_interrupt_start(state) if stop.software else 0
        self._deliver(state, Event(stop.vector, stop.error_code, stop.software, instruction=start))

    def _software_interrupt_start(self, state: CpuState) -> int:
        """EIP of the software interrupt that ends at EIP: INT3 and INTO have one byte, INT n two (prefixes aside)."""
        try:
            last = self._mmu.read(state, state.segments[CS].base + state.eip - 1, 1)
        except Fault:
            return state.eip
        return state.eip - (1 if last in _ONE_BYTE_INTERRUPTS else 2)

    def _deliver(self, state: CpuState, event: Event) -> None:
        control = state.cr0, state.cr3
        place = f"{state.segments[CS].selector:04x}:{state.eip:08x}"
        try:
            raised = deliver(self._mmu, state, event)
        except ShutdownError as error:
            self._exceptions += len(error.vectors) - event.external
            self._stopped = f"triple fault at {place}, vectors {', '.join(map(str, error.vectors))}"
            return
        self._exceptions += raised - event.external
        self._eip = state.eip
        self._engine.commit(state)
        if (state.cr0, state.cr3) != control:  # a task switch
            self._engine.write_register("cr3", state.cr3)
            self._engine.write_register("cr0", state.cr0)

    # Called by the engine from inside an instruction

    def _port_in(self, port: int, width: int, count: int) -> bytes:
        return self._bus.port_in(port, width, count, self._io_privilege(port, width))

    def _port_out(self, port: int, width: int, data: bytes) -> None:
        self._bus.port_out(port, width, data, self._io_privilege(port, width))

    def _load(self, address: int, width: int) -> int:
        level, iopl, _ = self._engine.io_level()
        return self._bus.load(address, width, IoPrivilege(level, iopl))

    def _store(self, address: int, width: int, value: int) -> None:
        level, iopl, _ = self._engine.io_level()
        self._bus.store(address, width, value, IoPrivilege(level, iopl))

    def _io_privilege(self, port: int, width: int) -> IoPrivilege:
        return io_privilege(self._mmu, self._engine.io_level(), self._engine.capture, port, width)


def _real_code(paragraph: int) -> Segment:
    """A real-mode code segment."""
    return _REAL_CODE._replace(selector=paragraph, base=paragraph << 4)
