"""Two joined session ends over a network that delays, loses, doubles and reorders, with restarts of both.

For every pair of lives and each direction, what was delivered is a beginning of what was sent: no gap, no duplicate, no
message of another life, even if frames of any earlier time turn up again. When the faults end, everything arrives.
"""

from __future__ import annotations

from collections import defaultdict
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iovirt_dist.errors import WindowFullError
from iovirt_dist.faults.link import Cut, Faults
from iovirt_dist.transport.memory import MemoryNetwork, PerfectLink
from iovirt_dist.transport.port import ONLY_PEER
from iovirt_dist.wire.acceptor import Acceptor
from iovirt_dist.wire.codec import Frames
from iovirt_dist.wire.messages import Interrupt, Role
from iovirt_dist.wire.opener import Opener
from iovirt_dist.wire.session import Delivered, Lost, Opened, SendFrames, SessionConfig, SessionOutput

MS = 1_000_000
HOSTILE = Faults(delay_ns=(0, 30 * MS), loss=0.2, duplicate=0.1, reorder=0.2, reorder_ns=40 * MS)
Pair = tuple[int, int]
"""Epoch of the opener, epoch of the acceptor."""


class World:
    """One opener and one acceptor, their layers above, and the network, in virtual time."""

    def __init__(self, seed: int, window: int = 256) -> None:
        self.now_ns = 0
        self.window = window
        self.network = MemoryNetwork(lambda: self.now_ns, seed, HOSTILE)
        self.random = Random(seed)
        self.history_up: list[Frames] = []
        self.history_down: list[Frames] = []
        self.count = 0
        self.opener_epoch = self.acceptor_epoch = 0
        self.sent: dict[tuple[str, Pair], list[int]] = defaultdict(list)
        self.delivered: dict[tuple[str, Pair], list[int]] = defaultdict(list)
        self.events: list[SessionOutput] = []
        self.start_acceptor()
        self.start_opener()

    def start_opener(self) -> None:
        """A new life of the opener."""
        self.opener_epoch += 1
        self.opener_pair: Pair | None = None
        self.dialler = self.network.dial("hv", "alice")
        self.opener = Opener(
            SessionConfig(Role.GUEST, "alice", self.opener_epoch, window=self.window, lease_ms=500), "hv"
        )
        self.opener_did(self.opener.start(self.now_ns))

    def start_acceptor(self) -> None:
        """A new life of the acceptor; its epochs are far from the opener's, so that none passes for the other."""
        self.acceptor_epoch += 1000
        self.acceptor_pair: Pair | None = None
        self.listener = self.network.listen("hv")
        config = SessionConfig(Role.HYPERVISOR, "hv", self.acceptor_epoch, window=self.window, lease_ms=500)
        self.acceptor = Acceptor(config, lambda hello: None)

    def restart_opener(self) -> None:
        """As a SIGKILL and a new process."""
        self.dialler.close()
        self.start_opener()

    def restart_acceptor(self) -> None:
        """As a SIGKILL and a new process."""
        self.listener.close()
        self.start_acceptor()

    def reconnect(self) -> None:
        """The connection breaks; both processes live on."""
        self.dialler.close()
        self.dialler = self.network.dial("hv", "alice")

    def cut(self) -> None:
        """Nothing passes for longer than the lease."""
        self.network.set_faults(Faults(cuts=(Cut(self.now_ns, self.now_ns + 10_000 * MS),)))
        self.run(700)
        self.network.set_faults(HOSTILE)

    def send_up(self) -> None:
        """The opener's layer sends, if the window has room."""
        self.count += 1
        try:
            output = self.opener.send(Interrupt(0, self.count), (), self.now_ns)
        except WindowFullError:
            return
        if self.opener_pair is not None:
            self.sent["up", self.opener_pair].append(self.count)
        self.transmit_up(output)

    def send_down(self) -> None:
        """The acceptor's layer sends, if it knows a peer and the window has room."""
        if self.acceptor_pair is None:
            return
        self.count += 1
        try:
            output = self.acceptor.send(self.address, Interrupt(1, self.count), (), self.now_ns)
        except WindowFullError:
            return
        self.sent["down", self.acceptor_pair].append(self.count)
        self.transmit_down(output)

    def transmit_up(self, output: SendFrames) -> None:
        """Put frames on the wire, and remember them."""
        if output.frames:
            self.history_up.append(output.frames)
        self.dialler.send(output.peer, output.frames)

    def transmit_down(self, output: SendFrames) -> None:
        """As `transmit_up`."""
        if output.frames:
            self.history_down.append(output.frames)
        self.listener.send(output.peer, output.frames)

    def replay(self) -> None:
        """Frames of any life and any time turn up again at both ends."""
        if self.history_up and self.dialler.connection is not None:
            frames = self.random.choice(self.history_up)
            self.acceptor_did(self.acceptor.receive(self.dialler.connection.address, frames, self.now_ns))
        if self.history_down:
            self.opener_did(self.opener.receive(self.random.choice(self.history_down), self.now_ns))

    def opener_did(self, outputs: list[SessionOutput]) -> None:
        """The opener's layer."""
        for output in outputs:
            match output:
                case SendFrames():
                    self.transmit_up(output)
                case Opened():
                    self.events.append(output)
                    assert output.resumed == (self.opener_pair == (self.opener_epoch, output.epoch))
                    self.opener_pair = (self.opener_epoch, output.epoch)
                case Delivered(body=Interrupt() as body):
                    assert self.opener_pair is not None
                    self.delivered["down", self.opener_pair].append(body.count)
                case Lost():
                    self.events.append(output)

    def acceptor_did(self, outputs: list[SessionOutput]) -> None:
        """The acceptor's layer."""
        for output in outputs:
            match output:
                case SendFrames():
                    self.transmit_down(output)
                case Opened():
                    self.events.append(output)
                    assert output.resumed == (self.acceptor_pair == (output.epoch, self.acceptor_epoch))
                    self.acceptor_pair = (output.epoch, self.acceptor_epoch)
                    self.address = output.peer
                case Delivered(peer=peer, body=Interrupt() as body):
                    assert self.acceptor_pair is not None
                    assert peer == self.address
                    self.delivered["up", self.acceptor_pair].append(body.count)
                case Lost():
                    self.events.append(output)

    def run(self, duration_ms: int) -> None:
        """Let virtual time pass, from event to event."""
        until_ns = self.now_ns + duration_ms * MS
        turns = 0
        while True:
            self.turn()
            due = [self.network.next_event_ns(), self.opener.deadline_ns(), self.acceptor.deadline_ns()]
            next_ns = max(min([until_ns, *(ns for ns in due if ns is not None)]), self.now_ns)
            turns = turns + 1 if next_ns == self.now_ns else 0
            assert turns < 1000, "time stands still"
            if next_ns >= until_ns:
                self.now_ns = until_ns
                return
            self.now_ns = next_ns

    def turn(self) -> None:
        """What both processes do now."""
        while (message := self.listener.receive()) is not None:
            self.acceptor_did(self.acceptor.receive(*message, self.now_ns))
        while (message := self.dialler.receive()) is not None:
            assert message[0] == ONLY_PEER
            self.opener_did(self.opener.receive(message[1], self.now_ns))
        self.opener_did(self.opener.tick(self.now_ns))
        self.acceptor_did(self.acceptor.tick(self.now_ns))

    def heal(self) -> None:
        """The faults end, and time passes."""
        self.network.set_faults(PerfectLink())
        self.run(6000)

    def check(self) -> None:
        """Nothing was delivered that is not the next thing sent in that session."""
        for key, delivered in self.delivered.items():
            assert delivered == self.sent[key][: len(delivered)], key


ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["send_up", "send_down"]), st.integers(1, 40)),
    st.tuples(st.just("run"), st.integers(1, 400)),
    st.tuples(st.just("replay"), st.integers(1, 20)),
    st.tuples(st.sampled_from(["restart_opener", "restart_acceptor", "reconnect", "cut"]), st.just(1)),
)


