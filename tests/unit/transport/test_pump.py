"""Draining a real socket into a real loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from iovirt_dist.transport import zeromq
from iovirt_dist.transport.halt_poll import HaltPoll
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.transport.pump import attach
from iovirt_dist.transport.zeromq import ZeromqPort
from iovirt_dist.wire.codec import Buffer

PATIENCE_S = 10.0


@pytest.fixture
def ports(tmp_path: Path) -> Iterator[tuple[ZeromqPort, ZeromqPort]]:
    """A listener and a dialler on ipc."""
    endpoint = f"ipc://{tmp_path}/run/a.sock"
    pair = zeromq.listen(endpoint), zeromq.dial(endpoint)
    yield pair
    for port in pair:
        port.close()


def until(condition: Callable[[], bool]) -> bool:
    """Whether the condition comes true in time."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not (done := condition()) and time.monotonic() < deadline_s:
        time.sleep(0.002)
    return done


async def test_every_message_is_handed_over_in_order(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """Bursts around the batch size lose no edge."""
    listener, dialler = ports
    loop = asyncio.get_running_loop()
    seen: list[bytes] = []
    done = asyncio.Event()

    def on_frames(peer: bytes, frames: list[Buffer]) -> None:
        seen.append(bytes(frames[0]))
        if len(seen) == 1000:
            done.set()

    pump = attach(loop, listener, on_frames, batch=64)
    for number in range(1000):
        dialler.send(ONLY_PEER, [str(number).encode()])
    await asyncio.wait_for(done.wait(), PATIENCE_S)
    pump.close()
    assert seen == [str(number).encode() for number in range(1000)]


async def test_replies_sent_from_the_callback_keep_both_sides_going(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """A send may consume the edge of a message that has just come: three thousand turns of ping-pong do not stop."""
    listener, dialler = ports
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    count = 0

    def turn(peer: bytes, frames: list[Buffer]) -> None:
        nonlocal count
        count += 1
        dialler.send(ONLY_PEER, frames)
        if count == 3000:
            done.set()

    pumps = [attach(loop, listener, listener.send), attach(loop, dialler, turn)]
    for _ in range(4):
        dialler.send(ONLY_PEER, [b"ball"])
    pumps[1].kick()
    await asyncio.wait_for(done.wait(), PATIENCE_S)
    for pump in pumps:
        pump.close()


async def test_other_callbacks_get_their_turn_between_batches(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """A busy peer does not starve the loop."""
    listener, dialler = ports
    loop = asyncio.get_running_loop()
    batches: list[int] = []
    seen = 0
    for _ in range(100):
        dialler.send(ONLY_PEER, [b"x"])
    dialler.send(ONLY_PEER, [b"last"])
    done = asyncio.Event()

    def on_frames(peer: bytes, frames: list[Buffer]) -> None:
        nonlocal seen
        seen += 1
        if frames[0] == b"last":
            done.set()

    pump = attach(loop, listener, on_frames, lambda: batches.append(seen), batch=8)
    await asyncio.wait_for(done.wait(), PATIENCE_S)
    pump.close()
    assert max(later - earlier for earlier, later in zip([0, *batches], batches, strict=False)) <= 8


async def test_error_in_the_callback_does_not_lose_the_rest(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """The loop reports the error; what came after it is handed over in the next turn."""
    listener, dialler = ports
    loop = asyncio.get_running_loop()
    reported: list[str] = []
    loop.set_exception_handler(lambda _, context: reported.append(str(context["exception"])))
    for frame in (b"bad", b"good"):
        dialler.send(ONLY_PEER, [frame])
    assert until(listener.pending)
    done = asyncio.Event()

    def on_frames(peer: bytes, frames: list[Buffer]) -> None:
        if frames[0] == b"bad":
            raise ValueError("bad")
        done.set()

    pump = attach(loop, listener, on_frames)
    await asyncio.wait_for(done.wait(), PATIENCE_S)
    pump.close()
    assert reported == ["bad"]


async def test_closed_pump_hands_nothing_over(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """After close, in a callback or outside, the port is left alone."""
    listener, dialler = ports
    loop = asyncio.get_running_loop()
    seen: list[Buffer] = []

    def on_frames(peer: bytes, frames: list[Buffer]) -> None:
        seen.append(frames[0])
        pump.close()

    pump = attach(loop, listener, on_frames)
    for _ in range(3):
        dialler.send(ONLY_PEER, [b"x"])
    assert until(listener.pending)
    for _ in range(5):
        await asyncio.sleep(0)
    pump.kick()
    await asyncio.sleep(0)
    assert seen == [b"x"]
    pump.close()


async def test_pumps_that_poll_before_sleep_lose_nothing(ports: tuple[ZeromqPort, ZeromqPort]) -> None:
    """Two sockets of one thread that answer each other, with timers in between."""
    listener, dialler = ports
    loop = asyncio.get_running_loop()
    halt_poll = HaltPoll()
    left = 2000
    ticks = 0
    done = asyncio.Event()

    def on_request(peer: bytes, frames: list[Buffer]) -> None:
        listener.send(peer, frames)

    def on_reply(_: bytes, frames: list[Buffer]) -> None:
        nonlocal left
        left -= 1
        if left:
            dialler.send(ONLY_PEER, frames)
        else:
            done.set()

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        loop.call_later(0.01, tick)

    pumps = [
        attach(loop, listener, on_request, halt_poll=halt_poll),
        attach(loop, dialler, on_reply, halt_poll=halt_poll),
    ]
    tick()
    dialler.send(ONLY_PEER, [b"x"])
    for pump in pumps:
        pump.kick()
    await asyncio.wait_for(done.wait(), PATIENCE_S)
    for pump in pumps:
        pump.close()

    assert left == 0
    assert ticks > 1
    assert not pumps[0].drain_pending()
