"""Exceptions of the x86 CPU: error codes, page faults, double and triple faults, gates and privilege changes."""

from __future__ import annotations

import pytest

from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.guest.vcpu import ExitReason
from tests.unit.guest.x86.support import (
    HALTED,
    INNER_STACK,
    KERNEL_CODE,
    KERNEL_CS,
    KERNEL_STACK,
    USER_CODE,
    USER_CS,
    USER_DS,
    USER_STACK,
    RecordingBus,
    assemble,
    flat_image,
    make_cpu,
    protected_cpu,
    reported,
    set_gate,
    set_page,
    stack_words,
)


@pytest.mark.parametrize("code", ["f4", "fa", "fb", "0f20c0", "0f0115 000f0100", "0f01e0 0f22c0"], ids=str)
def test_privileged_instruction_at_cpl_3_raises_general_protection(code: str) -> None:
    """HLT, CLI, STI, MOV from and to CR0, LGDT."""
    bus = RecordingBus()
    cpu = protected_cpu(code + "cd80", bus, user=True)
    assert cpu.run() == HALTED
    assert reported(bus) == [13]


def test_int_80_from_cpl_3_enters_kernel_and_returns() -> None:
    """INT 80h switches to the TSS stack; IRET goes back behind it, with the user's stack."""
    bus = RecordingBus()
    cpu = protected_cpu("cd80 e677 f4 ; int 80h; out 77h, al; hlt (faults)", bus, user=True, paging=True)
    cpu.write_memory(0x50000, assemble("e676 cf ; out 76h, al; iret"))
    set_gate(cpu, 0x80, 0x50000, dpl=3)
    assert cpu.run() == HALTED
    assert [entry[1] for entry in bus.log[:2]] == [0x76, 0x77]
    assert [privilege.level for privilege in bus.privileges[:2]] == [0, 3]
    assert reported(bus) == [13]
    assert stack_words(cpu, 6) == [0, USER_CODE + 4, USER_CS, 0x10202, USER_STACK, USER_DS]
    assert cpu.state().registers[4] == INNER_STACK - 24


@pytest.mark.parametrize(
    ("code", "vector", "offset"),
    [
        ("31c9 f7f1", 0, 2),  # xor ecx, ecx; div ecx
        ("cc", 3, 1),  # int3
        ("b0 7f 0401 ce", 4, 5),  # mov al, 7fh; add al, 1; into
        ("b801000000 6205 00000600", 5, 5),  # mov eax, 1; bound eax, [60000h]
        ("0f0b", 6, 0),  # ud2
        ("0f20c0 83c808 0f22c0 d9e8", 7, 9),  # set CR0.TS; fld1
    ],
    ids=["DE", "BP", "OF", "BR", "UD", "NM"],
)
def test_exception_without_error_code_pushes_three_words(code: str, vector: int, offset: int) -> None:
    """Faults push the instruction, traps the one behind it."""
    bus = RecordingBus()
    cpu = protected_cpu(code, bus)
    assert cpu.run() == HALTED
    assert reported(bus) == [vector]
    assert stack_words(cpu, 2) == [KERNEL_CODE + offset, KERNEL_CS]
    assert cpu.state().registers[4] == KERNEL_STACK - 12


def test_int_n_at_cpl_3_without_gate_permission_raises_general_protection() -> None:
    """The gate's DPL protects vectors from software; the error code names the gate."""
    bus = RecordingBus()
    cpu = protected_cpu("cd20 ; int 20h", bus, user=True)
    assert cpu.run() == HALTED
    assert reported(bus) == [13]
    assert stack_words(cpu, 2) == [0x20 * 8 + 2, USER_CODE]


@pytest.mark.parametrize(("user", "user_bit"), [(False, 0), (True, 4)], ids=["kernel", "user"])
@pytest.mark.parametrize(
    ("code", "flags", "error_code"),
    [
        ("a1 00000600", 6, 0),  # read, not present
        ("a3 00000600", 6, 2),  # write, not present
        ("a3 00000600", 5, 3),  # write, read-only (CR0.WP is set)
        ("83 05 00000600 01", 5, 3),  # read-modify-write, read-only
        ("ff25 00000600", 6, 0),  # jmp [60000h], not present
    ],
)
def test_page_fault_pushes_exact_error_code(user: bool, user_bit: int, code: str, flags: int, error_code: int) -> None:
    """P, W/R and U/S as the processor defines them, the address in CR2, the instruction in EIP."""
    bus = RecordingBus()
    cpu = protected_cpu(code, bus, user=user, paging=True)
    set_page(cpu, 0x60000, flags)
    assert cpu.run() == HALTED
    assert reported(bus) == [14]
    assert stack_words(cpu, 2) == [error_code | user_bit, USER_CODE if user else KERNEL_CODE]
    assert cpu.state().cr2 == 0x60000


@pytest.mark.parametrize(("code", "error_code"), [("a1 04000600", 5), ("a3 04000600", 7), ("68 00000600 c3", 5)])
def test_page_fault_of_user_on_kernel_page_is_a_protection_violation(code: str, error_code: int) -> None:
    """A user reads, writes and executes a supervisor page."""
    bus = RecordingBus()
    cpu = protected_cpu(code, bus, user=True, paging=True)
    set_page(cpu, 0x60000, 3)
    assert cpu.run() == HALTED
    assert (reported(bus), stack_words(cpu, 1)) == ([14], [error_code])


