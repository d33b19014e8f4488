"""INT 80h that the hypervisor takes: machine code at CPL 3 on the real engine, a bus that answers as told."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest

from iovirt_dist.guest.bus import BusClosedError, SystemCallOutcome
from iovirt_dist.guest.vcpu import Exit, ExitReason
from iovirt_dist.guest.x86.vcpu import X86Cpu
from iovirt_dist.wire.syscall_messages import BAD_POINTER, NULL_POINTER, Disposition
from tests.unit.guest.x86.support import PAGE_DIRECTORY, RecordingBus, protected_cpu, reported, set_gate, set_page

READ, WRITE, GETPID, READV = 3, 4, 20, 145
BUFFER = 0x6_0000
HALTED = Exit(ExitReason.HALTED)
DONE = SystemCallOutcome(Disposition.DONE, 0, (), b"", ())
PASSED = DONE._replace(disposition=Disposition.PASS)


@dataclass
class CallBus(RecordingBus):
    """Takes system calls.

    Attributes:
        taken: What `intercepted_calls` says.
        outcome: Answer to every call.
        calls: What was asked.
        raise_line: Assert INTR while a call is under way.
        closed: Raise instead of answering.
    """

    taken: tuple[str, frozenset[int]] | None = ("linux_i386", frozenset({READ, WRITE, READV}))
    outcome: SystemCallOutcome = DONE
    calls: list[tuple[int, int, tuple[int, ...], tuple[int, ...], bytes]] = field(default_factory=list)
    raise_line: list[int] = field(default_factory=list)
    closed: bool = False

    def intercepted_calls(self) -> tuple[str, frozenset[int]] | None:
        """As told."""
        return self.taken

    def system_call(
        self, process: int, call: int, arguments: tuple[int, ...], buffers: tuple[int, ...], data: bytes
    ) -> SystemCallOutcome:
        """Record and answer."""
        self.calls.append((process, call, arguments, buffers, data))
        self.pending += self.raise_line
        if self.closed:
            raise BusClosedError
        return self.outcome


def caller(bus: CallBus, number: int, second: int = BUFFER, third: int = 0x10) -> X86Cpu:
    """A program that makes one call with EBX = 7 and tells the result to port 77h (which faults); then it ends."""
    code = f"""
        b8 {struct.pack("<I", number).hex()}    ; mov eax, number
        bb 07000000                             ; mov ebx, 7
        b9 {struct.pack("<I", second).hex()}    ; mov ecx, second
        ba {struct.pack("<I", third).hex()}     ; mov edx, third
        cd80                                    ; int 80h
        a3 00100600                             ; mov [61000h], eax
        f4                                      ; hlt (faults)
    """
    return protected_cpu(code, bus, user=True, paging=True)


def result(cpu: X86Cpu) -> int:
    """What the program found in EAX."""
    return int.from_bytes(cpu.read_memory(0x6_1000, 4), "little", signed=True)


def test_call_taken_and_done_continues_behind_the_instruction() -> None:
    """The kernel's gate is not entered; EAX has the result, the buffer the data."""
    bus = CallBus(outcome=DONE._replace(result=5, outputs=(5,), data=b"hello"))
    cpu = caller(bus, READ)
    assert cpu.run() == HALTED
    assert bus.calls == [(PAGE_DIRECTORY, READ, (7, BUFFER, 0x10, 0, 0, 0), (0x10,), b"")]
    assert (result(cpu), cpu.read_memory(BUFFER, 6)) == (5, b"hello\0")
    assert reported(bus) == [13]
    assert cpu.counters().exceptions == 1


def test_call_that_writes_carries_its_data() -> None:
    """What the call reads travels with it; an error comes back negative."""
    bus = CallBus(outcome=DONE._replace(result=-28))
    cpu = caller(bus, WRITE)
    cpu.write_memory(BUFFER, b"0123456789abcdefX")
    cpu.run()
    assert bus.calls[0][3:] == ((0x10,), b"0123456789abcdef")
    assert result(cpu) == -28


@pytest.mark.parametrize(
    ("taken", "number"),
    [
        (("linux_i386", frozenset({READ})), WRITE),
        (None, READ),
        (("linux_x86_64", frozenset({READ})), READ),
    ],
    ids=["number", "nothing", "abi"],
)
def test_call_not_taken_enters_the_kernel_without_a_message(
    taken: tuple[str, frozenset[int]] | None, number: int
) -> None:
    """Another number, no interception at all, or that of another ABI."""
    bus = CallBus(taken=taken)
    assert caller(bus, number).run() == HALTED
    assert (bus.calls, reported(bus)) == ([], [0x80])


def test_call_with_every_number_taken_is_asked_about() -> None:
    """An empty set stands for all calls; one that the table does not declare travels with its registers only."""
    bus = CallBus(taken=("linux_i386", frozenset()))
    caller(bus, 0x7FFF_FFFF).run()
    assert bus.calls == [(PAGE_DIRECTORY, 0x7FFF_FFFF, (7, BUFFER, 0x10, 0, 0, 0), (), b"")]


@pytest.mark.parametrize("disposition", [Disposition.PASS, Disposition.EXIT])
def test_call_passed_on_enters_the_kernel_with_registers_unchanged(disposition: Disposition) -> None:
    """The kernel finds the number in EAX as if nobody had asked."""
    bus = CallBus(outcome=DONE._replace(disposition=disposition, result=99, outputs=(3,), data=b"abc"))
    cpu = caller(bus, READ)
    assert cpu.run() == HALTED
    assert reported(bus) == [0x80]
    assert cpu.state().registers[0] & ~0xFF == 0  # the stub puts the vector into AL
    assert cpu.read_memory(BUFFER, 3) == b"\0\0\0"


