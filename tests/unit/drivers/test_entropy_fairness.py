"""Guests of one hypervisor share an entropy controller by bytes."""

from __future__ import annotations

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import Request
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status, UnitIdentity
from tests.unit.drivers.support import Controller

LARGE, SMALL = 65536, 32
CREDITS = 64
SOURCE = UnitIdentity(0, 1, False, "entropy")


class Guest:
    """Asks for so much again as soon as it got it.

    Args:
        pair: Way to the controller.
        number: Instance number.
        length: What it asks for.
    """

    def __init__(self, pair: QueuePair, number: int, length: int) -> None:
        self.got = 0
        self.length = length
        self._queue = pair.device_queue("", number, 5, self)

    def ask(self, times: int = 1) -> None:
        """Ask."""
        for _ in range(times):
            self._queue.submit(0, Opcode.ENTROPY_GET, 0, self.length)

    def completed(self, request: Request, status: Status, data: Buffer, now_ns: int) -> None:
        """Count, and ask again."""
        self.got += 1
        self.ask()


def test_guest_that_asks_for_much_without_end_starves_nobody() -> None:
    """Before its first one there is what was in flight already, before each that follows four of 64 KiB."""
    pair = QueuePair("rng0", MultiQueue())
    for number, name in ((1, "greedy"), (2, "modest")):
        pair.queue.enroll(number, name)
    greedy, modest = Guest(pair, 1, LARGE), Guest(pair, 2, SMALL)
    controller = Controller(pair, {"": SOURCE}, CREDITS)
    pair.use("")
    controller.open()
    greedy.ask(256)
    controller.take()
    while greedy.got < 256:
        controller.complete(controller.commands[0])
        controller.take()

    modest.ask()
    before = greedy.got
    while modest.got < 50:
        controller.take()
        controller.complete(controller.commands[0])

    assert 49 <= greedy.got - before <= CREDITS + 49 * 5
