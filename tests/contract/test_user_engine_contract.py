"""What every CPU in user mode must do, shown by small programs in its machine code."""

from __future__ import annotations

import threading
from typing import NamedTuple

import pytest

from iovirt_dist.guest.bus import SystemCallOutcome
from iovirt_dist.guest.program.architecture import I386, RISCV64, X86_64, Architecture
from iovirt_dist.guest.program.engine import SIGILL, SIGSEGV, SIGTRAP
from iovirt_dist.guest.vcpu import Exit, ExitReason
from iovirt_dist.wire.syscall_messages import Disposition, EffectKind
from tests.unit.guest.program.support import CODE, DATA, DATA_BYTES, DONE, Call, effect, program_cpu

KICKED = Exit(ExitReason.KICKED)
MAPPED = 0x30_0000


class Code(NamedTuple):
    """Machine code, in hexadecimal, for one architecture.

    Attributes:
        architecture: Which.
        exit_7: exit(7).
        exit_argc: exit with the word that the stack pointer points to.
        write_3: write(1, DATA, 3), then exit with what it returned.
        keep: Calls number 39 (x86-64 getpid, i386 mkdir, riscv64 umount2) and exits with the sum of registers that
            a call keeps, 10.
        spin: Jumps to itself.
        load_0: Reads address 0.
        store_code: Writes its own code.
        run_stack: Jumps to the stack.
        load_mapped: Calls number 39, then reads `MAPPED` and exits with its lowest byte.
        store_mapped: Calls number 39, then writes `MAPPED` and exits with 7.
        run_mapped: Calls number 39 and jumps to `MAPPED`.
        privileged: Instructions that a program must not execute.
        illegal: No instruction.
        breakpoint: A breakpoint.
    """

    architecture: Architecture
    exit_7: str
    exit_argc: str
    write_3: str
    keep: str
    spin: str
    load_0: str
    store_code: str
    run_stack: str
    load_mapped: str
    store_mapped: str
    run_mapped: str
    privileged: tuple[str, ...]
    illegal: str
    breakpoint: str


