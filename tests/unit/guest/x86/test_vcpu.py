"""The x86 CPU as its guests see it: machine code on the real engine, a recording bus outside."""

from __future__ import annotations

import threading

import pytest

from iovirt_dist.guest.bus import BusClosedError, IoPrivilege
from iovirt_dist.guest.vcpu import Exit, ExitReason
from tests.unit.guest.x86.support import (
    INNER_STACK,
    KERNEL_CODE,
    KERNEL_CS,
    KERNEL_STACK,
    PAGE_DIRECTORY,
    STUBS,
    TSS,
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

HALTED = Exit(ExitReason.HALTED)
SPIN = "ebfe ; jmp $"
RESET_EDX = 0x600


# Port and memory I/O


def test_port_io_all_widths_reaches_bus_with_its_data() -> None:
    """OUT and IN of one, two and four bytes, by immediate and by DX."""
    bus = RecordingBus()
    cpu = protected_cpu(
        """
        b8 78563412     ; mov eax, 12345678h
        66ba5001        ; mov dx, 150h
        ee              ; out dx, al
        66ef            ; out dx, ax
        ef              ; out dx, eax
        e640            ; out 40h, al
        ed              ; in eax, dx
        66e541          ; in ax, 41h
        ec              ; in al, dx
        f4              ; hlt
        """,
        bus,
    )
    assert cpu.run() == HALTED
    assert bus.log == [
        ("out", 0x150, 1, b"\x78"),
        ("out", 0x150, 2, b"\x78\x56"),
        ("out", 0x150, 4, b"\x78\x56\x34\x12"),
        ("out", 0x40, 1, b"\x78"),
        ("in", 0x150, 4, 1),
        ("in", 0x41, 2, 1),
        ("in", 0x150, 1, 1),
    ]
    assert cpu.state().registers[0] == 0x04030201


def test_memory_io_outside_ram_reaches_bus_with_physical_address() -> None:
    """A page mapped to an address without RAM: the bus sees the physical address."""
    bus = RecordingBus()
    cpu = protected_cpu(
        """
        a1 34020600         ; mov eax, [60234h]
        c60550020600 77     ; mov byte [60250h], 77h
        f4                  ; hlt
        """,
        bus,
        paging=True,
    )
    cpu.write_memory(0x3_1000 + 4 * 0x60, (0xFEB0_0000 | 7).to_bytes(4, "little"))
    assert cpu.run() == HALTED
    assert bus.log == [("load", 0xFEB0_0234, 4, 0), ("store", 0xFEB0_0250, 1, 0x77)]
    assert bus.privileges == [IoPrivilege(0), IoPrivilege(0)]


def test_rep_insw_is_one_exchange() -> None:
    """256 words in one trap, written in order, with ECX and EDI as after the last element."""
    bus = RecordingBus()
    cpu = protected_cpu(
        """
        b9 00010000     ; mov ecx, 256
        bf 00000600     ; mov edi, 60000h
        66baf001        ; mov dx, 1f0h
        f3666d          ; rep insw
        f4              ; hlt
        """,
        bus,
        paging=True,
    )
    assert cpu.run() == HALTED
    assert bus.log == [("in", 0x1F0, 2, 256)]
    assert cpu.read_memory(0x60000, 513) == bytes(n % 256 for n in range(1, 513)) + b"\0"
    assert (cpu.state().registers[1], cpu.state().registers[7]) == (0, 0x60200)


def test_rep_insd_descending_writes_first_element_highest() -> None:
    """With DF set the pointer falls and the elements lie in reverse."""
    bus = RecordingBus()
    cpu = protected_cpu(
        """
        b9 03000000     ; mov ecx, 3
        bf 08000600     ; mov edi, 60008h
        fd              ; std
        f36d            ; rep insd
        f4              ; hlt
        """,
        bus,
    )
    assert cpu.run() == HALTED
    assert cpu.read_memory(0x60000, 12) == bytes([9, 10, 11, 12, 5, 6, 7, 8, 1, 2, 3, 4])
    assert (cpu.state().registers[1], cpu.state().registers[7]) == (0, 0x5FFFC)


def test_rep_outsb_with_segment_and_address_prefix_in_real_mode_reads_that_segment() -> None:
    """ES override, 16-bit operands by default, SI as pointer."""
    bus = RecordingBus()
    cpu = make_cpu(
        flat_image(
            """
            b80010      ; mov ax, 1000h
            8ec0        ; mov es, ax
            b90400      ; mov cx, 4
            be1000      ; mov si, 10h
            f3266e      ; rep outsb es:
            67f36e      ; rep outsb with ecx = 0: nothing
            f4          ; hlt
            """
        ),
        bus,
    )
    cpu.write_memory(0x10010, b"WXYZ")
    assert cpu.run() == HALTED
    assert bus.log == [("out", RESET_EDX, 1, b"WXYZ")]
    assert cpu.state().registers[6] == 0x14


def test_rep_insb_into_absent_page_faults_after_what_fits() -> None:
    """The device gives exactly the elements up to the page boundary; the rest faults with the pointers in place."""
    bus = RecordingBus()
    cpu = protected_cpu(
        """
        b9 00100000     ; mov ecx, 1000h
        bf f00f0600     ; mov edi, 60ff0h
        f36c            ; rep insb
        f4              ; hlt
        """,
        bus,
        paging=True,
    )
    set_page(cpu, 0x61000, 6)
    assert cpu.run() == HALTED
    assert bus.log[0] == ("in", RESET_EDX, 1, 16)
    assert reported(bus) == [14]
    assert stack_words(cpu, 3) == [2, KERNEL_CODE + 10, KERNEL_CS]
    assert cpu.state().cr2 == 0x61000
    assert (cpu.state().registers[1], cpu.state().registers[7]) == (0xFF0, 0x61000)
    assert cpu.read_memory(0x60FF0, 16) == bytes(range(1, 17))


def test_rep_outsb_from_absent_page_faults_after_what_fits() -> None:
    """The device receives exactly the elements up to the page boundary."""
    bus = RecordingBus()
    cpu = protected_cpu("b908000000 befc0f0600 f36e f4 ; mov ecx, 8; mov esi, 60ffch; rep outsb", bus, paging=True)
    cpu.write_memory(0x60FFC, b"abcd")
    set_page(cpu, 0x61000, 6)
    assert cpu.run() == HALTED
    assert bus.log[0] == ("out", RESET_EDX, 1, b"abcd")
    assert (reported(bus), stack_words(cpu, 1)) == ([14], [0])
    assert (cpu.state().registers[1], cpu.state().registers[6]) == (4, 0x61000)


def test_code_written_by_string_input_is_executed() -> None:
    """INS over code that has already run replaces its translation."""
    bus = RecordingBus()
    cpu = protected_cpu(
        """
        bb 00000600     ; mov ebx, 60000h
        ffd3            ; call ebx
        b9 04000000     ; mov ecx, 4
        bf 00000600     ; mov edi, 60000h
        f36c            ; rep insb
        ffd3            ; call ebx
        f4              ; hlt
        """,
        bus,
    )
    bus.answer = assemble("b002 e681 ; mov al, 2; out 81h, al")
    cpu.write_memory(0x60000, assemble("b001 e680 c3 ; mov al, 1; out 80h, al; ret"))
    assert cpu.run() == HALTED
    assert [entry for entry in bus.log if entry[0] == "out"] == [("out", 0x80, 1, b"\1"), ("out", 0x81, 1, b"\2")]


# Privilege


def test_io_privilege_in_real_mode_is_level_0() -> None:
    """Real mode has no rings."""
    bus = RecordingBus()
    assert make_cpu(flat_image("e680 f4 ; out 80h, al; hlt"), bus).run() == HALTED
    assert bus.privileges == [IoPrivilege(0, 0, False)]


def test_io_privilege_at_cpl_3_reports_bitmap() -> None:
    """Cleared bits permit byte and word ports; a word that touches one set bit is not permitted."""
    bus = RecordingBus()
    cpu = protected_cpu(
        """
        e640            ; out 40h, al
        e641            ; out 41h, al
        66e740          ; out 40h, ax
        66e742          ; out 42h, ax
        cd80            ; int 80h
        """,
        bus,
        user=True,
        paging=True,
    )
    cpu.write_memory(TSS + 0x68 + 8, b"\xf2")  # ports 40h, 42h and 43h permitted, 41h not
    assert cpu.run() == HALTED
    assert [privilege.permitted for privilege in bus.privileges] == [True, False, False, True, False]
    assert bus.privileges[0] == IoPrivilege(3, 0, True)


def test_io_privilege_at_cpl_3_with_iopl_3_reports_it() -> None:
    """IOPL comes from EFLAGS."""
    bus = RecordingBus()
    cpu = protected_cpu("e680 cd80 ; out 80h, al; int 80h", bus, user=True, user_eflags=0x3202)
    assert cpu.run() == HALTED
    assert bus.privileges[0] == IoPrivilege(3, 3, False)


def test_refused_in_faults_with_nothing_behind_it_done() -> None:
    """A user's IN is refused: #GP(0) at the instruction; what follows in its block stays undone."""
    bus = RecordingBus(protect=True)
    cpu = protected_cpu(
        """
        b8 78563412     ; mov eax, 12345678h
        31db            ; xor ebx, ebx  (sets ZF, lazily)
        e499            ; in al, 99h
        a3 00000600     ; mov [60000h], eax
        bb 01000000     ; mov ebx, 1
        e698            ; out 98h, al
        50              ; push eax
        cd80            ; int 80h
        """,
        bus,
        user=True,
        paging=True,
    )
    set_gate(cpu, 13, STUBS + 16 * 13 + 4)  # straight to HLT, so that EAX stays as it was
    assert cpu.run() == HALTED
    assert stack_words(cpu, 6) == [0, USER_CODE + 7, USER_CS, 0x10246, USER_STACK, USER_DS]
    assert cpu.state().registers[0] == 0x12345678
    assert cpu.state().registers[3] == 0
    assert cpu.read_memory(0x60000, 4) == bytes(4)
    assert bus.log == []
    assert cpu.counters() == (0, 1, 1)


def test_refusal_cannot_be_prepared_by_the_guest() -> None:
    """The page directory that makes a refused instruction harmless lies above 4 GiB; PSE-36 reaches it, in vain."""
    cpu = protected_cpu(
        """
        0f20e0                  ; mov eax, cr4
        83c810                  ; or eax, 10h (PSE)
        0f22e0                  ; mov cr4, eax
        c705 00004000 83000000  ; mov dword [400000h], 83h
        a1 00004000             ; mov eax, [400000h]
        f4                      ; hlt
        """,
        paging=True,
    )
    page_at_4_gib = 1 << 13 | 0x87
    cpu.write_memory(PAGE_DIRECTORY + 4, page_at_4_gib.to_bytes(4, "little"))
    assert cpu.run() == HALTED
    assert cpu.state().registers[0] == 0


def test_refused_out_without_paging_is_precise_too() -> None:
    """The squash works on a guest that has paging off."""
    bus = RecordingBus(protect=True)
    cpu = protected_cpu("e680 c7050000060055000000 cd80 ; out 80h, al; mov dword [60000h], 55h", bus, user=True)
    assert cpu.run() == HALTED
    assert reported(bus) == [13]
    assert cpu.read_memory(0x60000, 1) == b"\0"
    assert cpu.state().cr0 >> 31 == 0


def test_refused_rep_outsb_moves_no_pointer() -> None:
    """A refused string instruction leaves ECX and ESI alone."""
    bus = RecordingBus(protect=True)
    cpu = protected_cpu(
        "b908000000 be00000600 f36e cd80 ; mov ecx, 8; mov esi, 60000h; rep outsb", bus, user=True, paging=True
    )
    assert cpu.run() == HALTED
    assert (cpu.state().registers[1], cpu.state().registers[6]) == (8, 0x60000)
    assert stack_words(cpu, 2) == [0, USER_CODE + 10]


@pytest.mark.parametrize("code", ["f4", "fa", "fb", "0f20c0", "0f0115 000f0100", "0f01e0 0f22c0"], ids=str)
def test_privileged_instruction_at_cpl_3_raises_general_protection(code: str) -> None:
    """HLT, CLI, STI, MOV from and to CR0, LGDT."""
    bus = RecordingBus()
    cpu = protected_cpu(code + "cd80", bus, user=True)
    assert cpu.run() == HALTED
    assert reported(bus) == [13]


# Exceptions and software interrupts


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


# External interrupts


def test_interrupt_wakes_halted_cpu_and_returns_behind_hlt() -> None:
    """STI, HLT, INTR: the handler runs and IRET continues behind HLT."""
    bus = RecordingBus()
    cpu = protected_cpu("fb f4 e677 fa f4 ; sti; hlt; out 77h, al; cli; hlt", bus)
    cpu.write_memory(0x50000, assemble("e676 cf ; out 76h, al; iret"))
    set_gate(cpu, 0x20, 0x50000)
    assert cpu.run() == HALTED
    assert cpu.run() == HALTED
    assert bus.log == []
    bus.pending.append(0x20)
    assert cpu.run() == HALTED
    assert [entry[1] for entry in bus.log] == [0x76, 0x77]
    assert cpu.counters() == (1, 0, 0)


def test_halted_cpu_with_interrupts_disabled_stays_halted() -> None:
    """CLI, HLT: INTR does not wake it."""
    bus = RecordingBus(pending=[0x20])
    cpu = protected_cpu("faf4", bus)
    assert [cpu.run() for _ in range(3)] == [HALTED] * 3
    assert bus.pending == [0x20]


def test_interrupt_masked_is_delivered_soon_after_sti() -> None:
    """INTR is asserted while IF is clear; a guest that sets IF without any trap is interrupted."""
    bus = RecordingBus(pending=[0x20])
    cpu = protected_cpu("b940420f00 49 75fd fb 90 ebfe ; a million rounds with IF clear; sti; nop; jmp $", bus)
    assert cpu.run() == HALTED
    assert reported(bus) == [0x20]
    assert stack_words(cpu, 1)[0] - KERNEL_CODE in {9, 10}


def test_interrupt_is_not_delivered_between_sti_and_its_successor() -> None:
    """STI, CLI in a loop opens no window, however often the CPU is stopped."""
    bus = RecordingBus(pending=[0x20])
    cpu = protected_cpu("b9a0860100 fb fa 49 75fb f4 ; 100,000 times sti; cli", bus)
    assert cpu.run() == HALTED
    assert (reported(bus), bus.pending) == ([], [0x20])


def test_interrupt_from_user_mode_switches_stack() -> None:
    """A spinning user program is interrupted; the frame holds its stack."""
    bus = RecordingBus(pending=[0x21])
    cpu = protected_cpu(SPIN, bus, user=True, paging=True)
    assert cpu.run() == HALTED
    assert reported(bus) == [0x21]
    assert stack_words(cpu, 5) == [USER_CODE, USER_CS, 0x202, USER_STACK, USER_DS]


# Kick, reset, closing


def test_kick_before_run_makes_it_return_at_once() -> None:
    """A kick is sticky, and counts once."""
    cpu = protected_cpu("f4")
    cpu.kick()
    assert cpu.run() == Exit(ExitReason.KICKED)
    assert cpu.run() == HALTED


def test_kick_from_another_thread_always_stops_the_guest() -> None:
    """A thousand kicks at random moments of the entry; each makes one run return."""
    cpu = protected_cpu("40 ebfd ; inc eax; jmp back")
    returned = threading.Semaphore(0)

    def kicker() -> None:
        for _ in range(1000):
            cpu.kick()
            returned.acquire()

    thread = threading.Thread(target=kicker, daemon=True)
    thread.start()
    reasons = set()
    for _ in range(1000):
        reasons.add(cpu.run().reason)
        returned.release()
    thread.join(5)
    assert reasons == {ExitReason.KICKED}
    assert not thread.is_alive()


def test_kick_inside_trap_stops_behind_the_instruction() -> None:
    """The runtime kicks when a reply raises a line; the trapped instruction completes."""
    bus = RecordingBus()
    cpu = protected_cpu("e680 40 ebfd", bus)
    bus.on_out = lambda port: cpu.kick()
    assert cpu.run() == Exit(ExitReason.KICKED)
    assert bus.log == [("out", 0x80, 1, b"\0")]


def test_bus_closed_inside_trap_leaves_run() -> None:
    """The error of the bus comes out of run, and nothing behind the instruction calls the bus."""
    bus = RecordingBus()
    cpu = protected_cpu("e680 e681 f4", bus)

    def close(port: int) -> None:
        raise BusClosedError

    bus.on_out = close
    with pytest.raises(BusClosedError):
        cpu.run()
    assert [entry[1] for entry in bus.log] == [0x80]


def test_reset_restores_power_on_state() -> None:
    """Memory is cleared, the image is back, and the run repeats."""
    bus = RecordingBus()
    cpu = make_cpu(flat_image("fe06107c a0107c e680 f4 ; inc byte [7c10h]; mov al, [7c10h]; out 80h, al; hlt"), bus)
    cpu.write_memory(0x5000, b"x")
    assert cpu.run() == HALTED
    cpu.reset()
    assert cpu.read_memory(0x5000, 1) == b"\0"
    assert cpu.run() == HALTED
    assert bus.log[0] == bus.log[1]
    assert cpu.state().registers[2] == RESET_EDX


def test_interrupt_that_waits_for_sti_is_taken_in_a_loop_without_traps() -> None:
    """The handler's OUT follows, although guest code behind STI never leaves the engine by itself."""
    bus = RecordingBus()
    cpu = protected_cpu("e680 fb 90 ebfe", bus)

    def raise_line(port: int) -> None:
        if port == 0x80:
            bus.pending.append(0x20)
            cpu.kick()

    bus.on_out = raise_line
    assert cpu.run() == Exit(ExitReason.KICKED)
    assert cpu.run() == HALTED
    assert len(bus.log) > 1
