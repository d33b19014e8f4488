"""Interception at the system-call level: modes, messages, one call at a time, counting."""

from __future__ import annotations

import pytest

from iovirt_dist.hypervisor.intercept.syscall import MAX_PROCESSES
from iovirt_dist.hypervisor.intercept.syscall_parts import FIRST_MACHINE_FD, Mode
from iovirt_dist.wire.commands import Opcode, Status
from iovirt_dist.wire.queue_messages import QueueInterrupt
from iovirt_dist.wire.syscall_messages import (
    BAD_POINTER,
    NULL_POINTER,
    Disposition,
    ProgramStarted,
    SystemCall,
)
from tests.unit.hypervisor.linux.program import BAD_ADDRESS, Disk, Program, Source

SECTOR = 512


def machine() -> Program:
    """Return a program of a machine guest."""
    return Program("linux_i386", disk=Disk(), mode=Mode.MACHINE)


def test_first_flush_announces_every_call_for_programs() -> None:
    """The guest hears which calls to hand over before anything else."""
    program = Program()

    program.collect()

    assert program.taken is not None
    assert (program.taken.abi, program.taken.calls) == ("linux_x86_64", ())


def test_first_flush_announces_declared_calls_for_machines() -> None:
    """A machine's kernel keeps fork, execve, brk and all the others."""
    program = machine()

    program.collect()

    assert program.taken is not None
    assert {3, 4, 5, 6, 19, 54, 118, 140} <= set(program.taken.calls)  # read write open close lseek ioctl fsync _llseek
    assert not {2, 11, 45, 90} & set(program.taken.calls)


def test_call_of_unknown_number_fails_and_is_counted_by_name() -> None:
    """ENOSYS, and what is missing can be seen."""
    program = Program()

    result = program.call("vfork")

    assert result == -38
    assert program.interception.unknown == {"vfork": 1}


@pytest.mark.parametrize("mode", [Mode.PROGRAM, Mode.MACHINE])
def test_numbers_that_a_program_makes_up_share_a_name(mode: Mode) -> None:
    """It cannot make the counters grow for ever."""
    program = Program("linux_i386", disk=Disk(), mode=mode)

    for number in range(100_000, 110_000):
        program.interception.message(SystemCall(1, 1, number, (0,) * 6), (), 0)

    counted = program.interception.calls
    assert counted == {"other": 10_000}
    assert len(program.interception.unknown) + len(program.interception.passed) == 1


def test_calls_are_counted_by_name() -> None:
    """Each call counts once, whatever becomes of it."""
    program = Program()

    program.call("getpid")
    program.call("getpid")
    program.call("close", 77)

    assert program.interception.calls == {"getpid": 2, "close": 1}


def test_exit_ends_the_process() -> None:
    """The status is cut to eight bits, and a dead process makes no calls."""
    program = Program()

    program.call("exit_group", 0x1_07)

    assert (program.reply.disposition, program.reply.result) == (Disposition.EXIT, 7)
    assert not program.begin("getpid")


def test_call_while_another_waits_is_refused() -> None:
    """One call at a time; the one that waits is not disturbed."""
    program = Program(disk=Disk())
    fd = program.open_disk()
    program.begin("read", fd, program.buffer(SECTOR), SECTOR)

    second = program.begin("getpid")
    program.serve()

    assert not second
    assert program.reply.result == SECTOR


def test_program_started_anew_forgets_what_waited() -> None:
    """A completion for an earlier life changes nothing, and descriptors are new."""
    program = Program(disk=Disk())
    fd = program.open_disk()
    program.begin("read", fd, program.buffer(SECTOR), SECTOR)

    program.start()
    program.serve()

    assert len(program.replies) == 1
    assert program.call("close", fd) == -9


def test_call_before_program_started_is_refused() -> None:
    """There is no such process."""
    program = Program()
    program.process = 9

    assert not program.begin("getpid")


