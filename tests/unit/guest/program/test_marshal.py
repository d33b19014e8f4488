"""Gathering what a call reads and scattering what it writes."""

from __future__ import annotations

import struct

import pytest

from iovirt_dist.abi.table import (
    MAX_BUFFER_BYTES,
    MAX_STRING_BYTES,
    Abi,
    Call,
    buffer_in,
    buffer_in_out,
    buffer_out,
    fd,
    string,
    value,
    vector_in,
    vector_out,
)
from iovirt_dist.guest.program.marshal import Gathered, Marshaller, Span, scatter
from iovirt_dist.wire.syscall_messages import BAD_POINTER, NULL_POINTER
from tests.unit.guest.program.memory import PAGE, Pages

READ, WRITE, OPEN, STAT, BOTH, READV, WRITEV, IOCTL, POLL = range(1, 10)
CALLS = (
    Call(READ, "read", (fd(), buffer_out("buffer", length=2), value("count"))),
    Call(WRITE, "write", (fd(), buffer_in("buffer", length=2), value("count"))),
    Call(OPEN, "open", (string("path"), value("flags"))),
    Call(STAT, "stat", (string("path"), buffer_out("stat", 16))),
    Call(BOTH, "both", (buffer_in_out("value", 8), buffer_in("other", 4))),
    Call(READV, "readv", (fd(), vector_out("vector", 2), value("count"))),
    Call(WRITEV, "writev", (fd(), vector_in("vector", 2), value("count"))),
    Call(IOCTL, "ioctl", (fd(), value("request"), value("argument")), 1, {5: (fd(), value("r"), buffer_out("a", 8))}),
    Call(POLL, "poll", (buffer_in_out("fds", 8, 1), value("count"))),
)
ABI = Abi("test", 8, 0, 1 << 47, {call.number: call for call in CALLS}, {})
WIDE = Marshaller(ABI)
NARROW = Marshaller(Abi("narrow", 4, 0, 1 << 31, ABI.calls, {}))
BASE = 16 * PAGE
NOWHERE = 100 * PAGE


def pages() -> Pages:
    """Two pages to write, one behind them to read, then nothing."""
    return Pages({16, 17}, {18})


def gather(call: int, *arguments: int, memory: Pages | None = None, marshaller: Marshaller = WIDE) -> Gathered:
    """Gather with the remaining registers zero."""
    registers = (*arguments, *(0,) * (6 - len(arguments)))
    return marshaller.gather(call, registers, memory or pages())


def test_call_that_is_not_declared_travels_with_registers_only() -> None:
    """Nothing is known of its pointers."""
    assert gather(77, BASE, 2) == Gathered((BASE, 2, 0, 0, 0, 0))


def test_buffer_that_is_read_travels() -> None:
    """As many bytes as the count says."""
    memory = pages()
    memory.put(BASE, b"hello")
    assert gather(WRITE, 1, BASE, 4, memory=memory)[1:] == ((4,), b"hell", ((),))


def test_buffer_that_is_written_is_remembered() -> None:
    """Nothing travels but its length."""
    assert gather(READ, 1, BASE + 5, 100)[1:] == ((100,), b"", ((Span(BASE + 5, 100),),))


@pytest.mark.parametrize(
    ("call", "address", "count", "expected"),
    [
        (READ, 0, 10, NULL_POINTER),
        (READ, NOWHERE, 10, BAD_POINTER),
        (READ, NOWHERE, 0, 0),
        (READ, 18 * PAGE, 10, BAD_POINTER),
        (WRITE, 18 * PAGE, 10, 10),
        (READ, 18 * PAGE - 4, 10, 4),
        (WRITE, 19 * PAGE - 4, 10, 4),
        (READ, BASE, (1 << 64) - 1, 2 * PAGE),
        (READ, (1 << 64) - 1, 10, BAD_POINTER),
    ],
)
def test_buffer_with_a_count_is_cut_where_access_ends(call: int, address: int, count: int, expected: int) -> None:
    """Bad only if the first byte is; a length of 0 touches nothing."""
    assert gather(call, 1, address, count).buffers == (expected,)


def test_buffer_never_exceeds_the_limit() -> None:
    """Four MiB travel at most."""
    memory = Pages(set())
    memory.accessible = lambda address, length, *, write: length  # type: ignore[method-assign] # all is accessible
    assert gather(READ, 1, BASE, 1 << 40, memory=memory).buffers == (MAX_BUFFER_BYTES,)


def test_structure_is_all_or_nothing() -> None:
    """A fixed size that crosses into a page that cannot be written is bad."""
    memory = pages()
    memory.put(BASE, b"/x\0")
    assert gather(STAT, BASE, 18 * PAGE - 16, memory=memory).buffers == (2, 16)
    assert gather(STAT, BASE, 18 * PAGE - 15, memory=memory).buffers == (2, BAD_POINTER)


