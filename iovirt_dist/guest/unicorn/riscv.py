"""The riscv64 engine on Unicorn: an RV64IMAFDC core (SiFive U54 model) with M, S and U mode, Sv39 and PMP.

Theory of operation. Below and beside RAM nothing is mapped, so an access there ends in a hook that knows its address,
width and value. It buys what mapped I/O ranges cannot give (Unicorn 2.1.4): a doubleword arrives as one access,
not as two words, and faults can be precise. A restart costs 10 us, a tenth of the message that usually follows.

- A load leaves Unicorn in front of the instruction. The engine carries it out by hand: it asks the callback, writes the
  register, moves the PC on and starts Unicorn again. A refused load has no effect, nor has anything behind it.
- A store is handed over inside the hook; Unicorn finishes the block and leaves. A store that must fault is undone: the
  registers are saved in the hook and restored behind the run, and RAM is protected while the rest of the block runs.
- A WFI in the block of a store counts as done, which the architecture allows.

Two more things differ from what one expects. In the interrupt hook the PC is four behind the instruction, whatever
its length. And interrupts are taken by Unicorn itself, as soon as mip, mie, mstatus and the privilege allow, between
two instructions; `present` is how lines get there. Of several that become enabled together it takes
the one with the lowest number.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from unicorn import riscv_const
from unicorn.unicorn_const import (
    UC_ARCH_RISCV,
    UC_ERR_FETCH_UNMAPPED,
    UC_ERR_INSN_INVALID,
    UC_ERR_READ_UNMAPPED,
    UC_ERR_WRITE_UNMAPPED,
    UC_HOOK_INTR,
    UC_HOOK_MEM_FETCH_UNMAPPED,
    UC_HOOK_MEM_READ_UNMAPPED,
    UC_HOOK_MEM_WRITE_UNMAPPED,
    UC_MEM_FETCH_UNMAPPED,
    UC_MEM_WRITE_UNMAPPED,
    UC_MODE_RISCV64,
    UC_PROT_ALL,
    UC_PROT_EXEC,
    UC_PROT_READ,
)

from iovirt_dist.errors import GuestFault, LocalError
from iovirt_dist.guest.engine import Callbacks, Stop, StopKind
from iovirt_dist.guest.riscv.access import (
    WORD_MASK,
    Access,
    decode_access,
    instruction_length,
    is_atomic_update,
)
from iovirt_dist.guest.riscv.sv39 import translate
from iovirt_dist.guest.riscv.traps import MACHINE, Cause
from iovirt_dist.guest.unicorn.base import PAGE_BYTES, UnicornEngine
from iovirt_dist.guest.unicorn.riscv_state import StateBlock
from iovirt_dist.guest.unicorn.whole_blocks import stop_between_blocks

_REGISTER_IDS: Final[dict[str, int]] = {
    name.removeprefix("UC_RISCV_REG_").lower(): value
    for name, value in vars(riscv_const).items()
    if name.startswith("UC_RISCV_REG_") and name not in ("UC_RISCV_REG_INVALID", "UC_RISCV_REG_ENDING")
}
_X0: Final = riscv_const.UC_RISCV_REG_X0
_F0: Final = riscv_const.UC_RISCV_REG_F0
_PC: Final = riscv_const.UC_RISCV_REG_PC
_PRIV: Final = riscv_const.UC_RISCV_REG_PRIV
_UNPRIVILEGED: Final = frozenset(
    [f"x{n}" for n in range(32)] + [f"f{n}" for n in range(32)] + ["pc"] + [
        name for name, value in _REGISTER_IDS.items() if _X0 <= value < _X0 + 32 or _F0 <= value < _F0 + 32
    ]
)  # fmt: skip
_WITH_ADDRESS: Final = frozenset(
    {
        Cause.FETCH_MISALIGNED,
        Cause.FETCH_ACCESS,
        Cause.LOAD_MISALIGNED,
        Cause.LOAD_ACCESS,
        Cause.STORE_MISALIGNED,
        Cause.STORE_ACCESS,
        Cause.FETCH_PAGE,
        Cause.LOAD_PAGE,
        Cause.STORE_PAGE,
    }
)
_LOADS: Final = frozenset({Cause.LOAD_MISALIGNED, Cause.LOAD_ACCESS, Cause.LOAD_PAGE})
_MSTATUS_FS: Final = 3 << 13
_UNMAPPED: Final = frozenset({UC_ERR_READ_UNMAPPED, UC_ERR_WRITE_UNMAPPED, UC_ERR_FETCH_UNMAPPED})
_HOOK_PC_BIAS: Final = 4


class _Rollback(NamedTuple):
    """A store that faults: the CPU state in front of it, and what to report."""

    context: Any
    fault: GuestFault
    kind: StopKind


class UnicornRiscv(UnicornEngine):
    """Implements `iovirt_dist.guest.riscv.vcpu.RiscvEngine`.

    Args:
        callbacks: What to call for device accesses; the port callbacks are not used.
        io_end: Accesses below this physical address go to the callbacks; others outside RAM are access faults.
    """

    def __init__(self, callbacks: Callbacks, io_end: int = 0x8000_0000) -> None:
        super().__init__(UC_ARCH_RISCV, UC_MODE_RISCV64, callbacks, riscv_const.UC_CPU_RISCV64_SIFIVE_U54)
        stop_between_blocks(self.uc)  # a stop inside an AMO or SC would execute it twice
        self._io_end = io_end
        self._block = StateBlock(self.uc)
        self._privilege: int | None = None
        self._exception = -1
        self._unmapped: tuple[int, int, int] | None = None
        self._rollback: _Rollback | None = None
        self._exception_pc = 0
        self._reset_state = self.uc.context_save()
        self.uc.hook_add(UC_HOOK_INTR, self._on_exception)
        self.uc.hook_add(
            UC_HOOK_MEM_READ_UNMAPPED | UC_HOOK_MEM_WRITE_UNMAPPED | UC_HOOK_MEM_FETCH_UNMAPPED, self._on_unmapped
        )

    # Registers

    def read_register(self, name: str) -> int:
        """Read a register (x0.., f0.., ABI names, CSR names, ``pc``, ``priv``) at any privilege."""
        if name == "priv":
            return self._current_privilege()
        if name not in _UNPRIVILEGED:
            self._raise_privilege()
        value: int = self.uc.reg_read(_REGISTER_IDS[name])
        return value

    def write_register(self, name: str, value: int) -> None:
        """Write a register at any privilege; not ``mip``, see `present`."""
        if name == "priv":
            self._raise_privilege()
            self._privilege = value
            return
        if name not in _UNPRIVILEGED:
            self._raise_privilege()
        self.uc.reg_write(_REGISTER_IDS[name], value & WORD_MASK)

    def present(self, mip: int, lines: int, *, armed: bool) -> None:
        """Replace all of mip; see `iovirt_dist.guest.riscv.vcpu.RiscvEngine`."""
        self._raise_privilege()
        self._block.write_mip(mip, lines, armed=armed)

    def power_on(self) -> None:
        """Put all registers into their state after reset: M mode, interrupts and translation off."""
        self._privilege = None
        self.uc.context_restore(self._reset_state)
        self.present(0, 0, armed=False)

    def _current_privilege(self) -> int:
        if self._privilege is None:
            value: int = self.uc.reg_read(_PRIV)
            return value
        return self._privilege

    def _raise_privilege(self) -> None:
        """CSRs read and write correctly only in M mode: go there once a stop, and come back at the next start."""
        if self._privilege is None:
            self._privilege = self.uc.reg_read(_PRIV)
            self.uc.reg_write(_PRIV, MACHINE)

    # Running

    def run(self, pc: int) -> Stop:
        """Execute from `pc` until something must be done.

        Raises:
            BusClosedError: A callback said so; the access has not been carried out.
        """
        while (stop := self.run_slice(pc, 0)) is None:
            pc = self.uc.reg_read(_PC)
        return stop

    def run_slice(self, pc: int, slice_us: int) -> Stop | None:
        """As `run`, but give up after about `slice_us` microseconds and return None; 0 is for ever."""
        while not self._kicked:
            outcome = self._run_once(pc, slice_us)
            if isinstance(outcome, Stop):
                return outcome
            pc = outcome
            if slice_us:
                self.uc.reg_write(_PC, pc)
                return None
        self._kicked = False
        return Stop(StopKind.KICKED, pc)

    def _run_once(self, pc: int, slice_us: int) -> Stop | int:
        """Start Unicorn once; return why the guest must stop, or where it may go on."""
        if self._privilege is not None:
            self.uc.reg_write(_PRIV, self._privilege)
            self._privilege = None
        self.uc.reg_write(_PC, pc)  # a kick may keep Unicorn from starting
        self._exception = -1
        self._unmapped = None
        status = self._execute(pc, slice_us)
        if self._rollback is not None:
            return self._undo_store(self._rollback)
        if self._unmapped is not None:
            return self._complete(*self._unmapped)
        pc = int(self.uc.reg_read(_PC))
        if self._exception >= 0:
            return self._describe(self._exception, self._exception_pc)
        if status == UC_ERR_INSN_INVALID:  # EBREAK is the one exception that does not come through the hook
            return Stop(StopKind.EXCEPTION, pc, Cause.BREAKPOINT, pc, address=pc)
        if status in _UNMAPPED:  # behind a store; a load or fetch that followed in the same block has not begun
            return pc
        if status:
            raise LocalError(f"Unicorn failed with error {status} at {pc:#x}", "unicorn")
        return pc if self._kicked or self._elapsed else Stop(StopKind.HALTED, pc)

    def _describe(self, cause: int, pc: int) -> Stop:
        if cause == Cause.ILLEGAL:
            return Stop(StopKind.EXCEPTION, pc, cause, self._fetch(pc))
        if cause in _WITH_ADDRESS:
            address = self._block.trap_value()
            if cause in _LOADS and is_atomic_update(self._fetch(pc)):
                cause += 2  # Unicorn's atomics load first; architecturally theirs are store faults
            return Stop(StopKind.EXCEPTION, pc, cause, address, address=address)
        return Stop(StopKind.EXCEPTION, pc, cause)

    # Device accesses

    def _complete(self, kind: int, physical: int, width: int) -> Stop | int:
        """Carry out the load that left RAM, and return the PC behind it; or return the fault that it raises."""
        pc = self.uc.reg_read(_PC)
        if kind == UC_MEM_FETCH_UNMAPPED:
            crossing = pc & (PAGE_BYTES - 1) == PAGE_BYTES - 2 and not physical & (PAGE_BYTES - 1)
            return _fault(pc, Cause.FETCH_ACCESS, pc + 2 if crossing else pc)
        word = self._fetch(pc)
        access = decode_access(word)
        if access is None:
            cause = Cause.STORE_ACCESS if is_atomic_update(word) else Cause.LOAD_ACCESS
            return _fault(pc, cause, self.uc.reg_read(_X0 + (word >> 15 & 31)))
        address = (self.uc.reg_read(_X0 + access.base) + access.offset) & WORD_MASK
        if address & (width - 1):
            return _fault(pc, Cause.LOAD_MISALIGNED, address)
        if physical >= self._io_end:
            return _fault(pc, Cause.LOAD_ACCESS, address)
        try:
            self._retire_load(access, self._callbacks.load(physical, width))
        except GuestFault as fault:
            return Stop(StopKind.REFUSED, pc, fault.vector, fault.error_code or address, address=address)
        return (int(pc) + access.length) & WORD_MASK

    def _retire_load(self, access: Access, value: int) -> None:
        value = access.extend(value)
        if access.floating:
            self.uc.reg_write(_F0 + access.register, value)
            self.write_register("mstatus", self.read_register("mstatus") | _MSTATUS_FS)
        elif access.register:
            self.uc.reg_write(_X0 + access.register, value)

    def _undo_store(self, rollback: _Rollback) -> Stop:
        """Put the CPU back in front of a store that faults; see `_refuse`."""
        self._rollback = None
        self.uc.context_restore(rollback.context)
        for region in self._regions:
            self.uc.mem_protect(region.start, region.end - region.start, UC_PROT_ALL)
        pc = int(self.uc.reg_read(_PC))
        access = decode_access(self._fetch(pc))
        address = 0
        if access is not None:
            address = (self.uc.reg_read(_X0 + access.base) + access.offset) & WORD_MASK
        return Stop(rollback.kind, pc, rollback.fault.vector, rollback.fault.error_code or address, address=address)

    def _fetch(self, address: int) -> int:
        """Read the instruction at a virtual address; 0, which is no instruction, if it cannot be read."""
        word = self._fetch_half(address)
        if instruction_length(word) == 4:
            word |= self._fetch_half(address + 2) << 16
        return word

    def _fetch_half(self, address: int) -> int:
        physical: int | None = address
        if self._current_privilege() < MACHINE:
            physical = translate(self.read_memory, self.read_register("satp"), address)
        try:
            return 0 if physical is None else int.from_bytes(self.read_memory(physical, 2), "little")
        except LocalError:
            return 0

    # Hooks

    def _on_exception(self, _uc: object, cause: int, _data: object) -> None:
        self._inside = True
        if self._exception < 0:
            self._exception = cause
            self._exception_pc = (self.uc.reg_read(_PC) - _HOOK_PC_BIAS) & WORD_MASK
        self.uc.emu_stop()

    def _on_unmapped(self, _uc: object, kind: int, address: int, width: int, value: int, _data: object) -> bool:
        self._inside = True
        if kind != UC_MEM_WRITE_UNMAPPED:
            if self._unmapped is None:
                self._unmapped = (kind, address, width)
        elif address & (width - 1):
            self._refuse(GuestFault(Cause.STORE_MISALIGNED), StopKind.EXCEPTION)
        elif address >= self._io_end:
            self._refuse(GuestFault(Cause.STORE_ACCESS), StopKind.EXCEPTION)
        else:
            self._store(address, width, value & ((1 << 8 * width) - 1))
        return False

    def _refuse(self, fault: GuestFault, kind: StopKind = StopKind.REFUSED) -> None:
        """Inside the hook of a store: see to it that neither it nor the rest of its block takes effect."""
        if self._squashing:
            return
        self._squashing = True
        self._rollback = _Rollback(self.uc.context_save(), fault, kind)
        for region in self._regions:
            self.uc.mem_protect(region.start, region.end - region.start, UC_PROT_READ | UC_PROT_EXEC)
        self.uc.emu_stop()


def _fault(pc: int, cause: Cause, address: int) -> Stop:
    return Stop(StopKind.EXCEPTION, pc, cause, address, address=address)
