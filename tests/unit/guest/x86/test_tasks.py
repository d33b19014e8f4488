"""Task gates: machine code on the real engine, and every refusal of the switch by its rules alone."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest

from iovirt_dist.errors import LocalError
from iovirt_dist.guest.vcpu import Exit, ExitReason
from iovirt_dist.guest.x86.faults import Fault
from iovirt_dist.guest.x86.paging import Mmu
from iovirt_dist.guest.x86.state import CR0_TS, CS, DS, ES, ESP, FS, GS, NT, VM, CpuState, Segment
from iovirt_dist.guest.x86.tasks import switch_task
from iovirt_dist.guest.x86.vcpu import X86Cpu
from iovirt_dist.images import guestos_path
from iovirt_dist.testing.rig import Rig
from tests.unit.guest.x86.support import (
    GDT,
    IDT,
    KERNEL_CODE,
    KERNEL_CS,
    KERNEL_DS,
    KERNEL_STACK,
    PAGE_DIRECTORY,
    PAGE_TABLE,
    TSS,
    TSS_SELECTOR,
    USER_CODE,
    USER_CS,
    USER_DS,
    USER_STACK,
    RecordingBus,
    assemble,
    protected_cpu,
    reported,
    set_page,
    stack_words,
)

HALTED = Exit(ExitReason.HALTED)
TASK = 0x1_4000
TASK_SELECTOR = 0x30
TASK_CODE = 0x10_4000
TASK_STACK = 0x6_8000
TASK_DIRECTORY = 0x3_2000
LDT_SELECTOR = 0x38
GATE_OF_TASK = 0x5


def tss_32(
    *,
    eip: int = TASK_CODE,
    eflags: int = 2,
    registers: tuple[int, ...] = (1, 2, 3, 4, TASK_STACK, 6, 7, 8),
    segments: tuple[int, ...] = (KERNEL_DS, KERNEL_CS, KERNEL_DS, KERNEL_DS, 0, 0),
    local_table: int = 0,
    directory: int = PAGE_DIRECTORY,
) -> bytes:
    """A 32-bit TSS with no I/O map; segments are ES, CS, SS, DS, FS, GS."""
    return struct.pack("<28x18I2H", directory, eip, eflags, *registers, *segments, local_table, 0, 0x68)


def task_cpu(
    code: str, task_code: str, bus: RecordingBus, vector: int, task: bytes = b"", *, user: bool = False
) -> X86Cpu:
    """A paged CPU about to run `code`, whose `vector` has a task gate to a task that runs `task_code`."""
    cpu = protected_cpu(code, bus, user=user, paging=True)
    cpu.write_memory(0x1_0F00, struct.pack("<H", 8 * 8 - 1))
    cpu.write_memory(GDT + TASK_SELECTOR, (0x67 | TASK << 16 | 0x89 << 40).to_bytes(8, "little"))
    cpu.write_memory(IDT + 8 * vector, struct.pack("<HHBBH", 0, TASK_SELECTOR, 0, 0x80 | GATE_OF_TASK, 0))
    cpu.write_memory(TASK, task or tss_32())
    cpu.write_memory(TASK_CODE, assemble(task_code))
    return cpu


def doublewords(cpu: X86Cpu, address: int, count: int) -> list[int]:
    """Little-endian words of memory."""
    return list(struct.unpack(f"<{count}I", cpu.read_memory(address, 4 * count)))


def test_double_fault_on_overflowed_stack_runs_its_task() -> None:
    """The page fault cannot push its frame; the double fault task has a stack and a page directory of its own."""
    bus = RecordingBus()
    code = "bc 00500500 6a01 ; mov esp, 55000h; push 1"
    cpu = task_cpu(code, "b0 77 e6 f4 f4 ; mov al, 77h; out f4h, al; hlt", bus, 8, tss_32(directory=TASK_DIRECTORY))
    cpu.write_memory(TASK_DIRECTORY, struct.pack("<I", PAGE_TABLE | 7))
    set_page(cpu, 0x5_4000, 0)

    assert cpu.run() == HALTED

    assert reported(bus) == [0x77]
    state = cpu.state()
    assert (state.cr3, state.cr0 & CR0_TS, state.eflags & NT) == (TASK_DIRECTORY, CR0_TS, NT)
    assert (state.tr.selector, state.tr.base, state.cr2 & ~0xFFF) == (TASK_SELECTOR, TASK, 0x5_4000)
    assert state.registers[1:4] == [2, 3, 4]
    assert stack_words(cpu, 1) == [0]  # error code
    assert state.registers[ESP] == TASK_STACK - 4
    assert doublewords(cpu, TASK, 1) == [TSS_SELECTOR]
    assert doublewords(cpu, TSS + 32, 1) == [KERNEL_CODE + 5]  # EIP of the push
    assert doublewords(cpu, TSS + 56, 1) == [0x5_5000]  # ESP
    assert doublewords(cpu, TSS + 72, 4) == [KERNEL_DS, KERNEL_CS, KERNEL_DS, KERNEL_DS]
    assert cpu.read_memory(GDT + TSS_SELECTOR + 5, 1) == cpu.read_memory(GDT + TASK_SELECTOR + 5, 1) == b"\x8b"
    assert cpu.counters().exceptions == 2


def test_task_returns_to_the_user_program_that_it_interrupted() -> None:
    """IRET of the nested task, which the engine executes itself, finds everything in the TSS that we saved."""
    bus = RecordingBus()
    code = "bb 44332211 0f0b b055 e6f4 0f0b ; mov ebx, 11223344h; ud2; mov al, 55h; out f4h, al; ud2"
    task_code = f"8305 {struct.pack('<I', TSS + 32).hex()} 02 cf f4 ; add dword [saved eip], 2; iret; hlt"
    cpu = task_cpu(code, task_code, bus, 6, user=True)
    cpu.write_memory(TSS + 28, struct.pack("<I", PAGE_DIRECTORY))

    assert cpu.run() == HALTED

    assert reported(bus) == [0x55]
    assert cpu.state().segments[CS].selector == KERNEL_CS
    assert doublewords(cpu, TSS + 32, 1) == [USER_CODE + 11]
    assert doublewords(cpu, TSS + 52, 2) == [0x1122_3344, USER_STACK]
    assert doublewords(cpu, TSS + 72, 4) == [USER_DS, USER_CS, USER_DS, USER_DS]


@dataclass
class Ram:
    """64 KiB of RAM at 0."""

    data: bytearray = field(default_factory=lambda: bytearray(0x1_0000))

    def read_memory(self, address: int, length: int) -> bytes:
        """Read; LocalError outside."""
        if address + length > len(self.data):
            raise LocalError("outside")
        return bytes(self.data[address : address + length])

    def write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Write."""
        self.data[address : address + len(data)] = data

    def is_ram(self, address: int, length: int) -> bool:
        """Whether it is inside."""
        return address + length <= len(self.data)