X64_CODE = Code(
    X86_64,
    "b83c000000 bf07000000 0f05",
    "b83c000000 8b3c24 0f05",
    "b801000000 bf01000000 be00002000 ba03000000 0f05 4889c7 b83c000000 0f05",
    # mov eax, 39; rbx = 1, rdx = 2, rbp = 3, r15 = 4; syscall; rbx += rdx + rbp + r15; exit(rbx)
    "b827000000 bb01000000 ba02000000 bd03000000 41bf04000000 0f05 01d3 01eb 4401fb 89df b83c000000 0f05",
    "ebfe",
    "488b042500000000",
    "488d0500000000 8800",
    "ffe4",
    "b827000000 0f05 0fb63c2500003000 b83c000000 0f05",
    "b827000000 0f05 880c2500003000 bf07000000 b83c000000 0f05",
    "b827000000 0f05 b900003000 ffe1",
    ("f4", "fa", "fb", "ec", "e670", "6c", "0f22d8", "0f01d0", "0f32", "0f0011", "cd81", "0f07", "cf", "0f34"),
    "0f0b",
    "cc",
)
I386_CODE = Code(
    I386,
    "b801000000 bb07000000 cd80",
    "b801000000 8b1c24 cd80",
    "b804000000 bb01000000 b900002000 ba03000000 cd80 89c3 b801000000 cd80",
    # mov eax, 39; ebx = 1, edx = 2, ebp = 3, edi = 4; int 80h; ebx += edx + ebp + edi; exit(ebx)
    "b827000000 bb01000000 ba02000000 bd03000000 bf04000000 cd80 01d3 01eb 01fb b801000000 cd80",
    "ebfe",
    "a100000000",
    "e800000000 58 8800",
    "ffe4",
    "b827000000 cd80 0fb61d00003000 b801000000 cd80",
    "b827000000 cd80 880d00003000 bb07000000 b801000000 cd80",
    "b827000000 cd80 b900003000 ffe1",
    ("f4", "fa", "fb", "ec", "e670", "6c", "0f22d8", "0f01d0", "0f32", "0f0011", "cd81", "0f34", "0f05"),
    "0f0b",
    "cc",
)
RISCV_CODE = Code(
    RISCV64,
    "9308d005 13057000 73000000",
    "9308d005 03350100 73000000",
    # li a7, 64; li a0, 1; lui a1, 200h; li a2, 3; ecall; li a7, 93; ecall
    "93080004 13051000 b7052000 13063000 73000000 9308d005 73000000",
    # li a7, 39; s0 = 1, a1 = 2, t0 = 3, a5 = 4; ecall; a0 = s0 + a1 + t0 + a5; li a7, 93; ecall
    "93087002 13041000 93052000 93023000 93074000 73000000 3305b400 33055500 3305f500 9308d005 73000000",
    "6f000000",
    "03350000",
    "97020000 23b00200",
    "67000100",
    "93087002 73000000 b7023000 03c50200 9308d005 73000000",
    "93087002 73000000 b7023000 23805200 13057000 9308d005 73000000",
    "93087002 73000000 b7023000 67800200",
    ("73005010", "73002010", "73002030", "73250030", "73250010", "73250018", "73000012"),
    "00000000",
    "73001000",
)
EXTENSIONS = {
    "sse3": "660fd0c1",
    "ssse3": "660f3800c1",
    "sse4.1": "660f3a0bc100",
    "sse4.2": "660f3a63c100",
    "movbe": "0f38f00424",
    "popcnt": "f30fb8c0",
    "aes": "660f38dcc1",
    "pclmulqdq": "660f3a44c100",
    "rdrand": "0fc7f0",
    "bmi1": "c4e278f2c0",
    "bmi2": "c4e279f7c0",
    "lzcnt": "f30fbdc0",
    "rdtscp": "0f01f9",
}
"""An instruction of each extension of x86 that CPUID advertises."""
ALL = [X64_CODE, I386_CODE, RISCV_CODE]


@pytest.fixture(params=ALL, ids=[code.architecture.abi for code in ALL])
def code(request: pytest.FixtureRequest) -> Code:
    """Each architecture in turn."""
    found: Code = request.param
    return found


def run(code: Code, text: str, outcome: SystemCallOutcome = DONE, data: bytes = b"") -> tuple[str, list[Call]]:
    """Run a program to its end, with one answer to all its calls but exit; return how it ended, and its calls."""
    cpu, bus = program_cpu(code.architecture, text, lambda _: outcome, data)
    reason, detail = cpu.run()
    assert reason is ExitReason.STOPPED
    return detail, bus.calls


def test_exit_ends_the_program_with_its_status(code: Code) -> None:
    """The call arrives by name; a program that has ended stays ended."""
    cpu, bus = program_cpu(code.architecture, code.exit_7)
    ended = Exit(ExitReason.STOPPED, "exited with status 7")
    assert [cpu.run(), cpu.run()] == [ended, ended]
    assert [call.name for call in bus.calls] == ["exit"]


def test_start_announces_the_program_once_per_life(code: Code) -> None:
    """Name, heap and mapping area are told at the first run after each reset."""
    cpu, bus = program_cpu(code.architecture, code.exit_7)
    cpu.run()
    cpu.run()
    cpu.reset()
    cpu.run()
    assert bus.started == [(1, "/bin/prog", DATA + DATA_BYTES, code.architecture.map_top)] * 2


def test_stack_begins_with_argument_count(code: Code) -> None:
    """The program finds argc where its ABI says."""
    cpu, _ = program_cpu(code.architecture, code.exit_argc, arguments=("a", "b", "c"))
    assert cpu.run() == Exit(ExitReason.STOPPED, "exited with status 3")


