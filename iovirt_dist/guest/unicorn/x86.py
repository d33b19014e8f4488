"""The x86 engine: Unicorn as one 32-bit CPU with precise I/O traps.

Theory of operation.

- *Traps.* IN and OUT reach `_on_in` and `_on_out` with all registers exact: Unicorn recovers them before it calls an
  I/O hook. INS and OUTS arrive there element by element; `guest.x86.strings` tells how many can move at once, we move
  all but one and adjust ECX and ESI or EDI; the CPU reads its registers again after the hook and moves the last one.
- *Refusal.* After a hook the rest of the translated block still runs. When an I/O instruction is refused we keep a copy
  of the registers, put an empty page directory under the CPU and flush its TLB, so that the first memory access of the
  rest ends in a page fault that nobody sees, ignore all further hooks, and put the copy back when the emulator has
  returned. Nothing of the instruction or behind it takes effect, with one exception: the emulator writes a zero to
  the destination of INS before the hook, so a refused INS clears its first element (memory that the program could
  write anyway). A refused load or store, which no device of a PC asks for, is reported at the end of its block.
- *Exceptions.* All arrive in `_on_interrupt` with exact registers, error code and CR2, except #UD and fetches from
  nowhere, which end `emu_start` with an error number. Fetches outside memory would read all ones on a PC, FFFFh is
  an undefined opcode, so they raise #UD as well.
- *Stops* happen between translated blocks only (`whole_blocks`): Unicorn would also stop inside of instructions and
  then execute a part of them twice.
- *HLT* simply ends `emu_start`, as a stop request does; `HaltFlag` tells the two apart. A kick that comes together with
  HLT stays pending.
"""

from __future__ import annotations

from typing import Final

from unicorn.unicorn_const import (
    UC_ARCH_X86,
    UC_CTL_IO_WRITE,
    UC_CTL_TLB_FLUSH,
    UC_ERR_FETCH_PROT,
    UC_ERR_FETCH_UNMAPPED,
    UC_ERR_INSN_INVALID,
    UC_HOOK_INSN,
    UC_HOOK_INTR,
    UC_MODE_32,
    UC_PROT_READ,
)
from unicorn.x86_const import (
    UC_X86_INS_IN,
    UC_X86_INS_OUT,
    UC_X86_REG_CR0,
    UC_X86_REG_CR2,
    UC_X86_REG_CR3,
    UC_X86_REG_CR4,
    UC_X86_REG_EFLAGS,
    UC_X86_REG_EIP,
    UC_X86_REG_FPCW,
    UC_X86_REG_FPTAG,
    UC_X86_REG_MXCSR,
)

from iovirt_dist.errors import GuestFault, LocalError
from iovirt_dist.guest.engine import Callbacks, Stop, StopKind
from iovirt_dist.guest.unicorn.base import PAGE_BYTES, UnicornEngine
from iovirt_dist.guest.unicorn.internals import HaltFlag
from iovirt_dist.guest.unicorn.whole_blocks import stop_between_blocks
from iovirt_dist.guest.unicorn.x86_state import REGISTER_IDS, StateBlock
from iovirt_dist.guest.x86.faults import GENERAL_PROTECTION, INVALID_OPCODE, PAGE_FAULT, WITH_ERROR_CODE, Fault
from iovirt_dist.guest.x86.paging import Mmu
from iovirt_dist.guest.x86.state import CR0_PE, CR0_PG, CR4_PAE, CpuState, Segment
from iovirt_dist.guest.x86.strings import (
    MAXIMUM_INSTRUCTION_BYTES,
    PREFIXES,
    STRING_OPCODES,
    StringInstruction,
    Transfer,
    advance,
    decode,
    gather,
    plan,
    scatter,
)

_EMPTY_DIRECTORY: Final = 1 << 32  # physical; a guest with PAE or PSE-36 can name it, but not change it
_UNDEFINED: Final = frozenset({UC_ERR_INSN_INVALID, UC_ERR_FETCH_UNMAPPED, UC_ERR_FETCH_PROT})
_REGISTERS: Final = dict(
    zip(("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"), REGISTER_IDS, strict=True),
    eip=UC_X86_REG_EIP,
    eflags=UC_X86_REG_EFLAGS,
    cr0=UC_X86_REG_CR0,
    cr2=UC_X86_REG_CR2,
    cr3=UC_X86_REG_CR3,
    cr4=UC_X86_REG_CR4,
)
_CR0_AT_RESET: Final = 0x6000_0010
_RESET_DATA: Final = Segment(0, 0, 0xFFFF, 0x9300)
_RESET_CODE: Final = Segment(0xF000, 0xFFFF_0000, 0xFFFF, 0x9B00)


