"""The x86 CPU as its guests see it: machine code on the real engine, a recording bus outside."""

from __future__ import annotations

from iovirt_dist.guest.bus import IoPrivilege
from iovirt_dist.wire.messages import MAX_TRAP_ELEMENTS
from tests.unit.guest.x86.support import (
    HALTED,
    KERNEL_CODE,
    KERNEL_CS,
    PAGE_DIRECTORY,
    RESET_EDX,
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


def test_rep_insb_of_more_than_a_trap_takes_goes_on_with_the_next() -> None:
    """One trap keeps the hypervisor from all other guests, so it is bounded; REP may be interrupted."""
    bus = RecordingBus()
    cpu = protected_cpu("b928230000 bf00000600 f36c f4 ; mov ecx, 9000; mov edi, 60000h; rep insb", bus)

    assert cpu.run() == HALTED

    counts = [entry[3] for entry in bus.log]
    assert counts == [MAX_TRAP_ELEMENTS, MAX_TRAP_ELEMENTS, 9000 - 2 * MAX_TRAP_ELEMENTS]
    assert (cpu.state().registers[1], cpu.state().registers[7]) == (0, 0x60000 + 9000)


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