def test_page_fault_is_restartable() -> None:
    """The handler maps the page and returns; the instruction completes."""
    bus = RecordingBus()
    cpu = protected_cpu("c70500000600 2a000000 cd80", bus, user=True, paging=True)
    set_page(cpu, 0x60000, 6)
    handler = """
        830580110300 01     ; add dword [31180h], 1  (the page's entry)
        0f013d 00000600     ; invlpg [60000h]
        83c404              ; add esp, 4
        cf                  ; iret
    """
    cpu.write_memory(0x50000, assemble(handler))
    set_gate(cpu, 14, 0x50000)
    assert cpu.run() == HALTED
    assert reported(bus) == [0x80]
    assert cpu.read_memory(0x60000, 4) == b"\x2a\0\0\0"


def test_many_exceptions_in_a_row_are_all_delivered() -> None:
    """Unicorn's memory of the last exception does not turn the second one into a double fault."""
    bus = RecordingBus()
    cpu = protected_cpu("66b8f0ff" + "8ed8" * 20 + "f4 ; mov ax, fff0h; 20 times mov ds, ax; hlt", bus)
    cpu.write_memory(0x50000, assemble("e675 5b 83042402 cf ; out 75h, al; pop ebx; add dword [esp], 2; iret"))
    set_gate(cpu, 13, 0x50000)
    assert cpu.run() == HALTED
    assert [entry[1] for entry in bus.log] == [0x75] * 20
    assert cpu.state().registers[3] == 0xFFF0
    assert cpu.counters().exceptions == 20


def test_fault_in_delivery_of_fault_becomes_double_fault() -> None:
    """#GP whose gate is absent raises #NP, which makes a double fault with error code 0."""
    bus = RecordingBus()
    cpu = protected_cpu("66b8f0ff 8ed8", bus)
    set_gate(cpu, 13, 0, present=False)
    assert cpu.run() == HALTED
    assert reported(bus) == [8]
    assert stack_words(cpu, 3) == [0, KERNEL_CODE + 4, KERNEL_CS]
    assert cpu.counters().exceptions == 2


def test_triple_fault_stops_cpu_and_says_why() -> None:
    """Without usable gates the CPU stops for good, and names place and vectors."""
    cpu = protected_cpu("0f0b ; ud2")
    for vector in (6, 8, 13):
        set_gate(cpu, vector, 0, kind=0)
    first = cpu.run()
    assert first.reason is ExitReason.STOPPED
    assert first.detail == "triple fault at 0008:00101000, vectors 6, 13, 13, 13"
    assert cpu.run() == first


def test_wild_jump_outside_memory_raises_invalid_opcode() -> None:
    """Nothing answers there, all ones is an undefined opcode."""
    bus = RecordingBus()
    cpu = protected_cpu("b8 000000f0 ffe0 ; mov eax, f0000000h; jmp eax", bus)
    assert cpu.run() == HALTED
    assert reported(bus) == [6]
    assert stack_words(cpu, 1) == [0xF000_0000]


def test_real_mode_interrupt_goes_through_vector_table() -> None:
    """INT 21h pushes FLAGS, CS and IP and clears IF."""
    cpu = make_cpu(
        flat_image(
            """
            c7068400 0050   ; mov word [84h], 5000h
            c7068600 0010   ; mov word [86h], 1000h
            bc007c          ; mov sp, 7c00h
            fb              ; sti
            cd21            ; int 21h
            """
        )
    )
    cpu.write_memory(0x15000, b"\xf4")
    assert cpu.run() == HALTED
    state = cpu.state()
    assert (state.segments[1].selector, state.eip, state.eflags & 0x200) == (0x1000, 0x5001, 0)
    assert cpu.read_memory(0x7BFA, 6) == bytes.fromhex("127c 0000 0202")


def test_virtual_8086_mode_consults_bitmap_and_enters_kernel_with_data_segments_pushed() -> None:
    """IRET to virtual-8086 mode, an OUT that IOPL 3 does not allow, INT 80h back to CPL 0."""
    bus = RecordingBus()
    cpu = protected_cpu(
        """
        6a04 6a03 6a02 6a01     ; push 4, 3, 2, 1 (GS, FS, DS, ES)
        6a00                    ; push 0 (SS)
        68 00700000             ; push 7000h
        68 02320200             ; push 23202h (VM, IOPL 3, IF)
        6a00                    ; push 0 (CS)
        68 00500000             ; push 5000h
        cf                      ; iret
        """,
        bus,
    )
    cpu.write_memory(0x5000, assemble("e680 cd80 ; out 80h, al; int 80h"))
    assert cpu.run() == HALTED
    assert bus.privileges[0] == IoPrivilege(3, 0, False)
    assert reported(bus) == [0x80]
    assert stack_words(cpu, 9) == [0x5004, 0, 0x23202, 0x7000, 0, 1, 2, 3, 4]


def test_call_gate_and_far_return_change_privilege_by_themselves() -> None:
    """A user calls through a gate to CPL 0 and the kernel returns to it; the engine does both."""
    bus = RecordingBus()
    cpu = protected_cpu("9a 00000000 3000 e677 cd80 ; call 30h:0; out 77h, al; int 80h", bus, user=True, paging=True)
    cpu.write_memory(0x1_0F00, (0x37).to_bytes(2, "little"))
    cpu.write_memory(0x1_0000 + 0x30, bytes.fromhex("0000 0800 00ec 0500"))  # call gate, DPL 3, 8:50000h
    cpu.write_memory(0x50000, assemble("e676 cb ; out 76h, al; retf"))
    assert cpu.run() == HALTED
    assert [(entry[1], fact.level) for entry, fact in zip(bus.log, bus.privileges, strict=True)] == [
        (0x76, 0),
        (0x77, 3),
        (0xF4, 0),
    ]