def test_call_carries_memory_and_returns_result(code: Code) -> None:
    """write(1, "abc", 3) arrives with its bytes; the program sees the result."""
    detail, calls = run(code, code.write_3, DONE._replace(result=2), b"abcd")
    assert (calls[0].name, calls[0].arguments[:3]) == ("write", (1, DATA, 3))
    assert (calls[0].buffers, calls[0].data) == ((3,), b"abc")
    assert detail == "exited with status 2"


def test_call_result_that_is_an_error_is_negative(code: Code) -> None:
    """-ENOSPC fills the register."""
    _, calls = run(code, code.write_3, DONE._replace(result=-28), b"abc")
    assert calls[1].arguments[0] == (1 << 8 * code.architecture.word_bytes) - 28


def test_call_keeps_other_registers(code: Code) -> None:
    """Registers that the ABI preserves are preserved."""
    assert run(code, code.keep)[0] == "exited with status 10"


def test_kick_makes_run_return_and_the_program_goes_on(code: Code) -> None:
    """From another thread, while the program computes; sticky before a run."""
    cpu, _ = program_cpu(code.architecture, code.spin)
    cpu.kick()
    assert cpu.run() == KICKED
    timer = threading.Timer(0.02, cpu.kick)
    timer.start()
    assert cpu.run() == KICKED
    timer.join()


def test_null_pointer_kills_with_segmentation_fault(code: Code) -> None:
    """A load from address 0; the report says where and why."""
    detail, _ = run(code, code.load_0)
    assert detail == f"killed by signal {SIGSEGV} at {CODE:#x}: page fault at 0x0"


def test_code_is_not_writable(code: Code) -> None:
    """A store to a page that is readable and executable."""
    detail, _ = run(code, code.store_code)
    assert detail.startswith(f"killed by signal {SIGSEGV} at 0x1000")


def test_stack_is_not_executable(code: Code) -> None:
    """A jump to the stack."""
    cpu, _ = program_cpu(code.architecture, code.run_stack)
    pointer = cpu.stack_pointer
    assert cpu.run().detail == f"killed by signal {SIGSEGV} at {pointer:#x}: page fault at {pointer:#x}"


def test_privileged_instructions_kill(code: Code) -> None:
    """None takes effect, none reaches a device."""
    ends = [run(code, text)[0] for text in code.privileged]
    assert [end for end in ends if not end.startswith(("killed by signal 11 at 0x1000", "killed by signal 4 at"))] == []


def test_illegal_instruction_and_breakpoint_kill_by_their_signals(code: Code) -> None:
    """SIGILL and SIGTRAP."""
    ends = [run(code, text)[0].split(" at ")[0] for text in (code.illegal, code.breakpoint)]
    assert ends == [f"killed by signal {SIGILL}", f"killed by signal {SIGTRAP}"]


@pytest.mark.parametrize(
    ("protection", "loads", "stores", "runs"), [(1, 1, 0, 0), (3, 1, 1, 0), (5, 1, 0, 1), (0,) * 4]
)
def test_effect_map_gives_zeroed_memory_with_its_protection(
    code: Code, protection: int, loads: int, stores: int, runs: int
) -> None:
    """Read, write and execute are enforced one by one; PROT_NONE is nothing."""
    mapped = effect(EffectKind.MAP, MAPPED, 1, protection)
    ends = [run(code, text, mapped)[0] for text in (code.load_mapped, code.store_mapped, code.run_mapped)]
    assert (ends[0] == "exited with status 0") == bool(loads)
    assert (ends[1] == "exited with status 7") == bool(stores)
    # zeros are an instruction that stores (x86) or none (RISC-V); where they are not executed, the jump itself faults
    assert (ends[2].endswith(f"page fault at {MAPPED:#x}") and f"at {MAPPED:#x}:" in ends[2]) == (not runs)


