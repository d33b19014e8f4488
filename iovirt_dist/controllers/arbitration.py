"""Which hypervisor's commands a controller takes next: round robin between queue pairs, weighted, a burst at a time.

Theory of operation. As with NVMe's weighted round robin (NVM Express Base Specification 2.0, section 3.4.4.2, "Weighted
Round Robin with Urgent Priority Class Arbitration") a queue pair is served by its weight, and a turn has at most a
burst of commands (Arbitration Burst, section 3.4.4.1, "Round Robin Arbitration"). NVMe counts commands; here they
have a cost, so that who sends large ones does not get more of the device: `COMMAND_COST` and a byte's worth for each
byte. A turn also ends once it has moved as much as a burst of small commands costs.

Rather than to count credits that are handed out anew in each round, a pair has an account: the cost of what was taken
from it, divided by its weight. The least account is next; of equal ones, who has waited longest. This is start-time
fair queueing (P. Goyal, H. Vin and H. Cheng, "Start-Time Fair Queueing", IEEE/ACM Transactions on Networking 5(5),
1997): while two pairs wait, their accounts differ by no more than a turn of each, however large commands are and
however few at a time the device takes; with equal weights and commands it is plain round robin. A pair that was idle
enters at the account of the one that was served last, and so has saved nothing up; what it had overdrawn it still owes,
until nobody waits any more. Whoever is alone takes all the room there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from heapq import heappop, heappush, heapreplace
from typing import Final

from iovirt_dist.controllers.peer_queues import OutstandingCommand, PeerQueues
from iovirt_dist.wire.commands import MAX_DATA_BYTES

COMMAND_COST: Final = 4096
"""A command costs as much as so many bytes, beside its own: what it takes a controller to look at it."""

MAX_WEIGHT: Final = 255
"""Largest weight: NVMe's is a byte, too (section 5.27.1.1, "Arbitration")."""

UNLIMITED: Final = 1 << 62
"""Room without a bound."""

_SCALE: Final = 1 << 24
"""Account units of a byte at weight 1: a weight's reciprocal is right to the hundred-thousandth."""


class Arbiter:
    """The queue pairs that have commands waiting.

    Args:
        burst: Most commands of a turn while others wait.
    """

    def __init__(self, burst: int) -> None:
        self._burst = burst
        self._turn_bytes = burst * COMMAND_COST
        self._weights: Mapping[str, int] = {}
        self._ready: list[tuple[int, int, PeerQueues]] = []
        self._entered = 0
        self._served = 0
        self._latest = 0

    def __bool__(self) -> bool:
        """Whether commands wait."""
        return bool(self._ready)

    def set_weights(self, weights: Mapping[str, int]) -> None:
        """Set weights by peer, 1..255; a peer without has 1. They hold for what is taken from now on."""
        self._weights = dict(weights)
        for _, _, queues in self._ready:
            queues.share = _SCALE // self.weight(queues.peer)

    def weight(self, peer: str) -> int:
        """A peer's weight."""
        return min(max(self._weights.get(peer, 1), 1), MAX_WEIGHT)

    def enter(self, queues: PeerQueues) -> None:
        """Let a pair take part that has commands waiting, and did not."""
        queues.scheduled = True
        queues.share = _SCALE // self.weight(queues.peer)
        queues.account = max(queues.account, self._served)
        self._entered += 1
        heappush(self._ready, (queues.account, self._entered, queues))

    def take(self, room: int, room_bytes: int = UNLIMITED) -> list[OutstandingCommand]:
        """Take commands, a turn of one pair after that of another.

        Args:
            room: Most commands to take.
            room_bytes: Stop once the commands taken move this many bytes; the last one may exceed it.
        """
        taken: list[OutstandingCommand] = []
        ready = self._ready
        while len(ready) > 1 and room > 0 and room_bytes > 0:
            queues = ready[0][2]
            most = self._burst if self._burst < room else room
            most_bytes = self._turn_bytes if self._turn_bytes < room_bytes else room_bytes
            count, moved = _serve(queues, most, most_bytes, taken)
            room -= count
            room_bytes -= moved
            self._charge(queues, count, moved)
        while ready and room > 0 and room_bytes > 0:
            queues = ready[0][2]
            count, moved = _serve(queues, room, room_bytes, taken)
            room -= count
            room_bytes -= moved
            self._charge(queues, count, moved)
            self._served = queues.account  # nobody waited meanwhile: who comes now has missed nothing
        if not ready:
            self._served = self._latest
        return taken

    def _charge(self, queues: PeerQueues, count: int, moved: int) -> None:
        """Enter in the books of the pair that is first what was taken from it."""
        ready = self._ready
        queues.taken_commands += count
        queues.taken_bytes += moved
        self._served = account = queues.account
        queues.account = account = account + (count * COMMAND_COST + moved) * queues.share
        if account > self._latest:  # noqa: PLR1730 - a call of max costs three times as much, in each turn
            self._latest = account
        if queues.submission:
            self._entered = entered = self._entered + 1
            heapreplace(ready, (account, entered, queues))
            return
        heappop(ready)
        queues.scheduled = False


def _serve(queues: PeerQueues, most: int, most_bytes: int, taken: list[OutstandingCommand]) -> tuple[int, int]:
    """Move commands of a pair to `taken`: up to `most`, and until they move `most_bytes`.

    Returns:
        How many they are, and how many bytes they move.
    """
    submission = queues.submission
    if len(submission) <= most:
        most = len(submission)
        moved = sum([command.length for command in submission])
        if moved < most_bytes and moved <= MAX_DATA_BYTES:
            taken += submission
            submission.clear()
            return most, moved
    count = moved = 0
    following = submission.popleft
    while count < most and moved < most_bytes:
        command = following()
        taken.append(command)
        count += 1
        length = command.length
        moved += length if length < MAX_DATA_BYTES else MAX_DATA_BYTES
    return count, moved
