"""Clocks, sleep, and waiting for files, in virtual time."""

from __future__ import annotations

import struct

import pytest

from tests.unit.hypervisor.linux.program import AT_FDCWD, BAD_ADDRESS, WALL_NS, Disk, Program

SECOND = 1_000_000_000
POLLIN, POLLOUT, POLLNVAL = 1, 4, 32


def poll_entry(fd: int, events: int) -> bytes:
    """Return one ``struct pollfd``."""
    return struct.pack("<ihh", fd, events, 0)


@pytest.mark.parametrize(
    ("clock", "expected"), [(0, WALL_NS + 5 * SECOND + 7), (1, 5 * SECOND + 7), (7, 5 * SECOND + 7)]
)
def test_clocks_are_virtual(clock: int, expected: int) -> None:
    """The wall clock goes on from the machine's start; the others begin there."""
    program = Program()
    program.now_ns = 5 * SECOND + 7
    address = program.buffer(16)

    assert program.call("clock_gettime", clock, address) == 0
    assert struct.unpack("<qq", program.memory.read(address, 16)) == divmod(expected, SECOND)
    assert program.call("clock_gettime", 99, address) == -22


def test_clock_of_i386_has_two_widths() -> None:
    """32 bits a word, or 64 with the newer call."""
    program = Program("linux_i386")
    narrow, wide = program.buffer(8), program.buffer(16)

    program.call("clock_gettime", 0, narrow)
    program.call("clock_gettime64", 0, wide)

    assert struct.unpack("<ii", program.memory.read(narrow, 8)) == (WALL_NS // SECOND, 0)
    assert struct.unpack("<qq", program.memory.read(wide, 16)) == (WALL_NS // SECOND, 0)


def test_clock_of_i386_ends_in_2038() -> None:
    """Seconds that do not fit are an error, not another time."""
    program = Program("linux_i386")
    program.now_ns = 1 << 60

    assert program.call("clock_gettime", 0, program.buffer(8)) == -75
    assert program.call("gettimeofday", program.buffer(8), 0) == -75
    assert program.call("time", 0) == -75
    assert program.call("clock_gettime64", 0, program.buffer(16)) == 0


def test_clock_resolution_is_a_nanosecond() -> None:
    """The pointer may be NULL."""
    program = Program()
    address = program.buffer(16)

    assert program.call("clock_getres", 1, address) == 0
    assert struct.unpack("<qq", program.memory.read(address, 16)) == (0, 1)
    assert program.call("clock_getres", 1, 0) == 0


def test_time_and_gettimeofday_tell_the_wall_clock() -> None:
    """In seconds, and with microseconds."""
    program = Program()
    program.now_ns = 1_500_000
    address, zone, seconds = program.buffer(16), program.buffer(8), program.buffer(8)

    assert program.call("time", seconds) == WALL_NS // SECOND
    assert program.call("time", 0) == WALL_NS // SECOND
    assert program.call("gettimeofday", address, zone) == 0
    assert struct.unpack("<qq", program.memory.read(address, 16)) == (WALL_NS // SECOND, 1500)
    assert struct.unpack("<q", program.memory.read(seconds, 8)) == (WALL_NS // SECOND,)


def test_nanosleep_ends_at_its_deadline() -> None:
    """Not before, and nobody polls for it."""
    program = Program()
    program.begin("nanosleep", struct.pack("<qq", 1, 5), 0)

    deadline = program.interception.deadline_ns()
    program.sleep(SECOND)
    before = len(program.replies)
    program.sleep(5)

    assert (deadline, before, program.reply.result) == (SECOND + 5, 0, 0)
    assert program.interception.deadline_ns() is None


@pytest.mark.parametrize(
    ("abi", "name", "first", "time"),
    [
        ("linux_x86_64", "nanosleep", (), "<qq"),
        ("linux_i386", "nanosleep", (), "<ii"),
        ("linux_x86_64", "clock_nanosleep", (0, 0), "<qq"),
        ("linux_i386", "clock_nanosleep_time64", (1, 0), "<qq"),
    ],
)
def test_sleep_that_is_interrupted_tells_what_is_left(abi: str, name: str, first: tuple[int, ...], time: str) -> None:
    """EINTR and the rest of the time, for a caller that sleeps on (nanosleep(2))."""
    program = interruptible(abi)
    size = struct.calcsize(time)
    left = program.buffer(size)
    program.begin(name, *first, struct.pack(time, 3, 5), left)
    program.sleep(SECOND)

    program.type(b"\x03")

    assert program.reply.result == -4
    assert struct.unpack(time, program.memory.read(left, size)) == (2, 5)
    assert program.interception.deadline_ns() is None


@pytest.mark.parametrize(("flags", "left", "result"), [(1, 16, -4), (0, 0, -4), (0, BAD_ADDRESS, -14)])
def test_sleep_that_is_interrupted_may_have_nothing_to_tell(flags: int, left: int, result: int) -> None:
    """Until a point in time, with no place for the rest, or a bad one."""
    program = interruptible("linux_x86_64")
    address = program.buffer(left) if left == 16 else left
    program.begin("clock_nanosleep", 1, flags, struct.pack("<qq", 3, 0), address)

    program.type(b"\x03")

    assert program.reply.result == result
    assert not any(program.reply.outputs)


def interruptible(abi: str) -> Program:
    """A program with a handler for the interrupt key."""
    program = Program(abi)
    action = program.interception.system.layouts.sigaction.pack({"handler": 0x1234})
    assert program.call("rt_sigaction", 2, action, 0, 8) == 0
    return program


@pytest.mark.parametrize("time", [(0, 10**9), (0, -1), (-1, 0)])
def test_nanosleep_of_no_time_is_einval(time: tuple[int, int]) -> None:
    """As nanosleep(2) says."""
    assert Program().call("nanosleep", struct.pack("<qq", *time), 0) == -22


def test_clock_nanosleep_until_a_time_of_day() -> None:
    """TIMER_ABSTIME on the wall clock; one that has passed does not wait."""
    program = Program()
    at = divmod(WALL_NS + 3 * SECOND, SECOND)
    program.begin("clock_nanosleep", 0, 1, struct.pack("<qq", *at), 0)

    assert program.interception.deadline_ns() == 3 * SECOND
    program.sleep(3 * SECOND)
    assert program.call("clock_nanosleep", 0, 1, struct.pack("<qq", *at), 0) == 0
    assert program.call("clock_nanosleep", 3, 0, struct.pack("<qq", *at), 0) == -95


def test_poll_tells_what_is_ready_at_once() -> None:
    """The disk always, the terminal for output; a number that is not open is POLLNVAL, a negative one nothing."""
    program = Program(disk=Disk())
    fd = program.open_disk()
    entries = [poll_entry(fd, POLLIN), poll_entry(0, POLLIN | POLLOUT), poll_entry(77, POLLIN), poll_entry(-1, POLLIN)]
    address = program.memory.put(b"".join(entries))

    assert program.call("poll", address, 4, -1) == 3
    events = [struct.unpack_from("<h", program.memory.read(address, 32), at + 6)[0] for at in range(0, 32, 8)]
    assert events == [POLLIN, POLLOUT, POLLNVAL, 0]


def test_poll_waits_for_typing() -> None:
    """A line, that is."""
    program = Program()
    program.begin("poll", poll_entry(0, POLLIN), 1, -1)

    program.type(b"half")
    before = len(program.replies)
    program.type(b" done\n")

    assert (before, program.reply.result) == (0, 1)


def test_poll_ends_after_its_time() -> None:
    """With nothing."""
    program = Program()
    program.begin("poll", poll_entry(0, POLLIN), 1, 20)

    program.sleep(20_000_000)

    assert program.reply.result == 0


def test_poll_of_too_many_is_einval() -> None:
    """More than can be open; and the memory must be there."""
    program = Program()

    assert program.call("poll", poll_entry(0, POLLIN), 257, 0) == -22
    assert program.call("poll", 0, 1, 0) == -14
    assert program.call("poll", 0, 0, 0) == 0


def test_ppoll_takes_a_structure() -> None:
    """NULL is for ever."""
    program = Program()

    program.begin("ppoll", poll_entry(0, POLLIN), 1, struct.pack("<qq", 0, 5), 0, 8)
    program.sleep(5)
    program.begin("ppoll", poll_entry(0, POLLIN), 1, 0, 0, 8)

    assert program.reply.result == 0
    assert program.interception.deadline_ns() is None


@pytest.mark.parametrize(("abi", "name"), [("linux_x86_64", "select"), ("linux_i386", "_newselect")])
def test_select_returns_the_ready_sets(abi: str, name: str) -> None:
    """Bits of what is not ready go out; the third set is never ready."""
    program = Program(abi)
    null = program.call("openat", AT_FDCWD, "/dev/null", 0, 0)
    readable = program.memory.put((1 | 1 << null).to_bytes(128, "little"))
    writable = program.memory.put((2).to_bytes(128, "little"))

    assert program.call(name, null + 1, readable, writable, 0, 0) == 2
    assert program.memory.read(readable, 8) == (1 << null).to_bytes(8, "little")
    assert program.memory.read(writable, 8) == (2).to_bytes(8, "little")


def test_select_of_what_is_not_open_is_ebadf() -> None:
    """As select(2) says."""
    program = Program()

    assert program.call("select", 100, (1 << 50).to_bytes(128, "little"), 0, 0, 0) == -9
    assert program.call("select", -1, 0, 0, 0, 0) == -22


def test_select_sleeps_without_sets() -> None:
    """The portable sleep of old."""
    program = Program()
    program.begin("select", 0, 0, 0, 0, struct.pack("<qq", 0, 250))

    program.sleep(250_000)

    assert program.reply.result == 0
