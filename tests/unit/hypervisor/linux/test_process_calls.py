"""Calls about the process itself and the system."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.abi.registry import LAYOUTS
from iovirt_dist.wire.syscall_messages import Disposition, EffectKind
from tests.unit.hypervisor.linux.program import BAD_ADDRESS, Program

HANDLER = 0x40_1234


def set_handler(program: Program, signal: int, handler: int) -> None:
    """Ask for a handler."""
    action = LAYOUTS[program.abi.name].sigaction.pack({"handler": handler})
    assert program.call("rt_sigaction", signal, action, 0, 8) == 0


def mask(program: Program, how: int, signals: int) -> None:
    """Block, unblock or set signals; bit 0 is signal 1."""
    program.call("rt_sigprocmask", how, struct.pack("<Q", signals), 0, 8)


@pytest.mark.parametrize("name", ["kill", "tkill"])
def test_signal_that_kills_ends_the_process(name: str) -> None:
    """What abort does."""
    program = Program()

    program.call(name, program.call("getpid"), 6)

    assert (program.reply.disposition, program.reply.result) == (Disposition.EXIT, -6)


def test_signal_with_a_handler_does_not_kill() -> None:
    """The handler is never called; abort takes it away and tries again."""
    program = Program()
    pid = program.call("getpid")
    set_handler(program, 6, HANDLER)

    assert program.call("tgkill", pid, pid, 6) == 0
    set_handler(program, 6, 0)
    program.call("tgkill", pid, pid, 6)
    assert program.reply.disposition is Disposition.EXIT


@pytest.mark.parametrize("how", [1, 2])
def test_signal_that_is_blocked_kills_once_it_is_unblocked(how: int) -> None:
    """Which is what raise of a C library does: it blocks all while it sends."""
    program = Program()
    mask(program, 0, 0xFFFF)

    sent = program.call("kill", program.call("getpid"), 15)
    begun = program.call("getpid")
    mask(program, how, 1 << 14 if how == 1 else 0)

    assert (sent, begun) == (0, 2)
    assert (program.reply.disposition, program.reply.result) == (Disposition.EXIT, -15)


@pytest.mark.parametrize(("while_blocked", "at_the_end"), [(HANDLER, HANDLER), (0, HANDLER), (HANDLER, 1), (1, 0)])
def test_signal_that_is_blocked_kills_only_if_nothing_else_is_asked_for(while_blocked: int, at_the_end: int) -> None:
    """A handler or SIG_IGN; to ignore it forgets one that waits (sigaction(2), POSIX "Signal Actions")."""
    program = Program()
    mask(program, 0, 1 << 14)
    program.call("kill", program.call("getpid"), 15)
    set_handler(program, 15, while_blocked)
    set_handler(program, 15, at_the_end)

    mask(program, 1, 1 << 14)

    assert program.reply.disposition is Disposition.DONE
    assert program.call("getpid") == 2


def test_sigkill_is_not_blocked() -> None:
    """It is left out of every mask."""
    program = Program()
    mask(program, 0, (1 << 64) - 1)

    program.call("kill", program.call("getpid"), 9)

    assert (program.reply.disposition, program.reply.result) == (Disposition.EXIT, -9)


@pytest.mark.parametrize(("signal", "result"), [(0, 0), (17, 0), (65, -22), (-1, -22)])
def test_signal_that_is_harmless_or_none(signal: int, result: int) -> None:
    """SIGCHLD is ignored; 0 only asks."""
    program = Program()

    assert program.call("kill", program.call("getpid"), signal) == result


def test_signal_to_another_process_is_esrch() -> None:
    """There is none."""
    program = Program()

    assert program.call("kill", 4711, 9) == -3


def test_sigaction_gives_back_what_was_asked_for() -> None:
    """Byte for byte, and nothing before the first time."""
    program = Program("linux_i386")
    size = LAYOUTS["linux_i386"].sigaction.size
    action, old = bytes(range(1, size + 1)), program.buffer(size)

    program.call("rt_sigaction", 10, action, old, 8)
    before = program.memory.read(old, size)
    program.call("rt_sigaction", 10, 0, old, 8)

    assert (before, program.memory.read(old, size)) == (bytes(size), action)


def test_sigaction_checks_its_arguments() -> None:
    """SIGKILL has no handler, the set has eight bytes."""
    program = Program()
    action = bytes(32)

    assert program.call("rt_sigaction", 9, action, 0, 8) == -22
    assert program.call("rt_sigaction", 10, action, 0, 16) == -22
    assert program.call("rt_sigaction", 65, action, 0, 8) == -22
    assert program.call("rt_sigaction", 10, BAD_ADDRESS, 0, 8) == -14


def test_sigprocmask_keeps_the_mask() -> None:
    """Block, unblock, set; SIGKILL cannot be blocked."""
    program = Program()
    old = program.buffer(8)

    program.call("rt_sigprocmask", 2, struct.pack("<Q", 0xFFFF), 0, 8)
    program.call("rt_sigprocmask", 1, struct.pack("<Q", 0x00F0), 0, 8)
    program.call("rt_sigprocmask", 0, struct.pack("<Q", 1 << 40), old, 8)

    assert struct.unpack("<Q", program.memory.read(old, 8)) == (0xFF0F & ~(1 << 8),)
    assert program.call("rt_sigprocmask", 3, struct.pack("<Q", 0), 0, 8) == -22


def test_sigaltstack_is_accepted() -> None:
    """There was none before."""
    program = Program()
    old = program.buffer(24)

    assert program.call("sigaltstack", bytes(24), old) == 0
    assert struct.unpack_from("<i", program.memory.read(old, 24), 8) == (2,)


def test_uname_tells_the_machine() -> None:
    """Six names of 65 bytes."""
    program = Program("linux_riscv64")
    address = program.buffer(390)

    program.call("uname", address)
    names = [program.memory.read(address + at, 65).rstrip(b"\0") for at in range(0, 390, 65)]

    assert names == [b"Linux", b"guest", b"6.1.0", b"#1 iovirt-dist", b"riscv64", b"(none)"]


@pytest.mark.parametrize("name", ["getuid", "geteuid", "getgid", "getegid"])
def test_caller_is_root(name: str) -> None:
    """Nobody else is there."""
    assert Program().call(name) == 0


def test_start_of_a_static_c_library_on_x86_64() -> None:
    """FS base, thread number, robust list, no restartable sequences, stack limit."""
    program = Program()
    limit = program.buffer(16)

    assert program.call("arch_prctl", 0x1002, 0x7000) == 0
    assert program.reply.effects == ((EffectKind.THREAD_POINTER, 0x7000, 0, 0),)
    assert program.call("set_tid_address", 0x7010) == program.call("getpid")
    assert program.call("set_robust_list", 0x7020, 24) == 0
    assert program.call("rseq", 0x7040, 32, 0, 0x53053053) == -38
    assert program.call("prlimit64", 0, 3, 0, limit) == 0
    assert struct.unpack("<QQ", program.memory.read(limit, 16)) == (1 << 20, 1 << 20)
    assert program.interception.unknown == {}


def test_arch_prctl_gives_back_the_fs_base() -> None:
    """Addresses that no program can have are refused, and so is GS."""
    program = Program()
    address = program.buffer(8)
    program.call("arch_prctl", 0x1002, 0x1234)

    assert program.call("arch_prctl", 0x1003, address) == 0
    assert program.memory.read(address, 8) == (0x1234).to_bytes(8, "little")
    assert program.call("arch_prctl", 0x1002, 1 << 47) == -1
    assert program.call("arch_prctl", 0x1001, 0) == -22


def test_set_thread_area_hands_out_one_entry() -> None:
    """The number comes back in the descriptor; the C library loads GS with it."""
    program = Program("linux_i386")
    descriptor = program.memory.put(struct.pack("<IIII", 0xFFFF_FFFF, 0x8000, 0xFFFFF, 0x51))

    assert program.call("set_thread_area", descriptor) == 0
    assert program.memory.read(descriptor, 4) == (6).to_bytes(4, "little")
    assert program.reply.effects == ((EffectKind.THREAD_POINTER, 0x8000, 0, 0),)
    assert program.call("set_thread_area", struct.pack("<IIII", 1, 0, 0, 0)) == -22


def test_getrlimit_of_i386_says_infinity_in_32_bits() -> None:
    """Where prlimit64 has 64."""
    program = Program("linux_i386")
    address = program.buffer(8)

    program.call("ugetrlimit", 0, address)

    assert program.memory.read(address, 8) == b"\xff" * 8
    assert program.call("ugetrlimit", 16, address) == -22


def test_prlimit_cannot_raise_a_limit() -> None:
    """Lowering is accepted."""
    program = Program()

    assert program.call("prlimit64", 0, 7, struct.pack("<QQ", 10, 100), 0) == 0
    assert program.call("prlimit64", 0, 7, struct.pack("<QQ", 10, 1000), 0) == -1
    assert program.call("prlimit64", 0, 7, struct.pack("<QQ", 10, 5), 0) == -22
    assert program.call("prlimit64", 4711, 7, 0, 0) == -3


def test_prctl_keeps_the_threads_name() -> None:
    """Fifteen bytes of it; other options do not exist."""
    program = Program()
    address = program.buffer(16)

    program.call("prctl", 16, address)
    first = program.memory.read(address, 16)
    program.call("prctl", 15, "a name that is too long")
    program.call("prctl", 16, address)

    assert first == b"busybox".ljust(16, b"\0")
    assert program.memory.read(address, 16) == b"a name that is \0"
    assert program.call("prctl", 38, 1) == -22


def test_sysinfo_tells_memory() -> None:
    """What is free is what may still be mapped."""
    program = Program(memory_bytes=1 << 20)
    layout = LAYOUTS["linux_x86_64"].sysinfo
    address = program.buffer(layout.size)
    program.call("mmap", 0, 1 << 19, 3, 0x22, -1, 0)

    program.call("sysinfo", address)
    fields = layout.unpack(program.memory.read(address, layout.size))

    assert (fields["total"], fields["free"], fields["unit"]) == (1 << 20, 1 << 19, 1)


def test_futex_never_waits() -> None:
    """One thread: a wait would be for ever, a wake has nobody to wake."""
    program = Program()

    assert program.call("futex", 0x1000, 0x80, 0, 0, 0, 0) == -11
    assert program.call("futex", 0x1000, 0x81, 1, 0, 0, 0) == 0
    assert program.call("futex", 0x1000, 4, 1, 0, 0, 0) == -38