# Descriptors of the rules' tests: access byte by selector, all with base 0; the TSSs at 2000h (old) and 3000h (new)
CODE, DATA, CODE_3, DATA_3, OLD, NEW, TABLE = 0x08, 0x10, 0x1B, 0x23, 0x28, 0x30, 0x38
NAMES = {"CODE": CODE, "DATA": DATA, "DATA_3": DATA_3, "NEW": NEW, "TABLE": TABLE}
ACCESS = {CODE: 0x9B, DATA: 0x93, CODE_3: 0xFB, DATA_3: 0xF3, OLD: 0x8B, NEW: 0x89, TABLE: 0x82}
BASES = {OLD: 0x2000, NEW: 0x3000, TABLE: 0x4000}
LIMITS = {OLD: 0x67, NEW: 0x67, TABLE: 0x7F}


def bench(task: bytes, **access: int) -> tuple[Ram, CpuState]:
    """Memory with a GDT and both TSSs, and a CPU at CPL 0; `access` changes descriptors, by their names above."""
    ram = Ram()
    for selector, value in (ACCESS | {NAMES[name]: value for name, value in access.items()}).items():
        write_descriptor(ram, selector, value, LIMITS.get(selector, 0xFFFFF))
    ram.write_memory(0x3000, task)
    flat = Segment(DATA, 0, 0xFFFF_FFFF, 0xCF_9300)
    segments = [flat, flat._replace(selector=CODE, attributes=0xCF_9B00), flat, flat, flat, flat]
    none = Segment(0, 0, 0, 0)
    old = Segment(OLD, 0x2000, 0x67, 0x8B00)
    gdt = Segment(0, 0x1000, 8 * 8 - 1, 0)
    state = CpuState(
        list(range(8)), 0x777, 0x4007, 0, False, segments, none, old, gdt, none, cr0=0x11, cr2=0, cr3=0, cr4=0
    )
    return ram, state


