"""The console as programs use it: blocking, settings, backpressure, keys that send signals."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.abi.layouts import TERMIOS
from iovirt_dist.hypervisor.linux.line_discipline import ICANON, Key, Termios
from iovirt_dist.wire.syscall_messages import Disposition
from tests.unit.hypervisor.linux.program import AT_FDCWD, BAD_ADDRESS, Program

O_NONBLOCK = 0o4000
TCGETS, TCSETS, TCSETSF = 0x5401, 0x5402, 0x5404
SECOND = 1_000_000_000


def reading(program: Program, fd: int = 0, length: int = 100) -> int:
    """Begin a read; returns the buffer's address."""
    address = program.buffer(length)
    assert program.begin("read", fd, address, length)
    return address


def set_raw(program: Program, minimum: int, tenths: int) -> None:
    """Switch the terminal to raw mode with VMIN and VTIME."""
    default = Termios()
    characters = bytearray(default.characters)
    characters[Key.VMIN], characters[Key.VTIME] = minimum, tenths
    lflag = default.lflag & ~ICANON
    flags = {"iflag": default.iflag, "oflag": default.oflag, "cflag": default.cflag, "lflag": lflag}
    assert program.call("ioctl", 0, TCSETS, TERMIOS.pack({**flags, "characters": bytes(characters)})) == 0


def test_read_waits_for_a_line() -> None:
    """What is typed is shown at once and read when the line ends."""
    program = Program()
    address = reading(program)

    program.type(b"hel")
    before = list(program.replies)
    program.type(b"lo\r")

    assert before == []
    assert program.memory.read(address, program.reply.result) == b"hello\n"
    assert program.screen.shown == b"hello\r\n"


def test_read_without_blocking_is_eagain() -> None:
    """O_NONBLOCK is the open file's."""
    program = Program()
    fd = program.call("openat", AT_FDCWD, "/dev/tty", 2 | O_NONBLOCK, 0)

    assert program.call("read", fd, program.buffer(5), 5) == -11
    program.type(b"x\n")
    assert program.read(fd, 5) == b"x\n"


def test_end_of_file_is_read_once() -> None:
    """^D at the start of a line; the terminal goes on after it."""
    program = Program()
    reading(program)

    program.type(b"\x04")
    ended = program.reply.result
    program.type(b"more\n")

    assert ended == 0
    assert program.read(0, 10) == b"more\n"


def test_read_into_bad_buffer_is_efault_at_once() -> None:
    """It need not wait for a line to find out."""
    assert Program().call("read", 0, BAD_ADDRESS, 5) == -14


def test_write_waits_for_space() -> None:
    """Nothing is lost, and newlines are not torn apart."""
    program = Program()
    program.screen.left = 5
    program.begin("write", 1, b"one\ntwo\n", 8)
    before = list(program.replies)

    program.screen.left = 100
    program.interception.resume(0)
    program.collect()

    assert before == []
    assert program.reply.result == 8
    assert program.screen.shown == b"one\r\ntwo\r\n"


def test_write_without_blocking_takes_what_it_can() -> None:
    """What was taken is shown when there is space."""
    program = Program()
    fd = program.call("openat", AT_FDCWD, "/dev/tty", 1 | O_NONBLOCK, 0)
    program.screen.left = 3

    taken = program.call("write", fd, b"hello", 5)
    full = program.call("write", fd, b"more", 4)
    program.screen.left = 100
    program.interception.resume(0)

    assert (taken, full) == (5, -11)
    assert program.screen.shown == b"hello"


def test_write_stopped_by_flow_control_goes_on() -> None:
    """^S holds it, ^Q lets it go."""
    program = Program()
    program.type(b"\x13")
    program.begin("write", 1, b"hi\n", 3)
    held = program.screen.shown

    program.type(b"\x11")

    assert (held, program.screen.shown, program.reply.result) == (b"", b"hi\r\n", 3)


def test_write_without_a_terminal_vanishes() -> None:
    """As on a guest without a console."""
    program = Program(with_screen=False)

    assert program.call("write", 1, b"hello\n", 6) == 6


def test_long_write_is_whole() -> None:
    """In pieces, in order."""
    program = Program()
    text = b"0123456789abcdef" * 1000

    assert program.call("write", 1, text, len(text)) == len(text)
    assert program.screen.shown == text


def test_interrupt_key_ends_a_program_that_reads() -> None:
    """By signal 2; the echo shows it."""
    program = Program()
    reading(program)

    program.type(b"\x03")

    assert (program.reply.disposition, program.reply.result) == (Disposition.EXIT, -2)
    assert program.screen.shown == b"^C"


def test_interrupt_key_ends_a_program_at_its_next_call() -> None:
    """While it computes nobody can reach it."""
    program = Program()

    program.type(b"\x03")
    program.begin("getpid")

    assert program.reply.disposition is Disposition.EXIT


def test_interrupt_key_with_a_handler_is_eintr() -> None:
    """With a handler the call that waits ends; ignored, nothing happens."""
    program = Program()
    program.call("rt_sigaction", 2, struct.pack("<4Q", 0x1234, 0, 0, 0), 0, 8)
    reading(program)
    program.type(b"\x03")
    interrupted = program.reply.result
    program.call("rt_sigaction", 2, struct.pack("<4Q", 1, 0, 0, 0), 0, 8)
    reading(program)
    program.type(b"\x03")
    program.type(b"on\n")

    assert (interrupted, program.reply.result) == (-4, 3)


def test_interrupt_key_spares_one_whose_disk_is_late() -> None:
    """A handler's program is not interrupted in the middle of a transfer."""
    program = Program()
    program.call("rt_sigaction", 2, struct.pack("<4Q", 0x1234, 0, 0, 0), 0, 8)

    program.type(b"\x03")

    assert program.call("getpid") > 0


