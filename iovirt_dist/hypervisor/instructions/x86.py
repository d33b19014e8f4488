"""The x86 rows: protected mode, paging on (Intel SDM volume 2; volume 1, section 19.5; volume 3, section 5.9).

The critical instructions are from Robin and Irvine, "Analysis of the Intel Pentium's Ability to Support a Secure
Virtual Machine Monitor" (2000), without the far control transfers and segment loads, which concern memory alone. IRET
is added because of the interrupt flag.

Operands that the mnemonics name: DX = 150h; [ESI], [EDI], [EBX] in RAM, ECX = 4; [EBP] is a device's register.
"""

from __future__ import annotations

from typing import Final

from iovirt_dist.hypervisor.instructions.row import Effect, Grant, Instruction, Kind, Outcome
from iovirt_dist.wire.messages import TrapKind

GP: Final = 13
PF: Final = 14
SYSTEM_CALL: Final = 0x80

_DONE: Final = Outcome()
_IGNORED: Final = Outcome(Effect.IGNORED)
_HALTED: Final = Outcome(Effect.HALTED)
_GP: Final = Outcome(Effect.FAULTED, fault=GP)
_PF: Final = Outcome(Effect.FAULTED, fault=PF)
_ENTER: Final = Outcome(Effect.FAULTED, fault=SYSTEM_CALL)
_PORT_GRANTS: Final = (Grant.IOPL, Grant.BITMAP)


def _port(mnemonic: str, code: str, touches: str, trap: TrapKind, witness: str = "") -> Instruction:
    """IN, OUT, INS, OUTS: a trap at every level; above IOPL the hypervisor refuses what the bitmap does not permit."""
    done = Outcome(Effect.DONE, (trap,))
    return Instruction(
        mnemonic=mnemonic,
        code=bytes.fromhex(code),
        touches=touches,
        witness=witness,
        kind=Kind.PRIVILEGED,
        is_io=True,
        user=Outcome(Effect.FAULTED, (trap,), GP),
        system=done,
        grants=_PORT_GRANTS,
        granted=done,
    )


def _mapped(
    mnemonic: str, code: str, trap: TrapKind, witness: str = "", *, before: str = "", count: int = 1
) -> Instruction:
    """A load or store that reaches a device: allowed or refused by the guest's own page tables."""
    done = Outcome(Effect.DONE, (trap,) * count)
    return Instruction(
        mnemonic=mnemonic,
        code=bytes.fromhex(code),
        before=bytes.fromhex(before),
        touches="device register (memory-mapped)",
        witness=witness,
        kind=Kind.PRIVILEGED,
        is_io=True,
        user=_PF,
        system=done,
        grants=(Grant.USER_PAGE,),
        granted=done,
    )


def _flag(mnemonic: str, code: str, before: str = "") -> Instruction:
    """CLI or STI: allowed by IOPL alone."""
    return Instruction(
        mnemonic=mnemonic,
        code=bytes.fromhex(code),
        before=bytes.fromhex(before),
        touches="EFLAGS.IF",
        witness="if",
        kind=Kind.PRIVILEGED,
        user=_GP,
        system=_DONE,
        grants=(Grant.IOPL,),
        granted=_DONE,
    )


def _system(
    mnemonic: str, code: str, touches: str, witness: str = "", *, before: str = "", system: Outcome = _DONE
) -> Instruction:
    """An instruction for level 0 only."""
    return Instruction(
        mnemonic=mnemonic,
        code=bytes.fromhex(code),
        before=bytes.fromhex(before),
        touches=touches,
        witness=witness,
        kind=Kind.PRIVILEGED,
        user=_GP,
        system=system,
    )


def _critical(
    mnemonic: str,
    code: str,
    touches: str,
    witness: str,
    *,
    before: str = "",
    user: Outcome = _DONE,
    grants: tuple[Grant, ...] = (),
) -> Instruction:
    """Reads or changes privileged state at any level, and nobody hears of it."""
    return Instruction(
        mnemonic=mnemonic,
        code=bytes.fromhex(code),
        before=bytes.fromhex(before),
        touches=touches,
        witness=witness,
        kind=Kind.CRITICAL,
        user=user,
        system=_DONE,
        grants=grants,
        granted=_DONE if grants else None,
    )


_IN: Final = TrapKind.PORT_IN
_OUT: Final = TrapKind.PORT_OUT
_SELECTOR: Final = "b910000000 85e4"  # mov ecx, 10h (a level 0 data segment); test esp, esp (ZF = 0)