@pytest.mark.parametrize(
    ("registers", "buffers", "payload"),
    [
        ((0, 0x1000), (5,), b""),
        ((0, 0x1000, 5), (), b""),
        ((0, 0x1000, 5), (6,), b""),
        ((0, 0x1000, 5), (5,), b"hello"),
        ((0, 0x1000, 5), (5, 5), b""),
        ((0, 0x1000, 5), (NULL_POINTER,), b""),
        ((0, 1 << 32, 5), (5,), b""),
    ],
)
def test_call_that_contradicts_the_table_is_refused(
    registers: tuple[int, ...], buffers: tuple[int, ...], payload: bytes
) -> None:
    """Too few registers, wrong buffers, too much payload, a NULL that is none, a word too wide: no effect."""
    program = Program("linux_i386")
    message = SystemCall(1, 1, 3, registers, buffers)

    taken = program.interception.message(message, [payload] if payload else [], 0)

    assert not taken
    assert program.interception.calls == {}


def test_payload_of_two_frames_is_refused() -> None:
    """A call's data comes in one frame."""
    program = Program()
    message = SystemCall(1, 1, 1, (1, 0x1000, 2, 0, 0, 0), (2,))

    assert not program.interception.message(message, [b"a", b"b"], 0)


def test_undeclared_call_with_buffers_is_refused() -> None:
    """Nobody can know what they would be."""
    program = Program()

    assert not program.interception.message(SystemCall(1, 1, 58, (0,) * 6, (4,)), [b"abcd"], 0)


def test_message_of_another_type_is_refused() -> None:
    """Only its own messages are taken."""
    program = Program()

    assert not program.interception.message(QueueInterrupt(0, 0, 0), (), 0)


def test_program_started_in_a_machine_is_refused() -> None:
    """A machine's programs are its kernel's affair."""
    program = machine()

    assert not program.interception.message(ProgramStarted(1, "x", 0, 0), (), 0)


def test_output_to_bad_pointer_is_efault() -> None:
    """The structure does not come, the error does."""
    program = Program()

    result = program.call("uname", BAD_ADDRESS)

    assert result == -14
    assert program.reply.outputs == (0,)


def test_data_of_a_read_is_not_copied() -> None:
    """The frame is a view of what the disk gave."""
    program = Program(disk=Disk())
    fd = program.open_disk()
    program.begin("read", fd, program.buffer(600), 600)
    assert program.disk is not None
    request = program.disk.waiting.popleft()
    data = program.disk.perform(request)

    program.interception.complete(request.tag, Status.OK, data, 0)
    (outgoing,) = program.interception.flush(0)

    (frame,) = outgoing.payload
    assert isinstance(frame, memoryview)
    assert frame.obj is data


def test_lines_that_changed_leave_with_the_reply() -> None:
    """An interrupt that came meanwhile is not late."""
    program = Program()
    program.lines.set(3, True)

    program.call("getpid")

    assert program.reply.lines == (3, 1)


def test_observer_hears_of_each_device_call() -> None:
    """Process, file, offset and length of what the program meant, not of what the disk was asked."""
    program = Program(disk=Disk(), source=Source())
    fd = program.open_disk()

    program.read(fd, 700)
    program.call("pwrite64", fd, b"abc", 3, 1000)
    program.call("fsync", fd)
    program.call("write", 1, b"hi\n", 3)
    program.read(program.call("openat", -100, "/dev/null", 0, 0), 5)

    assert program.observed == [
        (1, "/dev/vda", 0, 700, "read"),
        (1, "/dev/vda", 1000, 3, "write"),
        (1, "/dev/vda", 0, 0, "flush"),
        (1, "/dev/console", 0, 3, "write"),
    ]


def test_machine_open_of_the_disk_is_ours() -> None:
    """The descriptor is one that the kernel never gives."""
    program = machine()

    assert program.call("open", "/dev/vda", 2, 0) == FIRST_MACHINE_FD
    assert program.reply.disposition is Disposition.DONE


@pytest.mark.parametrize("path", ["/dev/console", "/dev/vdb", "dev/vda", "//dev/vda", ""])
def test_machine_open_of_anything_else_passes(path: str) -> None:
    """What is not exactly the disk's path is the kernel's."""
    program = machine()

    program.call("open", path, 2, 0)

    assert program.reply.disposition is Disposition.PASS
    assert program.interception.passed == {"open": 1}