BLOCK_INTERRUPT, UNBLOCK_INTERRUPT = (0, struct.pack("<Q", 2), 0, 8), (1, struct.pack("<Q", 2), 0, 8)


def test_interrupt_key_that_is_blocked_waits() -> None:
    """Neither the read nor the program ends; unblocked, the program does."""
    program = Program()
    program.call("rt_sigprocmask", *BLOCK_INTERRUPT)
    reading(program)

    program.type(b"\x03")
    program.type(b"on\n")
    read = program.reply.result
    program.call("rt_sigprocmask", *UNBLOCK_INTERRUPT)

    assert read == 3
    assert (program.reply.disposition, program.reply.result) == (Disposition.EXIT, -2)


@pytest.mark.parametrize("computes", [False, True])
def test_interrupt_key_that_is_blocked_ends_a_wait_with_a_mask_of_its_own(computes: bool) -> None:
    """Which is there to let it through; with NULL for the mask it stays blocked."""
    program = Program()
    program.call("rt_sigprocmask", *BLOCK_INTERRUPT)
    mask = bytes(8)
    typed_before, typed_after = (b"\x03", b"") if computes else (b"", b"\x03")

    program.type(typed_before)
    assert program.call("ppoll", 0, 0, bytes(16), 0, 8) == 0
    program.begin("ppoll", 0, 0, 0, mask, 8)
    program.type(typed_after)

    assert (program.reply.disposition, program.reply.result) == (Disposition.EXIT, -2)


def test_settings_come_back_as_they_were_set() -> None:
    """Baud rate and all."""
    program = Program()
    settings = bytes(range(1, 37))
    address = program.buffer(36)

    program.call("ioctl", 0, TCSETS, settings)
    program.call("ioctl", 1, TCGETS, address)

    assert program.memory.read(address, 36) == settings[:16] + b"\0" + settings[17:]


def test_settings_of_a_new_terminal_are_canonical() -> None:
    """What isatty and stty look at."""
    program = Program()
    address = program.buffer(36)

    assert program.call("ioctl", 0, TCGETS, address) == 0
    assert struct.unpack_from("<4I", program.memory.read(address, 36)) == (0o42400, 0o5, 0o2277, 0o105073)


def test_setting_with_flush_forgets_input() -> None:
    """TCSETSF."""
    program = Program()
    address = program.buffer(36)
    program.call("ioctl", 0, TCGETS, address)
    program.type(b"old\n")

    program.call("ioctl", 0, TCSETSF, address)
    reading(program)

    assert program.reply.result == 0
    assert len(program.replies) == 2


def test_raw_read_waits_for_vmin_bytes() -> None:
    """Not for a line."""
    program = Program()
    set_raw(program, 3, 0)
    reading(program)

    program.type(b"ab")
    before = len(program.replies)
    program.type(b"c")

    assert (before, program.reply.result) == (1, 3)


def test_raw_read_with_vtime_ends_without_input() -> None:
    """VMIN 0: after so many tenths of a second, with nothing."""
    program = Program()
    set_raw(program, 0, 5)
    reading(program)

    deadline = program.interception.deadline_ns()
    program.sleep(SECOND // 2)

    assert (deadline, program.reply.result) == (SECOND // 2, 0)


def test_raw_read_with_both_waits_between_bytes() -> None:
    """The time runs from the last byte, and not before the first one."""
    program = Program()
    set_raw(program, 10, 2)
    reading(program)
    idle = program.interception.deadline_ns()

    program.now_ns = SECOND
    program.type(b"a")
    program.sleep(SECOND // 10)
    program.type(b"b")
    deadline = program.interception.deadline_ns()
    program.sleep(SECOND // 5)

    assert (idle, deadline, program.reply.result) == (None, SECOND + SECOND * 3 // 10, 2)


def test_raw_read_that_waits_for_nothing_returns() -> None:
    """VMIN and VTIME 0."""
    program = Program()
    set_raw(program, 0, 0)

    assert program.read(0, 10) == b""


def test_window_size_can_be_asked_and_set() -> None:
    """24 by 80 at first."""
    program = Program()
    address = program.buffer(8)

    program.call("ioctl", 1, 0x5413, address)
    first = struct.unpack("<4H", program.memory.read(address, 8))
    program.call("ioctl", 1, 0x5414, struct.pack("<4H", 50, 132, 0, 0))
    program.call("ioctl", 1, 0x5413, address)

    assert first == (24, 80, 0, 0)
    assert struct.unpack("<4H", program.memory.read(address, 8)) == (50, 132, 0, 0)


def test_other_terminal_ioctls() -> None:
    """Process group, bytes that wait, flush, break; what there is not is ENOTTY."""
    program = Program()
    address = program.buffer(4)
    program.type(b"abc\n")

    assert program.call("ioctl", 0, 0x541B, address) == 0
    waiting = program.memory.read(address, 4)
    assert program.call("ioctl", 0, 0x540B, 0) == 0
    assert program.call("ioctl", 0, 0x541B, address) == 0
    assert (waiting[0], program.memory.read(address, 4)[0]) == (4, 0)
    assert program.call("ioctl", 0, 0x540F, address) == 0
    assert int.from_bytes(program.memory.read(address, 4), "little") == program.call("getpid")
    assert program.call("ioctl", 0, 0x5410, (77).to_bytes(4, "little")) == 0
    assert program.call("ioctl", 0, 0x5409, 0) == 0
    assert program.call("ioctl", 0, 0x5422, 0) == -25
