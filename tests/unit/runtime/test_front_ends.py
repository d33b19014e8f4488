"""Kicks of a queue that runs, as the gateway's loop and its halt polling hear them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from iovirt_dist.runtime.front_ends import Kick
from iovirt_dist.transport.halt_poll import HaltPoll


class Told:
    """A queue's kicks at one end of an eventfd.

    Attributes:
        events: What was told.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.events: list[str] = []
        self.kick = Kick(fd, HaltPoll(), lambda: self.events.append("kicked"), lambda: self.events.append("gone"))


@pytest.fixture
def told() -> Iterator[Told]:
    """An eventfd that nobody has kicked."""
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield Told(fd)
    os.close(fd)


def test_kicks_since_the_last_look_are_one(told: Told) -> None:
    """The ring is looked at as a whole."""
    os.eventfd_write(told.fd, 1)
    os.eventfd_write(told.fd, 1)

    looks = [told.kick.drain_pending() for _ in range(2)]

    assert (looks, told.events) == ([True, False], ["kicked"])


def test_kick_that_wakes_the_loop_is_told(told: Told) -> None:
    """Polling begins behind it."""
    os.eventfd_write(told.fd, 1)

    told.kick.woken()

    assert told.events == ["kicked"]


def test_kicks_of_a_queue_at_rest_are_left_alone(told: Told) -> None:
    """Its descriptor may be another's by now."""
    os.eventfd_write(told.fd, 1)
    told.kick.closed = True

    assert not told.kick.drain_pending()
    assert told.events == []
    assert os.eventfd_read(told.fd) == 1


def test_end_of_what_kicks_is_told() -> None:
    """It would be readable for ever."""
    reading, writing = os.pipe()
    os.close(writing)
    told = Told(reading)

    assert not told.kick.drain_pending()

    os.close(reading)
    assert told.events == ["gone"]