X86: Final[tuple[Instruction, ...]] = (
    _port("IN AL, 60h", "e460", "port 60h, 1 byte", _IN, "eax"),
    _port("IN AX, 60h", "66e560", "ports 60h-61h, 2 bytes", _IN, "eax"),
    _port("IN EAX, 60h", "e560", "ports 60h-63h, 4 bytes", _IN, "eax"),
    _port("IN AL, DX", "ec", "port DX, 1 byte", _IN, "eax"),
    _port("IN AX, DX", "66ed", "port DX, 2 bytes", _IN, "eax"),
    _port("IN EAX, DX", "ed", "port DX, 4 bytes", _IN, "eax"),
    _port("OUT 60h, AL", "e660", "port 60h, 1 byte", _OUT),
    _port("OUT 60h, AX", "66e760", "ports 60h-61h, 2 bytes", _OUT),
    _port("OUT 60h, EAX", "e760", "ports 60h-63h, 4 bytes", _OUT),
    _port("OUT DX, AL", "ee", "port DX, 1 byte", _OUT),
    _port("OUT DX, AX", "66ef", "port DX, 2 bytes", _OUT),
    _port("OUT DX, EAX", "ef", "port DX, 4 bytes", _OUT),
    _port("INSB", "6c", "port DX, 1 byte", _IN, "memory"),
    _port("INSW", "666d", "port DX, 2 bytes", _IN, "memory"),
    _port("INSD", "6d", "port DX, 4 bytes", _IN, "memory"),
    _port("REP INSW", "f3666d", "port DX, ECX words in one trap", _IN, "memory"),
    _port("OUTSB", "6e", "port DX, 1 byte", _OUT),
    _port("OUTSW", "666f", "port DX, 2 bytes", _OUT),
    _port("OUTSD", "6f", "port DX, 4 bytes", _OUT),
    _port("REP OUTSW", "f3666f", "port DX, ECX words in one trap", _OUT),
    _mapped("MOV EAX, [EBP]", "8b4500", TrapKind.MMIO_LOAD, "eax"),
    _mapped("MOV AL, [EBP]", "8a4500", TrapKind.MMIO_LOAD, "eax"),
    _mapped("MOV [EBP], EAX", "894500", TrapKind.MMIO_STORE),
    _mapped("MOV [EBP], AL", "884500", TrapKind.MMIO_STORE),
    # mov edi, ebp
    _mapped("REP MOVSD to [EBP]", "f3a5", TrapKind.MMIO_STORE, before="89ef", count=4),
    _flag("CLI", "fa"),
    # push 2; popf: clears IF where the level allows it
    _flag("STI", "fb", before="6802000000 9d"),
    _system("HLT", "f4", "the CPU, until an interrupt", system=_HALTED),
    _system("LIDT [EBX]", "0f011b", "IDTR: where interrupts go", "idtr"),
    _system("LGDT [EBX]", "0f0113", "GDTR", "gdtr"),
    _system("LLDT AX", "0f00d0", "LDTR", before="31c0"),
    _system("MOV EAX, CR0", "0f20c0", "CR0", "eax"),
    _system("MOV CR0, EAX", "0f22c0", "CR0", "cr0", before="b819000180"),
    _system("MOV CR3, EAX", "0f22d8", "CR3: the page tables", before="b800000300"),
    _system("LMSW AX", "0f01f0", "CR0", "cr0", before="b809000000"),
    _system("CLTS", "0f06", "CR0.TS"),
    _system("MOV EAX, DR7", "0f21f8", "debug registers", "eax"),
    _system("INVLPG [EBX]", "0f013b", "TLB"),
    _system("WBINVD", "0f09", "caches"),
    _system("RDMSR", "0f32", "model-specific registers", "eax", before="b977020000"),
    _system("WRMSR", "0f30", "model-specific registers", before="b974010000 31d2"),
    _critical("PUSHF", "9c", "EFLAGS.IF, IOPL: read", "esp"),
    _critical("POPF", "9d", "EFLAGS.IF", "if", before="6802000000", user=_IGNORED, grants=(Grant.IOPL,)),
    # push 2; push cs; call behind the jump: a frame that returns to the jump over IRET
    _critical(
        "IRET", "cf", "EFLAGS.IF", "if", before="6802000000 0e e802000000 eb01", user=_IGNORED, grants=(Grant.IOPL,)
    ),
    _critical("SIDT [EDI]", "0f010f", "IDTR: read", "memory"),
    _critical("SGDT [EDI]", "0f0107", "GDTR: read", "memory"),
    _critical("SLDT AX", "0f00c0", "LDTR: read", "eax"),
    _critical("STR AX", "0f00c8", "TR: read", "eax"),
    _critical("SMSW AX", "0f01e0", "CR0: read", "eax"),
    _critical("MOV EAX, CS", "8cc8", "the privilege level: read", "eax"),
    _critical("PUSH CS", "0e", "the privilege level: read", "esp"),
    _critical("LAR EAX, ECX", "0f02c1", "descriptors by privilege", "zf", before=_SELECTOR, user=_IGNORED),
    _critical("LSL EAX, ECX", "0f03c1", "descriptors by privilege", "zf", before=_SELECTOR, user=_IGNORED),
    _critical("VERR CX", "0f00e1", "descriptors by privilege", "zf", before=_SELECTOR, user=_IGNORED),
    _critical("VERW CX", "0f00e9", "descriptors by privilege", "zf", before=_SELECTOR, user=_IGNORED),
    Instruction(
        mnemonic="INT 80h",
        code=b"\xcd\x80",
        touches="the guest's system call gate",
        kind=Kind.CALL,
        user=_ENTER,
        system=_ENTER,
    ),
    Instruction(
        mnemonic="MOV EAX, [ESI]",
        code=b"\x8b\x06",
        touches="RAM",
        witness="eax",
        kind=Kind.INNOCUOUS,
        user=_DONE,
        system=_DONE,
    ),
    Instruction(
        mnemonic="ADD EAX, ECX",
        code=b"\x01\xc8",
        touches="general registers",
        witness="eax",
        kind=Kind.INNOCUOUS,
        user=_DONE,
        system=_DONE,
    ),
)
