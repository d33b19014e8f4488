"""The RISC-V rows: Sv39 in U and S mode (Unprivileged ISA 20191213; Privileged ISA 1.10, chapters 2 to 4).

RISC-V has no critical instruction. Without delegation all exceptions go to M mode, as the causes below do.

Operands that the mnemonics name: (a0) is a device's register, a2 = 888h.
"""

from __future__ import annotations

from typing import Final

from iovirt_dist.hypervisor.instructions.row import Effect, Grant, Instruction, Kind, Outcome
from iovirt_dist.wire.messages import TrapKind

ILLEGAL: Final = 2
LOAD_ACCESS: Final = 5
STORE_ACCESS: Final = 7
ECALL_U: Final = 8
ECALL_S: Final = 9
ECALL_M: Final = 11
LOAD_PAGE: Final = 13
STORE_PAGE: Final = 15

_DONE: Final = Outcome()
_HALTED: Final = Outcome(Effect.HALTED)
_ILLEGAL: Final = Outcome(Effect.FAULTED, fault=ILLEGAL)


def _fault(cause: int) -> Outcome:
    return Outcome(Effect.FAULTED, fault=cause)


def _load(mnemonic: str, code: str, size: str) -> Instruction:
    """A load that reaches a device: allowed or refused by the guest's own page tables."""
    done = Outcome(Effect.DONE, (TrapKind.MMIO_LOAD,))
    return _device(mnemonic, code, size, LOAD_PAGE, done, witness="a3")


def _store(mnemonic: str, code: str, size: str) -> Instruction:
    """A store that reaches a device; posted, so the guest does not wait for it."""
    done = Outcome(Effect.DONE, (TrapKind.MMIO_STORE,))
    return _device(mnemonic, code, size, STORE_PAGE, done)


def _atomic(mnemonic: str, code: str, page: int, access: int) -> Instruction:
    """Device registers support no atomic access: an access fault at every level that may reach them."""
    return _device(mnemonic, code, "no atomics there", page, _fault(access))


def _device(mnemonic: str, code: str, size: str, page: int, allowed: Outcome, witness: str = "") -> Instruction:
    return Instruction(
        mnemonic=mnemonic,
        code=bytes.fromhex(code),
        touches=f"device register, {size}",
        witness=witness,
        kind=Kind.PRIVILEGED,
        is_io=True,
        user=_fault(page),
        system=allowed,
        machine=allowed,
        grants=(Grant.USER_PAGE,),
        granted=allowed,
    )


def _supervisor(
    mnemonic: str, code: str, touches: str, witness: str = "", *, before: str = "", outcome: Outcome = _DONE
) -> Instruction:
    """For S and M mode."""
    return Instruction(
        mnemonic=mnemonic,
        code=bytes.fromhex(code),
        before=bytes.fromhex(before),
        touches=touches,
        witness=witness,
        kind=Kind.PRIVILEGED,
        user=_ILLEGAL,
        system=outcome,
        machine=outcome,
    )


def _machine(mnemonic: str, code: str, touches: str, witness: str = "", *, machine: Outcome = _DONE) -> Instruction:
    """For M mode only."""
    return Instruction(
        mnemonic=mnemonic,
        code=bytes.fromhex(code),
        touches=touches,
        witness=witness,
        kind=Kind.PRIVILEGED,
        user=_ILLEGAL,
        system=_ILLEGAL,
        machine=machine,
    )


def _innocuous(mnemonic: str, code: str, touches: str, witness: str = "", *, before: str = "") -> Instruction:
    return Instruction(
        mnemonic=mnemonic,
        code=bytes.fromhex(code),
        before=bytes.fromhex(before),
        touches=touches,
        witness=witness,
        kind=Kind.INNOCUOUS,
        user=_DONE,
        system=_DONE,
        machine=_DONE,
    )


RISCV: Final[tuple[Instruction, ...]] = (
    _load("lb a3, (a0)", "83060500", "1 byte"),
    _load("lhu a3, (a0)", "83560500", "2 bytes"),
    _load("lw a3, (a0)", "83260500", "4 bytes"),
    _load("ld a3, (a0)", "83360500", "8 bytes"),
    _load("c.lw a3, (a0)", "1441", "4 bytes"),
    _store("sb a2, (a0)", "2300c500", "1 byte"),
    _store("sh a2, (a0)", "2310c500", "2 bytes"),
    _store("sw a2, (a0)", "2320c500", "4 bytes"),
    _store("sd a2, (a0)", "2330c500", "8 bytes"),
    _store("c.sw a2, (a0)", "10c1", "4 bytes"),
    _atomic("lr.w a3, (a0)", "af260510", LOAD_PAGE, LOAD_ACCESS),
    _atomic("amoadd.w a3, a2, (a0)", "af26c500", STORE_PAGE, STORE_ACCESS),
    _supervisor("wfi", "73005010", "the CPU, until an interrupt", outcome=_HALTED),
    _supervisor("csrr a3, sstatus", "f3260010", "interrupt enable of S mode: read", "a3"),
    _supervisor("csrs sie, a2", "73204610", "interrupts enabled one by one"),
    _supervisor("csrr a3, sip", "f3264014", "interrupts pending"),
    _supervisor("csrw stvec, a2", "73105610", "where S mode's traps go", "stvec"),
    _supervisor("csrr a3, satp", "f3260018", "page tables: read"),
    _supervisor("sfence.vma", "73000012", "TLB"),
    _supervisor("sret", "73002010", "privilege, interrupt enable", "priv"),
    _machine("csrr a3, mstatus", "f3260030", "interrupt enables: read", "a3"),
    _machine("csrs mie, a2", "73204630", "interrupts enabled one by one", "mie"),
    _machine("csrr a3, mip", "f3264034", "interrupts pending"),
    _machine("csrw mtvec, a2", "73105630", "where M mode's traps go", "mtvec"),
    _machine("csrw mideleg, a2", "73103630", "who takes interrupts"),
    _machine("mret", "73002030", "privilege, interrupt enable", "priv"),
    # This core has no time register: M-mode firmware answers from mtime, a device register
    _machine("csrr a3, time", "f32610c0", "the timer", machine=_ILLEGAL),
    Instruction(
        mnemonic="ecall",
        code=bytes.fromhex("73000000"),
        touches="the next level up",
        kind=Kind.CALL,
        user=_fault(ECALL_U),
        system=_fault(ECALL_S),
        machine=_fault(ECALL_M),
    ),
    _innocuous("fence iorw, iorw", "0f00f00f", "order of device accesses"),
    _innocuous("fence.i", "0f100000", "instruction cache"),
    _innocuous("add a3, a2, a2", "b306c600", "general registers", "a3"),
    # auipc a3, 0: an address that every level may read
    _innocuous("lw a3, (a3)", "83a60600", "RAM", "a3", before="97060000"),
)