def perform(world: World, action: tuple[str, int]) -> None:
    """Do one drawn action."""
    name, number = action
    if name == "run":
        world.run(number)
        return
    for _ in range(number):
        getattr(world, name)()


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32), actions=st.lists(ACTIONS, max_size=40))
def test_session_over_hostile_network_delivers_in_order_once_and_recovers(
    seed: int, actions: list[tuple[str, int]]
) -> None:
    """Whatever happens on the way, each session delivers a beginning of what was sent, and all of it in the end."""
    world = World(seed)
    for action in actions:
        perform(world, action)
        world.check()
    world.heal()
    world.send_up()
    world.send_down()
    world.run(1000)
    world.check()
    assert world.opener.open
    assert world.opener_pair == world.acceptor_pair == (world.opener_epoch, world.acceptor_epoch)
    for direction in ("up", "down"):
        assert world.delivered[direction, world.opener_pair] == world.sent[direction, world.opener_pair]


@pytest.mark.parametrize("seed", range(4))
def test_session_under_steady_loss_makes_progress_before_the_faults_end(seed: int) -> None:
    """With a fifth of all messages lost, thousands still arrive, both ways, in the time of a few leases."""
    world = World(seed)
    world.run(2000)
    for _ in range(100):
        for _ in range(10):
            world.send_up()
            world.send_down()
        world.run(200)
    world.check()
    assert sum(map(len, world.delivered.values())) > 1000


@pytest.mark.parametrize("seed", range(4))
def test_session_without_restart_is_never_begun_anew(seed: int) -> None:
    """Lost connections and leases resume; the layers above never have to rebuild."""
    world = World(seed)
    world.run(2000)
    for _ in range(5):
        for _ in range(20):
            world.send_up()
            world.send_down()
        world.run(50)
        world.reconnect()
        world.cut()
    world.heal()
    begun = [event for event in world.events if isinstance(event, Opened) and not event.resumed]
    assert len(begun) == 2
    assert world.delivered == world.sent
