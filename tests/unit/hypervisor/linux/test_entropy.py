"""Randomness: getrandom and the device files, on a source that gives what it likes."""

from __future__ import annotations

from iovirt_dist.wire.commands import Status
from tests.unit.hypervisor.linux.program import AT_FDCWD, Program, Source


def test_getrandom_asks_until_it_has_enough() -> None:
    """The source gives ten bytes at a time."""
    program = Program(source=Source(most=10))
    address = program.buffer(25)

    assert program.call("getrandom", address, 25, 0) == 25
    assert program.memory.read(address, 25) == bytes(range(25))


def test_getrandom_without_a_source_fails() -> None:
    """EAGAIN for a caller that would not wait; a C library then does without."""
    program = Program()

    assert program.call("getrandom", program.buffer(8), 8, 1) == -11
    assert program.call("getrandom", program.buffer(8), 8, 0) == -38
    assert program.call("getrandom", program.buffer(8), 8, 64) == -22


def test_urandom_gives_all_that_is_asked_for() -> None:
    """Read of more than one request brings."""
    program = Program(source=Source())
    fd = program.call("openat", AT_FDCWD, "/dev/urandom", 0, 0)

    assert len(program.read(fd, 100_000)) == 100_000


def test_hwrng_gives_one_request_at_most() -> None:
    """A short read is allowed there."""
    program = Program(source=Source())
    fd = program.call("openat", AT_FDCWD, "/dev/hwrng", 0, 0)

    assert len(program.read(fd, 100_000)) == 65536


def test_device_files_are_missing_without_a_source() -> None:
    """Nothing pretends to be random."""
    program = Program()

    assert program.call("openat", AT_FDCWD, "/dev/hwrng", 0, 0) == -2
    assert program.call("openat", AT_FDCWD, "/dev/urandom", 0, 0) == -2


def test_source_that_gives_nothing_is_an_error() -> None:
    """Success without bytes would be asked for again for ever."""
    program = Program(source=Source())
    program.begin("getrandom", program.buffer(8), 8, 0)
    assert program.source is not None
    tag, _ = program.source.waiting.popleft()

    program.interception.supply(tag, Status.OK, b"", 0)
    program.collect()

    assert program.reply.result == -5


def test_source_that_gives_too_much_is_cut() -> None:
    """A backend is a peer, too."""
    program = Program(source=Source())
    address = program.buffer(10)
    program.begin("getrandom", address, 4, 0)
    assert program.source is not None
    tag, _ = program.source.waiting.popleft()

    program.interception.supply(tag, Status.OK, b"abcdefgh", 0)
    program.collect()

    assert program.memory.read(address, 6) == b"abcd\xee\xee"