def test_call_from_the_kernel_is_not_taken() -> None:
    """INT 80h at CPL 0 is no system call of a program."""
    bus = CallBus()
    cpu = protected_cpu("b803000000 cd80", bus, paging=True)
    assert cpu.run() == HALTED
    assert (bus.calls, reported(bus)) == ([], [0x80])


def test_interrupt_that_came_during_the_call_is_taken_behind_it() -> None:
    """INTR rises while the hypervisor works; the handler runs before the program's next instruction."""
    bus = CallBus(raise_line=[0x21], outcome=DONE._replace(result=1))
    cpu = caller(bus, READ)
    cpu.write_memory(0x6_1000, b"before")
    # push eax; copy what the program has written so far: mov eax, [61000h]; mov [62000h], eax; pop eax; iret
    cpu.write_memory(0x5_0000, bytes.fromhex("50 a1 00100600 a3 00200600 58 cf"))
    set_gate(cpu, 0x21, 0x5_0000)
    cpu.run()
    assert cpu.counters().interrupts == 1
    assert (cpu.read_memory(0x6_2000, 4), result(cpu)) == (b"befo", 1)


@pytest.mark.parametrize(
    ("flags", "number", "expected"),
    [
        (7, READ, 0x10),
        (5, READ, BAD_POINTER),
        (5, WRITE, 0x10),
        (3, READ, BAD_POINTER),
        (3, WRITE, BAD_POINTER),
        (0, WRITE, BAD_POINTER),
    ],
)
def test_pointer_is_followed_with_the_programs_rights(flags: int, number: int, expected: int) -> None:
    """Read-only pages cannot be written, the kernel's pages and absent ones not be touched."""
    bus = CallBus(outcome=DONE._replace(outputs=(4,), data=b"evil"))
    cpu = caller(bus, number)
    set_page(cpu, BUFFER, flags)
    cpu.run()
    assert bus.calls[0][3] == (expected,)
    assert (cpu.read_memory(BUFFER, 4) == b"evil") == (number == READ and flags == 7)


def test_pointer_to_a_device_is_bad() -> None:
    """A page that is mapped to an address without RAM: the call must not read a device's registers."""
    bus = CallBus()
    cpu = caller(bus, WRITE)
    cpu.write_memory(0x3_1000 + 4 * 0x60, (0xFEB0_0000 | 7).to_bytes(4, "little"))
    cpu.run()
    assert bus.calls[0][3] == (BAD_POINTER,)
    assert [entry for entry in bus.log if entry[0] == "load"] == []


def test_pointer_that_is_null_says_so() -> None:
    """Whether a null pointer is allowed is the call's affair."""
    bus = CallBus()
    caller(bus, READ, second=0).run()
    assert bus.calls[0][3] == (NULL_POINTER,)


def test_buffer_over_pages_that_are_not_neighbours_is_scattered() -> None:
    """Two pages in reverse physical order: the data follows the program's addresses."""
    bus = CallBus(outcome=DONE._replace(result=4, outputs=(4,), data=b"abcd"))
    cpu = caller(bus, READ, second=0x6_3FFE)
    cpu.write_memory(0x3_1000 + 4 * 0x63, (0x6_5000 | 7).to_bytes(4, "little"))
    cpu.write_memory(0x3_1000 + 4 * 0x64, (0x6_4000 | 7).to_bytes(4, "little"))
    cpu.run()
    assert (cpu.read_memory(0x6_5FFE, 2), cpu.read_memory(0x6_4000, 2)) == (b"ab", b"cd")


def test_vector_is_flattened_and_scattered_over_its_segments() -> None:
    """readv: one length for all segments; the reply's bytes fill them in order."""
    bus = CallBus(outcome=DONE._replace(result=5, outputs=(5,), data=b"abcde"))
    cpu = caller(bus, READV, third=2)
    cpu.write_memory(BUFFER, struct.pack("<IIII", 0x6_4000, 3, 0x6_5000, 9))
    cpu.run()
    assert bus.calls[0][3] == (12,)
    assert (cpu.read_memory(0x6_4000, 4), cpu.read_memory(0x6_5000, 3)) == (b"abc\0", b"de\0")


def test_code_written_by_a_call_is_executed() -> None:
    """A call reads over instructions that ran before; the program executes the new ones."""
    code = """
        bf 00000600     ; mov edi, 60000h
        ffd7            ; call edi  (mov bl, 1; ret)
        b8 03000000     ; mov eax, 3
        b9 00000600     ; mov ecx, 60000h
        ba 10000000     ; mov edx, 16
        cd80            ; int 80h
        ffd7            ; call edi  (mov bl, 2; ret)
        f4              ; hlt (faults)
    """
    bus = CallBus(outcome=DONE._replace(result=3, outputs=(3,), data=bytes.fromhex("b302c3")))
    cpu = protected_cpu(code, bus, user=True, paging=True)
    cpu.write_memory(BUFFER, bytes.fromhex("b301c3"))
    assert cpu.run() == HALTED
    assert cpu.state().registers[3] == 2


def test_bus_closed_inside_a_call_leaves_run() -> None:
    """The process stops while a program waits for its call."""
    with pytest.raises(BusClosedError):
        caller(CallBus(closed=True), READ).run()