def test_machine_open_of_bad_pointer_passes() -> None:
    """The kernel says EFAULT."""
    program = machine()

    program.call("open", BAD_ADDRESS, 2, 0)

    assert program.reply.disposition is Disposition.PASS


def test_machine_job_reads_writes_and_flushes_the_disk() -> None:
    """What the bundled job does, on our descriptor, while the console stays the kernel's."""
    program = machine()
    fd = program.call("open", "/dev/vda", 2, 0)
    size = program.buffer(8)

    assert program.call("ioctl", fd, 0x80041272, size) == 0
    assert int.from_bytes(program.memory.read(size, 8), "little") == 64 * SECTOR
    assert program.read(fd, 2 * SECTOR) == b"\0\0" * 256 + b"\0\1" * 256
    assert program.call("_llseek", fd, 0, 4 * SECTOR, program.buffer(8), 0) == 0
    assert program.call("write", fd, b"x" * SECTOR, SECTOR) == SECTOR
    assert program.call("fsync", fd) == 0
    assert program.call("close", fd) == 0
    program.call("write", 1, b"done\n", 5)
    assert program.reply.disposition is Disposition.PASS
    assert program.disk is not None
    assert program.disk.content[4 * SECTOR : 5 * SECTOR] == b"x" * SECTOR
    assert program.disk.asked[-1] == (Opcode.FLUSH, 0, 0)


def test_machine_descriptor_of_another_process_passes() -> None:
    """Descriptors belong to an address space."""
    program = machine()
    fd = program.call("open", "/dev/vda", 2, 0)
    program.process = 2

    program.call("read", fd, program.buffer(4), 4)

    assert program.reply.disposition is Disposition.PASS


def test_machine_exit_passes_and_closes() -> None:
    """Another process with the same address space begins with nothing open."""
    program = machine()
    fd = program.call("open", "/dev/vda", 2, 0)

    program.call("exit_group", 0)
    ended = program.reply.disposition
    program.call("close", fd)

    assert ended is Disposition.PASS
    assert program.reply.disposition is Disposition.PASS


def test_machine_with_many_processes_forgets_the_silent_one() -> None:
    """Processes that died without a call do not pile up."""
    program = machine()
    fd = program.call("open", "/dev/vda", 2, 0)
    for process in range(2, MAX_PROCESSES + 2):
        program.process = process
        program.call("open", "/dev/vda", 2, 0)

    program.process = 1
    program.call("close", fd)

    assert program.reply.disposition is Disposition.PASS


def test_machine_with_many_waiting_processes_passes_one_more() -> None:
    """None that waits is forgotten."""
    program = machine()
    for process in range(1, MAX_PROCESSES + 1):
        program.process = process
        program.begin("open", "/dev/vda", 2, 0)
        program.begin("read", FIRST_MACHINE_FD, program.buffer(4), 4)
    program.process = MAX_PROCESSES + 1

    program.begin("open", "/dev/vda", 2, 0)

    assert program.reply.disposition is Disposition.PASS


def test_bad_buffer_at_the_end_of_the_disk_is_not_looked_at() -> None:
    """Where nothing would be written nothing faults."""
    program = Program(disk=Disk(1))
    fd = program.open_disk()

    at_end = program.call("pread64", fd, BAD_ADDRESS, 4, SECTOR)
    before = program.call("pread64", fd, BAD_ADDRESS, 4, 0)
    nothing = program.call("read", fd, BAD_ADDRESS, 0)
    null = program.call("read", fd, 0, 0)

    assert (at_end, before, nothing, null) == (0, -14, 0, 0)
    assert program.disk is not None
    assert not program.disk.asked


def test_bad_pointer_constant_is_refused_nowhere() -> None:
    """A message may say of any pointer that it is bad."""
    program = Program()

    assert program.interception.message(SystemCall(1, 1, 0, (0, 5, 4, 0, 0, 0), (BAD_POINTER,)), (), 0)
