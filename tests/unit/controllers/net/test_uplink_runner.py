"""Hands of an uplink, on an interface that is a list and a loop that is stepped."""

from __future__ import annotations

import errno
import logging
from collections import deque
from collections.abc import Callable

import pytest

from iovirt_dist.controllers.net.runner import NetRunner
from iovirt_dist.controllers.net.uplink import SendUplink, UplinkChanged, UplinkDropped, UplinkEvent, UplinkReceived
from iovirt_dist.controllers.net.uplink_runner import BATCH_FRAMES, RETRY_S, Uplink
from iovirt_dist.errors import EndpointError
from tests.unit.controllers.net.support import A, frame

FRAME = frame(A)


class Interface:
    """An interface without a kernel.

    Attributes:
        incoming: What `read` gives, an error number among the frames is raised.
        written: What was written.
        refusal: Error number that `write` raises, 0 for none.
        closed: Whether it is.
    """

    name = "tap0"

    def __init__(self, fd: int = 7) -> None:
        self.incoming: deque[bytes | int] = deque()
        self.written: list[bytes] = []
        self.refusal = 0
        self.closed = False
        self._fd = fd

    def read(self) -> bytes | None:
        """Give the next one."""
        found = self.incoming.popleft() if self.incoming else None
        if isinstance(found, int):
            raise OSError(found, "gone")
        return found

    def write(self, frame: bytes) -> None:
        """Take it, or refuse."""
        if self.refusal:
            raise OSError(self.refusal, "refused")
        self.written.append(frame)

    def fileno(self) -> int:
        """A number."""
        return self._fd

    def close(self) -> None:
        """Note it."""
        self.closed = True


class Loop:
    """A loop that does nothing by itself.

    Attributes:
        readers: Callbacks by descriptor.
        later: Calls that wait: seconds and callback.
    """

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self.later: list[tuple[float, Callable[[], None]]] = []

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> None:
        """Keep it."""
        self.readers[fd] = callback

    def remove_reader(self, fd: int, /) -> None:
        """Forget it."""
        del self.readers[fd]

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Loop:
        """Keep it; the loop itself is what can be cancelled."""
        self.later.append((delay, callback))
        return self

    def cancel(self) -> None:
        """Forget all that waits."""
        self.later.clear()


class Bench:
    """An uplink with everything around it.

    Attributes:
        spare: Interfaces that will be there when it is looked for again; None for a failure.
        events: What was delivered.
    """

    def __init__(self) -> None:
        self.interface = Interface()
        self.loop = Loop()
        self.spare: deque[Interface | None] = deque()
        self.events: list[UplinkEvent] = []
        self.uplink = Uplink(self.interface, self._reopen, self.events.append, self.loop)

    def _reopen(self) -> Interface:
        interface = self.spare.popleft()
        if interface is None:
            raise EndpointError("there is no such interface", "uplink tap0")
        return interface


def test_uplink_reads_until_nothing_is_there() -> None:
    """All that is there is one event."""
    bench = Bench()
    bench.interface.incoming += [FRAME, FRAME]

    bench.loop.readers[7]()

    assert bench.events == [UplinkReceived([FRAME, FRAME])]


def test_uplink_reads_a_batch_at_most() -> None:
    """The rest makes the descriptor readable again, after the others had their turn."""
    bench = Bench()
    bench.interface.incoming += [FRAME] * (BATCH_FRAMES + 1)

    bench.loop.readers[7]()
    bench.loop.readers[7]()

    assert bench.events == [UplinkReceived([FRAME] * BATCH_FRAMES), UplinkReceived([FRAME])]


def test_uplink_woken_for_nothing_says_nothing() -> None:
    """A frame may have been dropped by the kernel meanwhile."""
    bench = Bench()

    bench.loop.readers[7]()

    assert bench.events == []


def test_runner_writes_frames_in_order_without_an_outcome() -> None:
    """There is nothing to tell of frames that were taken."""
    bench = Bench()
    runner = NetRunner(0, uplink=bench.uplink)

    outcome = runner.perform(SendUplink([FRAME, frame(A, payload=b"2")]))

    assert outcome is None
    assert bench.interface.written == [FRAME, frame(A, payload=b"2")]


@pytest.mark.parametrize(("number", "lines"), [(errno.EAGAIN, 0), (errno.EIO, 1), (errno.EBADFD, 0)])
def test_uplink_that_refuses_drops_and_says_why_once(caplog: pytest.LogCaptureFixture, number: int, lines: int) -> None:
    """A full queue is nothing to say, a link that is set down is; of one that is gone the reader tells."""
    bench = Bench()
    bench.interface.refusal = number

    with caplog.at_level(logging.WARNING):
        outcomes = [bench.uplink.send([FRAME, FRAME]), bench.uplink.send([FRAME])]

    assert outcomes == [UplinkDropped(2), UplinkDropped(1)]
    assert len(caplog.records) == lines


def test_uplink_that_refuses_again_after_it_took_frames_says_so_again(caplog: pytest.LogCaptureFixture) -> None:
    """It was set down a second time."""
    bench = Bench()

    with caplog.at_level(logging.WARNING):
        for refusal in (errno.EIO, 0, errno.EIO):
            bench.interface.refusal = refusal
            bench.uplink.send([FRAME])

    assert [record.getMessage() for record in caplog.records] == [
        "uplink tap0 takes no frames: it is down: ip link set tap0 up"
    ] * 2


def test_uplink_that_was_taken_away_is_looked_for_until_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    """Frames that came before are delivered, those for it meanwhile dropped."""
    bench = Bench()
    back = Interface(9)
    bench.spare += [None, back]
    bench.interface.incoming += [FRAME, errno.EBADFD]

    with caplog.at_level(logging.ERROR):
        bench.loop.readers[7]()
    meanwhile = bench.uplink.send([FRAME])
    [(first_s, first)] = bench.loop.later
    first()
    bench.loop.later[-1][1]()
    afterwards = bench.uplink.send([FRAME])

    assert bench.events == [UplinkReceived([FRAME]), UplinkChanged(False), UplinkChanged(True)]
    assert (meanwhile, afterwards, back.written) == (UplinkDropped(1), None, [FRAME])
    assert (first_s, bench.interface.closed, list(bench.loop.readers)) == (RETRY_S, True, [9])
    assert len(caplog.records) == 1


def test_uplink_closes_its_interface() -> None:
    """With the runner."""
    bench = Bench()

    NetRunner(0, uplink=bench.uplink).close()

    assert bench.interface.closed
    assert bench.loop.readers == {}


def test_uplink_closed_while_it_looks_for_its_interface_looks_no_more() -> None:
    """No call is left behind."""
    bench = Bench()
    bench.interface.incoming.append(errno.EBADFD)
    bench.loop.readers[7]()

    bench.uplink.close()

    assert bench.loop.later == []