def write_descriptor(ram: Ram, selector: int, access: int, limit: int) -> None:
    """Write one descriptor of the GDT at 1000h; page granular and 32-bit if it is a big segment."""
    flags = 0xC if limit == 0xFFFFF else 0
    value = limit & 0xFFFF | BASES.get(selector, 0) << 16 | access << 40 | (limit >> 16 | flags << 4) << 48
    ram.write_memory(0x1000 + (selector & 0xFFF8), value.to_bytes(8, "little"))


def rules_tss(
    segments: tuple[int, ...] = (DATA, CODE, DATA, DATA, 0, 0), local_table: int = 0, eflags: int = 2
) -> bytes:
    """A 32-bit TSS of the rules' tests."""
    return tss_32(eip=0x500, eflags=eflags, segments=segments, local_table=local_table)


def test_switch_to_16_bit_task_loads_words() -> None:
    """Upper halves are ones, FS and GS hold nothing."""
    words = (0x500, 0x0002, *range(0x10, 0x18), DATA, CODE, DATA, DATA)
    ram, state = bench(struct.pack("<14x14HH", *words, 0), NEW=0x81)
    assert not switch_task(Mmu(ram), state, NEW, 0x4007, 0)
    assert (state.eip, state.eflags, state.registers[0]) == (0x500, NT | 2, 0xFFFF_0010)
    assert [segment.selector for segment in state.segments] == [DATA, CODE, DATA, DATA, 0, 0]
    assert state.segments[FS].attributes == state.segments[GS].attributes == 0


def test_switch_from_16_bit_task_saves_words() -> None:
    """IP, FLAGS, eight registers and four selectors."""
    ram, state = bench(rules_tss())
    state.tr = Segment(OLD, 0x2000, 0x2B, 0x8300)
    switch_task(Mmu(ram), state, NEW, 0x1_4007, 0)
    saved = struct.unpack("<14H", ram.read_memory(0x200E, 28))
    assert saved == (0x777, 0x4007, *range(8), DATA, CODE, DATA, DATA)


def test_switch_to_virtual_8086_task_takes_selectors_as_paragraphs() -> None:
    """No descriptor is read; CPL is 3."""
    ram, state = bench(rules_tss((0x100, 0x200, 0x300, 0x400, 0x500, 0x600), eflags=VM | 2))
    switch_task(Mmu(ram), state, NEW, 2, 0)
    assert [segment.base for segment in state.segments] == [0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000]
    assert (state.cpl, state.eflags) == (3, VM | NT | 2)


def test_switch_to_user_task_loads_local_segments() -> None:
    """CPL is the RPL of CS, the LDT is used for selectors with TI."""
    ram, state = bench(rules_tss((0x0F, CODE_3, DATA_3, 0x0F, 0, 0), local_table=TABLE))
    ram.write_memory(0x4008, (0xFFFF | 0x1230 << 16 | 0xF2 << 40).to_bytes(8, "little"))
    switch_task(Mmu(ram), state, NEW, 2, 0)
    assert (state.cpl, state.ldtr.base, state.segments[DS].base, state.segments[ES].limit) == (
        3,
        0x4000,
        0x1230,
        0xFFFF,
    )
    assert ram.read_memory(0x400D, 1) == b"\xf3"  # accessed


@pytest.mark.parametrize(
    ("selector", "access", "expected"),
    [
        (0, {}, (13, 1)),
        (NEW | 4, {}, (13, NEW | 4 | 1)),
        (0x40, {}, (13, 0x41)),
        (DATA, {}, (13, DATA | 1)),
        (NEW, {"NEW": 0x8B}, (13, NEW | 1)),
        (NEW, {"NEW": 0x09}, (11, NEW | 1)),
        (TABLE, {"TABLE": 0x82}, (13, TABLE | 1)),
    ],
)
def test_switch_to_unusable_task_faults_in_the_old_one(
    selector: int, access: dict[str, int], expected: tuple[int, int]
) -> None:
    """Null, local, beyond the GDT, no TSS, busy, not present: nothing has changed."""
    ram, state = bench(rules_tss(), **access)
    before = bytes(ram.data)
    with pytest.raises(Fault) as caught:
        switch_task(Mmu(ram), state, selector, 2, 1)
    assert (caught.value.vector, caught.value.error_code) == expected
    assert (state.tr.selector, state.eip, bytes(ram.data)) == (OLD, 0x777, before)


@pytest.mark.parametrize("selector", [OLD, NEW])
def test_switch_with_short_tss_faults_in_the_old_task(selector: int) -> None:
    """#TS names the task whose TSS is too short."""
    ram, state = bench(rules_tss())
    if_old = state.tr._replace(limit=0x66)
    state.tr = {OLD: if_old, NEW: state.tr}[selector]
    write_descriptor(ram, selector, 0x89, 0x66)
    with pytest.raises(Fault) as caught:
        switch_task(Mmu(ram), state, NEW, 2, 0)
    assert (caught.value.vector, caught.value.error_code, state.eip) == (10, selector, 0x777)