def test_structure_read_and_written_travels_and_comes_back() -> None:
    """Two pointers: their data one after the other."""
    memory = pages()
    memory.put(BASE, b"abcdefgh1234")
    found = gather(BOTH, BASE, BASE + 8, memory=memory)
    assert found[1:] == ((8, 4), b"abcdefgh1234", ((Span(BASE, 8),), ()))


def test_structure_read_and_written_needs_both_rights() -> None:
    """Read-only memory is bad for it."""
    assert gather(BOTH, 18 * PAGE, 18 * PAGE).buffers == (BAD_POINTER, 4)


def test_array_of_structures_has_count_times_size() -> None:
    """Poll with three entries; what does not fit is cut."""
    assert gather(POLL, BASE, 3).buffers == (24,)
    assert gather(POLL, BASE, 1 << 60).buffers == (2 * PAGE,)


def test_selector_decides_what_an_argument_is() -> None:
    """An ioctl with a structure, and one without."""
    assert gather(IOCTL, 1, 5, BASE).buffers == (8,)
    assert gather(IOCTL, 1, 6, BASE).buffers == ()


def test_string_travels_without_its_end() -> None:
    """Across a page border, and up to the last byte that can be read."""
    memory = pages()
    memory.put(17 * PAGE - 3, b"/dev/vda\0junk")
    memory.put(19 * PAGE - 2, b"x\0")
    assert gather(OPEN, 17 * PAGE - 3, memory=memory)[1:3] == ((8,), b"/dev/vda")
    assert gather(OPEN, 19 * PAGE - 2, memory=memory)[1:3] == ((1,), b"x")
    assert gather(OPEN, BASE, memory=memory)[1:3] == ((0,), b"")


def test_string_without_end_is_bad_or_cut() -> None:
    """Into a page that cannot be read: bad; longer than PATH_MAX: as long as that."""
    memory = pages()
    memory.put(BASE, b"a" * (3 * PAGE))
    assert gather(OPEN, 19 * PAGE - 10, memory=memory).buffers == (BAD_POINTER,)
    assert gather(OPEN, BASE, memory=memory).buffers == (MAX_STRING_BYTES,)


@pytest.mark.parametrize(("marshaller", "word"), [(WIDE, "Q"), (NARROW, "I")])
def test_vector_is_flattened(marshaller: Marshaller, word: str) -> None:
    """Two segments: one buffer on the wire, in words of the ABI."""
    memory = pages()
    memory.put(BASE, struct.pack(f"<4{word}", BASE + 100, 2, BASE + 200, 3))
    memory.put(BASE + 100, b"ab")
    memory.put(BASE + 200, b"cde")
    assert gather(WRITEV, 1, BASE, 2, memory=memory, marshaller=marshaller)[1:] == ((5,), b"abcde", ((),))
    found = gather(READV, 1, BASE, 2, memory=memory, marshaller=marshaller)
    assert found[1:] == ((5,), b"", ((Span(BASE + 100, 2), Span(BASE + 200, 3)),))


def test_vector_ends_at_the_first_bad_segment() -> None:
    """What lies before it is transferred; if nothing does, the pointer is bad."""
    memory = pages()
    memory.put(BASE, struct.pack("<6Q", BASE + 100, 2, NOWHERE, 3, BASE + 200, 4))
    assert gather(WRITEV, 1, BASE, 3, memory=memory).buffers == (2,)
    assert gather(WRITEV, 1, BASE + 16, 2, memory=memory).buffers == (BAD_POINTER,)
    assert gather(WRITEV, 1, NOWHERE, 1, memory=memory).buffers == (BAD_POINTER,)


def test_vector_with_empty_segments_or_a_bad_count_is_empty() -> None:
    """A segment of length 0 may point anywhere; more than IOV_MAX entries are the call's error, not ours."""
    memory = pages()
    memory.put(BASE, struct.pack("<2Q", NOWHERE, 0))
    assert gather(WRITEV, 1, BASE, 1, memory=memory)[1:3] == ((0,), b"")
    assert gather(WRITEV, 1, BASE, 0, memory=memory).buffers == (0,)
    assert gather(WRITEV, 1, BASE, 1025, memory=memory).buffers == (0,)


def test_scatter_fills_targets_in_order() -> None:
    """Outputs follow each other in the data; a vector's are spread over its segments."""
    memory = pages()
    targets = ((), (Span(BASE, 2), Span(BASE + 10, 5)), (Span(BASE + 20, 4),))
    scatter(Gathered((), (1, 7, 4), b"", targets), (0, 4, 2), b"abcdef", memory)
    assert memory.read(BASE, 24) == b"ab" + bytes(8) + b"cd" + bytes(8) + b"ef" + bytes(2)


def test_scatter_of_more_than_the_targets_hold_is_cut() -> None:
    """The hypervisor cannot write where the call may not, nor with data that it did not send."""
    memory = pages()
    gathered = Gathered((), (2, 2), b"", ((Span(BASE, 2),), (Span(BASE + 4, 2),)))
    scatter(gathered, (5, 9, 7), b"abcdefg", memory)
    assert (memory.read(BASE, 8), memory.written) == (b"ab\0\0fg\0\0", 4)
