"""Arbitration between queue pairs against a model: order, no loss, no idling, shares by weight within a turn."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from iovirt_dist.controllers.arbitration import COMMAND_COST, Arbiter
from iovirt_dist.controllers.peer_queues import OutstandingCommand, PeerQueues
from iovirt_dist.wire.commands import MAX_DATA_BYTES, Opcode

LENGTHS = st.sampled_from([0, 512, 4096, 65536, 1 << 20, MAX_DATA_BYTES])
WEIGHTS = st.lists(st.integers(1, 255), min_size=2, max_size=4)
BURST = 8


def command(queues: PeerQueues, length: int) -> OutstandingCommand:
    """A read of a pair."""
    return OutstandingCommand(b"", Opcode.READ, 0, 0, length, b"", queues)


def cost(taken: OutstandingCommand) -> int:
    """What it takes the controller."""
    return COMMAND_COST + min(taken.length, MAX_DATA_BYTES)


def turn_cost(largest: int) -> int:
    """The most that a turn costs whose commands are no larger than this: a full one, and the command that ends it."""
    return 2 * BURST * COMMAND_COST + min(largest, MAX_DATA_BYTES)


class ArbitrationMachine(RuleBasedStateMachine):
    """Pairs come, go and take; the model is one plain queue a pair, and what each has had since the same ones wait."""

    @initialize(weights=WEIGHTS)
    def begin(self, weights: list[int]) -> None:
        """Idle pairs of these weights."""
        self.peers = [f"p{number}" for number in range(len(weights))]
        self.weights = dict(zip(self.peers, weights, strict=True))
        self.arbiter = Arbiter(BURST)
        self.arbiter.set_weights(self.weights)
        self.pairs = {peer: PeerQueues(peer) for peer in self.peers}
        self.waiting: dict[str, deque[OutstandingCommand]] = {peer: deque() for peer in self.peers}
        self.backlogged: dict[str, float] = {}
        self.largest = 0

    @rule(data=st.data(), lengths=st.lists(LENGTHS, min_size=1, max_size=40))
    def submit(self, data: st.DataObject, lengths: list[int]) -> None:
        """A batch of one pair."""
        peer = data.draw(st.sampled_from(self.peers))
        new = [command(self.pairs[peer], length) for length in lengths]
        self.pairs[peer].submission.extend(new)
        self.waiting[peer].extend(new)
        self.largest = max(self.largest, *lengths)
        if not self.pairs[peer].scheduled:
            self.arbiter.enter(self.pairs[peer])

    @rule(room=st.integers(0, 100), room_bytes=st.sampled_from([1, 65536, 4 << 20, 1 << 40]))
    def take(self, room: int, room_bytes: int) -> None:
        """Each pair's in order, as much as there is room for and no more."""
        busy = {peer for peer in self.peers if self.waiting[peer]}
        if busy != self.backlogged.keys():
            self.backlogged = dict.fromkeys(busy, 0.0)
        taken = self.arbiter.take(room, room_bytes)
        moved = 0
        for got in taken:
            assert moved < room_bytes, "it went on without room"
            peer = got.queues.peer
            assert self.waiting[peer].popleft() is got
            moved += min(got.length, MAX_DATA_BYTES)
            self.backlogged[peer] += cost(got) / self.weights[peer]
        assert len(taken) <= room
        left = sum(map(len, self.waiting.values()))
        assert not left or len(taken) == room or moved >= room_bytes, "it idles while something could go"

    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        """A peer's next life begins: nothing of the old one comes out, and it owes what it owed."""
        peer = data.draw(st.sampled_from(self.peers))
        old, new = self.pairs[peer], PeerQueues(peer)
        old.abandon()
        new.account = old.account
        self.pairs[peer] = new
        self.waiting[peer].clear()
        self.backlogged.pop(peer, None)

    @invariant()
    def pairs_that_waited_all_the_time_have_their_shares(self) -> None:
        """Since both wait, neither is ahead of the other by more than a turn of each."""
        if not hasattr(self, "pairs"):
            return
        steady = [peer for peer in self.backlogged if self.waiting[peer]]
        self.backlogged = {peer: self.backlogged[peer] for peer in steady}
        for one in steady:
            for other in steady:
                bound = turn_cost(self.largest) * (1 / self.weights[one] + 1 / self.weights[other])
                assert self.backlogged[one] - self.backlogged[other] <= bound * 1.001

    def teardown(self) -> None:
        """Everything comes out in the end."""
        if not hasattr(self, "pairs"):
            return
        left = sum(map(len, self.waiting.values()))
        assert len(self.arbiter.take(left + 1)) == left


TestArbitration = ArbitrationMachine.TestCase
TestArbitration.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)


@given(
    weights=WEIGHTS,
    lengths=st.lists(st.lists(LENGTHS, min_size=1, max_size=5), min_size=4, max_size=4),
    rooms=st.lists(st.integers(1, 64), min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_backlogged_pairs_share_by_weight_within_a_turn(
    weights: list[int], lengths: list[list[int]], rooms: list[int]
) -> None:
    """From the first command on, whatever their sizes and however few at a time the device takes."""
    arbiter = Arbiter(BURST)
    peers = [f"p{number}" for number in range(len(weights))]
    arbiter.set_weights(dict(zip(peers, weights, strict=True)))
    pairs = [PeerQueues(peer) for peer in peers]
    served = dict.fromkeys(peers, 0.0)
    for step in range(150):
        for number, queues in enumerate(pairs):
            sizes = lengths[number]
            while len(queues.submission) < 64:
                queues.submission.append(command(queues, sizes[len(queues.submission) % len(sizes)]))
            if not queues.scheduled:
                arbiter.enter(queues)
        for got in arbiter.take(rooms[step % len(rooms)], 4 << 20):
            served[got.queues.peer] += cost(got) / weights[peers.index(got.queues.peer)]

    turns = {peer: turn_cost(max(lengths[number])) / weights[number] for number, peer in enumerate(peers)}
    for one in peers:
        for other in peers:
            assert served[one] - served[other] <= (turns[one] + turns[other]) * 1.001