@pytest.mark.parametrize(
    ("segments", "local_table", "access", "expected"),
    [
        ((DATA, 0, DATA, DATA, 0, 0), 0, {}, (10, 0)),
        ((DATA, DATA, DATA, DATA, 0, 0), 0, {}, (10, DATA)),
        ((DATA, CODE_3 & ~3, DATA, DATA, 0, 0), 0, {}, (10, CODE_3 & ~3)),
        ((DATA, CODE, DATA, DATA, 0, 0), 0, {"CODE": 0x1B}, (11, CODE)),
        ((DATA, CODE, 0, DATA, 0, 0), 0, {}, (10, 0)),
        ((DATA, CODE, DATA_3, DATA, 0, 0), 0, {}, (10, DATA_3 & ~3)),
        ((0, CODE, DATA, 0, 0, 0), 0, {"DATA": 0x13}, (12, DATA)),
        ((0, CODE, DATA, DATA_3, 0, 0), 0, {"DATA_3": 0x73}, (11, DATA_3 & ~3)),
        ((0, CODE, DATA, CODE, 0, 0), 0, {"CODE": 0x99}, (10, CODE)),
        ((DATA, CODE_3, DATA_3, 0, 0, 0), 0, {}, (10, DATA)),
        ((0, CODE, DATA, 0x48, 0, 0), 0, {}, (10, 0x48)),
        ((0, CODE, DATA, OLD, 0, 0), 0, {}, (10, OLD)),
        ((0, CODE, DATA, 0x0C, 0, 0), 0, {}, (10, 0x0C)),
        ((0, CODE, DATA, 0, 0, 0), TABLE | 4, {}, (10, TABLE | 4)),
        ((0, CODE, DATA, 0, 0, 0), TABLE, {"TABLE": 0x02}, (10, TABLE)),
        ((0, CODE, DATA, 0, 0, 0), DATA, {}, (10, DATA)),
    ],
)
def test_switch_with_bad_segment_faults_in_the_new_task(
    segments: tuple[int, ...], local_table: int, access: dict[str, int], expected: tuple[int, int]
) -> None:
    """Table 8-1; the task register is already the new one."""
    ram, state = bench(rules_tss(segments, local_table), **access)
    with pytest.raises(Fault) as caught:
        switch_task(Mmu(ram), state, NEW, 2, 0)
    assert (caught.value.vector, caught.value.error_code) == expected
    assert (state.tr.selector, state.eip) == (NEW, 0x500)


def test_exception_in_double_fault_task_switch_is_a_triple_fault() -> None:
    """A double fault task without a usable stack stops the CPU."""
    cpu = task_cpu("bc 00500500 6a01", "f4", RecordingBus(), 8, tss_32(segments=(0, KERNEL_CS, 0, 0, 0, 0)))
    set_page(cpu, 0x5_4000, 0)
    outcome = cpu.run()
    assert outcome.reason is ExitReason.STOPPED
    assert outcome.detail == f"triple fault at 0008:{KERNEL_CODE + 5:08x}, vectors 14, 14, 10"


def test_interrupt_through_task_gate_pushes_nothing() -> None:
    """A hardware interrupt has no error code; the stack is that of the TSS, untouched."""
    bus = RecordingBus()
    cpu = task_cpu("e680 fb ebfe ; out 80h, al; sti; jmp $", "f4", bus, 0x30)

    def raise_line(_port: int) -> None:
        bus.pending.append(0x30)
        cpu.kick()

    bus.on_out = raise_line
    assert cpu.run() == Exit(ExitReason.KICKED)
    assert cpu.run() == HALTED

    state = cpu.state()
    assert (state.registers[ESP], state.eip) == (TASK_STACK, TASK_CODE + 1)
    assert doublewords(cpu, TSS + 56, 1) == [KERNEL_STACK]


def test_guest_os_reports_the_overflow_of_its_kernel_stack() -> None:
    """The bundled kernel recurses without end; its double fault task prints the panic line and the old task's EIP."""
    rig = Rig(disk=1 << 20)
    rig.boot(guestos_path(), "panic=stack")
    rig.run_cpus(lambda: b"overflow?)" in rig.console.output)
    assert b"kernel panic: double fault at eip 001" in rig.console.output