class UnicornX86(UnicornEngine):
    """One x86 CPU; implements `iovirt_dist.guest.x86.state.X86Engine`.

    Args:
        callbacks: What to call for port and memory-mapped I/O.

    Raises:
        LocalError: The installed Unicorn cannot be used (see `x86_state`).
    """

    def __init__(self, callbacks: Callbacks) -> None:
        super().__init__(UC_ARCH_X86, UC_MODE_32, callbacks)
        self._halt_flag = HaltFlag(self.uc)
        stop_between_blocks(self.uc)
        self._block = StateBlock(self.uc)
        self._scratch = StateBlock(self.uc)
        self._pristine = self.uc.context_save()
        self._mmu = Mmu(self)
        self.uc.mem_map(_EMPTY_DIRECTORY, PAGE_BYTES, UC_PROT_READ)
        self.uc.hook_add(UC_HOOK_INSN, self._on_in, None, 1, 0, UC_X86_INS_IN)
        self.uc.hook_add(UC_HOOK_INSN, self._on_out, None, 1, 0, UC_X86_INS_OUT)
        self.uc.hook_add(UC_HOOK_INTR, self._on_interrupt)
        self.power_on()

    # Registers

    def read_register(self, name: str) -> int:
        """Read a general register, EIP, EFLAGS or a control register.

        Raises:
            LocalError: No such register.
        """
        value: int = self.uc.reg_read(self._register_id(name))
        return value & 0xFFFF_FFFF

    def write_register(self, name: str, value: int) -> None:
        """Write a general register, EIP, EFLAGS or a control register, with the effects of MOV to CRn.

        Raises:
            LocalError: No such register.
        """
        self.uc.reg_write(self._register_id(name), value)

    def capture(self) -> CpuState:
        """Return the CPU's state; exact between runs and inside `port_in` and `port_out`."""
        self._block.save()
        return self._block.state(self.uc.reg_read(UC_X86_REG_EFLAGS))

    def commit(self, state: CpuState) -> None:
        """Replace the CPU's state, at any privilege level; CR0, CR3 and CR4 are not changed."""
        self._block.save()
        self._block.load(state)
        self._block.restore()

    def io_level(self) -> tuple[int, int, bool]:
        """Inside a callback: privilege level, IOPL and whether virtual-8086 mode is on."""
        return self._block.io_level()

    def power_on(self) -> None:
        """Put all registers into the state after RESET (Intel SDM volume 3, table 10-1)."""
        self.uc.context_restore(self._pristine)
        for register, value in (
            (UC_X86_REG_CR0, _CR0_AT_RESET),
            (UC_X86_REG_CR3, 0),
            (UC_X86_REG_CR4, 0),
            (UC_X86_REG_FPCW, 0x40),
            (UC_X86_REG_FPTAG, 0x5555),
            (UC_X86_REG_MXCSR, 0x1F80),
        ):
            self.uc.reg_write(register, value)
        state = self.capture()
        state.registers = [0, 0, 0x600, 0, 0, 0, 0, 0]
        state.eip = 0xFFF0
        state.eflags = 2
        state.cpl = 0
        state.segments = [_RESET_DATA, _RESET_CODE, _RESET_DATA, _RESET_DATA, _RESET_DATA, _RESET_DATA]
        state.ldtr = _RESET_DATA._replace(attributes=0x8200)
        state.tr = _RESET_DATA._replace(attributes=0x8B00)
        state.gdtr = state.idtr = Segment(0, 0, 0xFFFF, 0)
        self.commit(state)
        self._flush_tlb()

    def _register_id(self, name: str) -> int:
        try:
            return _REGISTERS[name]
        except KeyError:
            raise LocalError(f"no x86 register is called {name!r}") from None

    # Running

    def run(self, pc: int) -> Stop:
        """Execute from `pc` (relative to CS) until something must be done."""
        while (stop := self.run_slice(pc, 0)) is None:
            pc = self.read_register("eip")
        return stop

    def run_slice(self, pc: int, slice_us: int) -> Stop | None:
        """As `run`, but give up after about `slice_us` microseconds and return None; 0 is for ever."""
        self._halt_flag.clear()  # a pending kick keeps the emulator from starting
        status = self._execute(pc, slice_us)
        if self._stop is not None:
            return self._settle(self._stop)
        self._block.save()
        eip = self._block.eip()
        if status in _UNDEFINED:
            return Stop(StopKind.EXCEPTION, eip, INVALID_OPCODE)
        if status:
            return Stop(StopKind.EXCEPTION, eip, GENERAL_PROTECTION)
        if self._halt_flag.is_set():
            return Stop(StopKind.HALTED, eip)
        if self._kicked:
            self._kicked = False
            return Stop(StopKind.KICKED, eip)
        return None

    def _settle(self, stop: Stop) -> Stop:
        """Undo what ran behind a refused instruction, or find out where a late refusal ended."""
        if stop.kind is not StopKind.REFUSED:
            return stop
        if stop.pc >= 0:
            self._block.restore()
            self._flush_tlb()
            return stop
        self._block.save()
        return stop._replace(pc=self._block.eip())

    def _flush_tlb(self) -> None:
        self.uc.ctl(UC_CTL_TLB_FLUSH, UC_CTL_IO_WRITE)

    # Hooks

    def _on_interrupt(self, _uc: object, vector: int, _data: object) -> None:
        self._inside = True
        if self._squashing:
            self.uc.emu_stop()
            return
        block = self._block
        block.save()
        software = block.is_software_interrupt()
        error_code = block.error_code() if vector in WITH_ERROR_CODE and not software else 0
        address = block.cr2 if vector == PAGE_FAULT else 0
        self._stop_with(Stop(StopKind.EXCEPTION, block.eip(), vector, error_code, software, address))

    def _on_in(self, _uc: object, port: int, width: int, _data: object) -> int:
        self._inside = True
        if self._squashing:
            return 0
        try:
            self._block.save()
            instruction = self._string_instruction()
            if instruction is None:
                return int.from_bytes(self._callbacks.port_in(port, width, 1), "little")
            return self._string_in(port, width, instruction)
        except GuestFault as fault:
            self._refuse_io(fault)
        except BaseException as error:  # raised again by _execute; it cannot cross C frames
            self._abandon(error)
        return 0

    def _on_out(self, _uc: object, port: int, width: int, value: int, _data: object) -> None:
        self._inside = True
        if self._squashing:
            return
        try:
            self._block.save()
            instruction = self._string_instruction()
            if instruction is None:
                mask = (1 << 8 * width) - 1
                self._callbacks.port_out(port, width, (value & mask).to_bytes(width, "little"))
            else:
                self._string_out(port, width, value, instruction)
        except GuestFault as fault:
            self._refuse_io(fault)
        except BaseException as error:  # raised again by _execute; it cannot cross C frames
            self._abandon(error)

    def _load(self, address: int, width: int) -> int:
        if not self._squashing:
            self._block.save()
        return super()._load(address, width)

    def _store(self, address: int, width: int, value: int) -> None:
        if not self._squashing:
            self._block.save()
        super()._store(address, width, value)

    def _refuse(self, fault: GuestFault) -> None:
        """A load or store was refused; its instruction is not known, so the stop is at the end of the block."""
        self._stop_with(Stop(StopKind.REFUSED, -1, fault.vector, fault.error_code))

    def _refuse_io(self, fault: GuestFault) -> None:
        """Make the rest of the block harmless and report the instruction; `_settle` puts the registers back."""
        self._squashing = True
        self._stop_with(Stop(StopKind.REFUSED, self._block.eip(), fault.vector, fault.error_code))
        self._scratch.save()
        self._scratch.set_control(0, self._block.cr0 | CR0_PG | CR0_PE)
        self._scratch.set_control(3, _EMPTY_DIRECTORY)
        self._scratch.set_control(4, self._block.cr4 & ~CR4_PAE)
        self._scratch.restore()
        self._flush_tlb()

    # String I/O

    def _string_instruction(self) -> StringInstruction | None:
        """Decode the instruction at EIP if it is INS or OUTS; cheap for the common IN and OUT."""
        linear = self._block.code_segment_base() + self._block.eip()
        for length in (2, MAXIMUM_INSTRUCTION_BYTES):
            try:
                code = self._mmu.read(self._block, linear, length)
            except Fault:
                room = PAGE_BYTES - linear % PAGE_BYTES
                code = self._mmu.read(self._block, linear, min(room, length))
            if code[0] not in PREFIXES and code[0] not in STRING_OPCODES:
                return None
            if code[0] == 0x66 and len(code) > 1 and code[1] not in PREFIXES and code[1] not in STRING_OPCODES:
                return None
        return decode(code, self.capture())

    def _plan(self, instruction: StringInstruction) -> tuple[CpuState, Transfer]:
        state = self.capture()
        return state, plan(self._mmu, self, state, instruction)

    def _string_in(self, port: int, width: int, instruction: StringInstruction) -> int:
        state, transfer = self._plan(instruction)
        data = self._callbacks.port_in(port, width, transfer.elements)
        if transfer.elements > 1:
            scatter(self, transfer, width, data)
            self._advance(state, instruction, transfer)
        return int.from_bytes(data[:width], "little")

    def _string_out(self, port: int, width: int, value: int, instruction: StringInstruction) -> None:
        state, transfer = self._plan(instruction)
        if transfer.elements > 1:
            self._callbacks.port_out(port, width, gather(self, transfer, width))
            self._advance(state, instruction, transfer)
        else:
            self._callbacks.port_out(port, width, (value & (1 << 8 * width) - 1).to_bytes(width, "little"))

    def _advance(self, state: CpuState, instruction: StringInstruction, transfer: Transfer) -> None:
        for register, value in advance(state, instruction, transfer).items():
            self.uc.reg_write(REGISTER_IDS[register], value)
