"""Kicks and calls."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from iovirt_dist.gateway.vhost_user.events import EventGoneError, read_eventfd, signal_eventfd, write_request


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is opened is closed."""
    with ExitStack() as stack:
        yield stack


def event(stack: ExitStack, flags: int = 0) -> int:
    """Make an eventfd, which waits when it is read."""
    fd = os.eventfd(0, flags)
    stack.callback(os.close, fd)
    return fd


def pipe(stack: ExitStack) -> tuple[int, int]:
    """Make a pipe."""
    ends = os.pipe()
    for end in ends:
        stack.callback(os.close, end)
    return ends


def test_eventfd_signalled_is_read_once(stack: ExitStack) -> None:
    """However often it was signalled."""
    fd = event(stack, os.EFD_NONBLOCK)

    assert [signal_eventfd(fd), signal_eventfd(fd)] == [True, True]
    assert [read_eventfd(fd), read_eventfd(fd)] == [True, False]


def test_pipe_signalled_is_read_once(stack: ExitStack) -> None:
    """As User-Mode Linux has it for calls."""
    reading, writing = pipe(stack)
    os.set_blocking(reading, False)

    assert [signal_eventfd(writing), signal_eventfd(writing)] == [True, True]
    assert [read_eventfd(reading), read_eventfd(reading)] == [True, False]


def test_socket_signalled_is_read_once(stack: ExitStack) -> None:
    """No front end has one, but it is an event."""
    near, far = (stack.enter_context(end) for end in socket.socketpair())
    near.setblocking(False)

    assert signal_eventfd(far.fileno())
    assert [read_eventfd(near.fileno()), read_eventfd(near.fileno())] == [True, False]


def test_full_eventfd_is_signalled_already(stack: ExitStack) -> None:
    """Nothing waits until there is room."""
    fd = event(stack, os.EFD_NONBLOCK)
    os.eventfd_write(fd, (1 << 64) - 2)

    assert signal_eventfd(fd)


def test_full_pipe_is_signalled_already(stack: ExitStack) -> None:
    """As above."""
    _, writing = pipe(stack)
    os.set_blocking(writing, False)

    assert all(signal_eventfd(writing) for _ in range(10_000))


def test_read_at_the_end_of_a_pipe_raises(stack: ExitStack) -> None:
    """It would be readable for ever."""
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    os.close(writing)

    with pytest.raises(EventGoneError):
        read_eventfd(reading)


def test_read_of_what_cannot_be_read_raises(stack: ExitStack) -> None:
    """The wrong end, and no descriptor at all."""
    _, writing = pipe(stack)

    with pytest.raises(EventGoneError):
        read_eventfd(writing)
    with pytest.raises(EventGoneError):
        read_eventfd(1 << 20)


def test_signal_of_what_cannot_be_signalled_says_so(stack: ExitStack) -> None:
    """The wrong end, a closed other end, and no descriptor at all."""
    reading, _ = pipe(stack)
    other, writing = os.pipe()
    stack.callback(os.close, writing)
    os.close(other)

    assert [signal_eventfd(reading), signal_eventfd(writing), signal_eventfd(1 << 20)] == [False] * 3


def test_read_where_the_kernel_knows_no_flag_is_the_same(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older kernels refuse RWF_NOWAIT for eventfds and pipes."""

    def refuse(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "preadv", refuse)
    fd = event(stack, os.EFD_NONBLOCK)
    signal_eventfd(fd)

    assert [read_eventfd(fd), read_eventfd(fd)] == [True, False]
    with pytest.raises(EventGoneError):
        read_eventfd(1 << 20)


def test_write_request_needs_room(stack: ExitStack) -> None:
    """All of it, or it is lost; whether a socket or a pipe."""
    reading, writing = pipe(stack)
    os.set_blocking(writing, False)

    assert write_request(writing, b"request")
    assert os.read(reading, 99) == b"request"
    assert not write_request(reading, b"request")
    assert not all(write_request(writing, bytes(100)) for _ in range(1000))