def test_effect_protect_and_unmap_change_what_was_there(code: Code) -> None:
    """The page that the program uses is taken away while it runs; translations are forgotten."""
    cpu, _ = program_cpu(code.architecture, code.store_mapped, _map_then_protect)
    assert cpu.run().detail.endswith(f"page fault at {MAPPED:#x}")


def _map_then_protect(call: Call) -> SystemCallOutcome:
    steps = ((EffectKind.MAP, MAPPED, 0x2000, 3), (EffectKind.PROTECT, MAPPED, 0x1000, 1))
    return DONE._replace(effects=steps)


def test_effect_on_nothing_of_the_programs_ends_it(code: Code) -> None:
    """An address beyond the program's part: the hypervisor's error, told in a line."""
    end = code.architecture.user_end
    detail, _ = run(code, code.keep, effect(EffectKind.MAP, end, 4096, 3))
    assert detail == f"cannot go on: effect MAP at {end:#x} is none on this program"


def test_effect_beyond_memory_kills(code: Code) -> None:
    """More than the RAM of a program guest."""
    detail, _ = run(code, code.keep, effect(EffectKind.MAP, MAPPED, 1 << 30, 3))
    assert detail == f"killed by signal 9: no memory for {1 << 30} bytes"


def test_reset_loads_the_program_anew(code: Code) -> None:
    """What it wrote is forgotten."""
    cpu, bus = program_cpu(code.architecture, code.write_3, lambda _: DONE, b"abc")
    cpu.run()
    cpu.write_memory(DATA, b"xyz")
    cpu.reset()
    cpu.run()
    assert [call.data for call in bus.calls if call.name == "write"] == [b"abc", b"abc"]


def test_call_passed_on_has_no_kernel_to_go_to(code: Code) -> None:
    """PASS is ENOSYS for a program guest."""
    _, calls = run(code, code.write_3, DONE._replace(disposition=Disposition.PASS, result=5), b"abc")
    assert calls[1].arguments[0] == (1 << 8 * code.architecture.word_bytes) - 38


def test_other_abi_is_refused_with_a_reason(code: Code) -> None:
    """The hypervisor emulates another system."""
    cpu, bus = program_cpu(code.architecture, code.exit_7)
    bus.taken = ("plan9_386", frozenset())
    details = {cpu.run().detail, cpu.run().detail}
    reason = f"cannot run: the hypervisor takes those of plan9_386, the program is for {code.architecture.abi}"
    assert details == {reason}


def test_system_call_instruction_of_x86_64_leaves_its_own_traces() -> None:
    """RCX is the address behind SYSCALL, R11 the flags (Intel SDM volume 2); other registers are kept."""
    # mov eax, 39; syscall; mov rdi, rcx; xor rdi, r11; exit(rdi)
    cpu, _ = program_cpu(X86_64, "b827000000 0f05 4889cf 4c31df b83c000000 0f05")
    flags = 0x202
    assert cpu.run().detail == f"exited with status {(CODE + 7) ^ flags}"


@pytest.mark.parametrize(
    ("code", "move"), [(X64_CODE, "89cf b83c000000 0f05"), (I386_CODE, "89cb b801000000 cd80")], ids=["64", "32"]
)
def test_cpuid_of_x86_does_not_advertise_what_the_engine_lacks(code: Code, move: str) -> None:
    """CPUID.1:ECX bits 27 (OSXSAVE) and 28 (AVX): the C library would choose code for them."""
    # mov eax, 1; cpuid; shr ecx, 27; and ecx, 3; exit(ecx)
    assert run(code, "b801000000 0fa2 c1e91b 83e103" + move)[0] == "exited with status 0"


@pytest.mark.parametrize("instruction", list(EXTENSIONS.values()), ids=list(EXTENSIONS))
def test_what_cpuid_of_x86_advertises_works(instruction: str) -> None:
    """One instruction of each extension that the C library may choose, on both CPUs."""
    ends = [run(code, f"{instruction} {code.exit_7}")[0] for code in (X64_CODE, I386_CODE)]
    assert ends == ["exited with status 7"] * 2
