"""Sessions and messages in front of a device class."""

from __future__ import annotations

from typing import Any

import pytest

from iovirt_dist.controllers.base import (
    CommandsSubmitted,
    CompleteCommands,
    QueuePairClosed,
    QueuePairOpened,
    QueuePairs,
)
from iovirt_dist.controllers.base import TimerFired as DeviceTimerFired
from iovirt_dist.controllers.front import ControllerFront, FramesReceived, Note, Send, StopRequested, TimerFired
from iovirt_dist.controllers.news import TellUnitsChanged
from iovirt_dist.controllers.rng.core import DrawEntropy, RngController
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.codec import Frames
from iovirt_dist.wire.commands import Command, Completion, Opcode, Status, pack_commands, unpack_completions
from iovirt_dist.wire.messages import Complete, Role, Submit, UnitsChanged
from iovirt_dist.wire.opener import Opener
from iovirt_dist.wire.session import Delivered, SendFrames, SessionConfig

SECOND = 1_000_000_000


def read(sequence: int) -> Command:
    """A READ."""
    return Command(RequestId(1, 0, sequence).pack(), Opcode.READ, 0, 0, 512)


class Echo:
    """A device class that completes each batch at once, passes its own actions on, and is timed once."""

    def __init__(self) -> None:
        self.pairs = QueuePairs(8, 2)
        self.events: list[Any] = []
        self.due_ns: int | None = None

    def deadline_ns(self) -> int | None:
        """What the test has set."""
        return self.due_ns

    def handle(self, event: Any, now_ns: int) -> list[Any]:
        """Complete."""
        self.events.append(event)
        if isinstance(event, DeviceTimerFired):
            self.due_ns = None
        if isinstance(event, CommandsSubmitted):
            return [CompleteCommands(event.pair, [Completion(c.id, Status.OK, 2) for c in event.commands], [b"ok"])]
        return [event] if isinstance(event, str | TellUnitsChanged) else []


class Hypervisor:
    """The other end of a queue pair.

    Args:
        bench: Where frames go.
        name: Its name.
        epoch: Its life.
        server: The controller's name.
    """

    def __init__(self, bench: Bench, name: str = "hv", epoch: int = 1, server: str = "disk0") -> None:
        self.address = f"{name}/{epoch}".encode()
        self.opener = Opener(SessionConfig(Role.HYPERVISOR, name, epoch), server)
        self.completed: list[tuple[Complete, list[bytes]]] = []
        self.told = 0
        self._bench = bench
        bench.hypervisors[self.address] = self
        self.take(self.opener.start(0))

    def take(self, outputs: list[Any]) -> None:
        """Do what the session says."""
        for output in outputs:
            if isinstance(output, Delivered) and isinstance(output.body, Complete):
                self.completed.append((output.body, [bytes(frame) for frame in output.payload]))
            elif isinstance(output, Delivered) and isinstance(output.body, UnitsChanged):
                self.told += 1
            elif isinstance(output, SendFrames):
                self._bench.deliver(self.address, output.frames)

    def submit(self, commands: bytes, *payload: bytes) -> None:
        """Send a batch."""
        self._bench.deliver(self.address, self.opener.send(Submit(commands), payload, 0).frames)


class Bench:
    """A front with its device class and hypervisors."""

    def __init__(self, credits: int = 8, window: int = 4096) -> None:  # noqa: A002 - the protocol's word
        self.device = Echo()
        config = SessionConfig(Role.CONTROLLER, "disk0", 9, credits=credits, window=window)
        self.front = ControllerFront(config, self.device, frozenset({"hv", "hv2"}), {"hv2": 3})
        self.hypervisors: dict[bytes, Hypervisor] = {}
        self.others: list[Any] = []

    def deliver(self, peer: bytes, frames: Frames) -> None:
        """A hypervisor's frames arrive."""
        if frames:
            self.do(FramesReceived(peer, frames))

    def do(self, event: Any, now_ns: int = 0) -> None:
        """Hand in an event, and deliver what comes of it."""
        for action in self.front.handle(event, now_ns):
            if not isinstance(action, Send):
                self.others.append(action)
            elif action.frames and action.peer in self.hypervisors:
                hypervisor = self.hypervisors[action.peer]
                hypervisor.take(hypervisor.opener.receive(action.frames, now_ns))


def test_front_timer_reaches_the_device_when_its_deadline_has_come_and_not_before() -> None:
    """The front's deadline is the earlier one of its sessions' and its device's."""
    bench = Bench()
    bench.device.due_ns = 5 * SECOND
    deadline_ns = bench.front.deadline_ns()

    bench.do(TimerFired(), 5 * SECOND - 1)
    before = list(bench.device.events)
    bench.do(TimerFired(), 5 * SECOND)

    assert deadline_ns == 5 * SECOND
    assert before == []
    assert bench.device.events == [DeviceTimerFired()]
    assert bench.front.deadline_ns() is None


def test_front_session_is_a_queue_pair_and_a_batch_is_a_message_with_one_interrupt() -> None:
    """There and back."""
    bench = Bench()
    hypervisor = Hypervisor(bench)

    hypervisor.submit(pack_commands([read(1)]))
    hypervisor.submit(pack_commands([read(2)]))

    assert bench.device.events == [
        QueuePairOpened(1, "hv", False, 1),
        CommandsSubmitted(1, [read(1)], []),
        CommandsSubmitted(1, [read(2)], []),
    ]
    assert [message.interrupts for message, _ in hypervisor.completed] == [1, 2]
    assert unpack_completions(hypervisor.completed[0][0].completions) == [Completion(read(1).id, Status.OK, 2)]
    assert hypervisor.completed[0][1] == [b"ok"]
    assert bench.front.connected == ["hv"]


def test_front_refuses_names_that_it_does_not_know() -> None:
    """No queue pair, and no word to the device class."""
    bench = Bench()

    stranger = Hypervisor(bench, "mallory")

    assert not stranger.opener.open
    assert bench.device.events == []


def test_front_keeps_hypervisors_apart() -> None:
    """Each has its queue pair and its interrupt count."""
    bench = Bench()
    first, second = Hypervisor(bench, "hv"), Hypervisor(bench, "hv2")

    first.submit(pack_commands([read(1)]))
    second.submit(pack_commands([read(1)]))

    assert [event.pair for event in bench.device.events if isinstance(event, CommandsSubmitted)] == [1, 2]
    assert [len(first.completed), len(second.completed)] == [1, 1]
    assert second.completed[0][0].interrupts == 1


def test_front_new_life_of_a_hypervisor_closes_the_old_queue_pair() -> None:
    """The device class hears of both, in this order."""
    bench = Bench()
    Hypervisor(bench)

    Hypervisor(bench, epoch=2)

    assert bench.device.events == [
        QueuePairOpened(1, "hv", False, 1),
        QueuePairClosed(1),
        QueuePairOpened(2, "hv", False, 2),
    ]


def test_front_lost_hypervisor_closes_its_queue_pair_and_completions_for_it_are_noted() -> None:
    """The lease has run out."""
    bench = Bench()
    Hypervisor(bench)
    bench.hypervisors.clear()

    bench.do(TimerFired(), 10 * SECOND)

    assert bench.device.events[-1] == QueuePairClosed(1)
    assert bench.front.connected == []


@pytest.mark.parametrize("commands", [b"x", b"\xff" * 40, pack_commands([read(1)]) * 1025])
def test_front_counts_commands_that_cannot_be_decoded(commands: bytes) -> None:
    """Nothing of the batch reaches the device class."""
    bench = Bench()
    hypervisor = Hypervisor(bench)

    hypervisor.submit(commands)

    assert bench.front.malformed == 1
    assert len(bench.device.events) == 1


def test_front_window_holds_the_completions_of_all_credits() -> None:
    """Even where the configured window is smaller, and the peer has not acknowledged one of them."""
    bench = Bench(credits=64, window=4)
    hypervisor = Hypervisor(bench)
    batches = [hypervisor.opener.send(Submit(pack_commands([read(n)])), (), 0).frames for n in range(64)]
    bench.hypervisors.clear()

    for frames in batches:
        bench.deliver(hypervisor.address, frames)

    stream = bench.front.acceptor.stream("hv")
    assert stream is not None
    assert stream.unacknowledged() == 64
    assert bench.front.overruns == 0


def test_front_peer_that_exceeds_its_credits_and_acknowledges_nothing_is_counted_and_noted_once() -> None:
    """It loses completions; the log is not its to fill."""
    bench = Bench(credits=4, window=4)
    hypervisor = Hypervisor(bench)
    batches = [hypervisor.opener.send(Submit(pack_commands([read(n)])), (), 0).frames for n in range(10)]
    bench.hypervisors.clear()

    for frames in batches:
        bench.deliver(hypervisor.address, frames)

    assert bench.front.overruns == 6
    assert len([note for note in bench.others if isinstance(note, Note) and "takes no messages" in note.text]) == 1


def test_front_passes_the_device_classes_own_events_and_actions_on() -> None:
    """Outcomes of I/O go in, I/O goes out."""
    bench = Bench()

    bench.do("disk is done")

    assert bench.device.events == ["disk is done"]
    assert bench.others == ["disk is done"]


def test_front_says_goodbye() -> None:
    """The hypervisor need not wait for the lease."""
    bench = Bench()
    hypervisor = Hypervisor(bench)

    bench.do(StopRequested("shutting down"))

    assert not hypervisor.opener.open


def test_shares_of_hypervisors_follow_their_weights() -> None:
    """As the topology has them, and as it has them later."""
    bench = Bench()
    bench.device.pairs.opened(QueuePairOpened(1, "hv", resumed=False))
    bench.device.pairs.opened(QueuePairOpened(2, "hv2", resumed=False))

    before = {name: share.weight for name, share in bench.front.shares().items()}
    bench.front.set_weights({"hv": 2})
    after = {name: share.weight for name, share in bench.front.shares().items()}

    assert (before, after) == ({"hv": 1, "hv2": 3}, {"hv": 2, "hv2": 1})


def test_front_lets_each_hypervisor_use_its_own_units_only() -> None:
    """What is another's is unknown to it, by name and by number; the device class sees nothing of it."""
    bench = Bench()
    device = RngController()
    config = SessionConfig(Role.CONTROLLER, "rng0", 9)
    bench.front = ControllerFront(config, device, frozenset({"hv", "hv2"}), None, {"hv": [""]})
    owner, other = Hypervisor(bench, server="rng0"), Hypervisor(bench, "hv2", server="rng0")
    identify, get = Command(read(1).id, Opcode.IDENTIFY), Command(read(2).id, Opcode.ENTROPY_GET, 0, 0, 16)

    other.submit(pack_commands([identify]))
    other.submit(pack_commands([get]))
    seen = device.pairs.counts.commands
    owner.submit(pack_commands([identify]))
    owner.submit(pack_commands([get]))

    assert [unpack_completions(message.completions)[0].status for message, _ in other.completed] == [
        Status.UNKNOWN_UNIT,
        Status.UNKNOWN_UNIT,
    ]
    assert (seen, bench.front.not_granted) == (0, 2)
    assert unpack_completions(owner.completed[0][0].completions)[0].status is Status.OK
    assert bench.others[-1] == DrawEntropy(16)


def test_front_follows_new_grants() -> None:
    """A guest comes to another hypervisor."""
    bench = Bench()
    config = SessionConfig(Role.CONTROLLER, "rng0", 9)
    bench.front = ControllerFront(config, RngController(), frozenset({"hv"}), None, {})
    hypervisor = Hypervisor(bench, server="rng0")

    hypervisor.submit(pack_commands([Command(read(1).id, Opcode.IDENTIFY)]))
    bench.front.grant({"hv": [""]})
    hypervisor.submit(pack_commands([Command(read(2).id, Opcode.IDENTIFY)]))

    statuses = [unpack_completions(message.completions)[0].status for message, _ in hypervisor.completed]
    assert statuses == [Status.UNKNOWN_UNIT, Status.OK]


def test_front_tells_all_peers_that_units_changed_and_those_that_come_back() -> None:
    """One that was away, and lives on, may not have heard."""
    bench = Bench()
    first, second = Hypervisor(bench), Hypervisor(bench, "hv2")
    bench.do(FramesReceived(second.address, second.opener.close("away", 0)[0].frames))  # type: ignore[union-attr]
    bench.do(TellUnitsChanged())

    assert (first.told, second.told) == (1, 0)


def test_front_tells_a_resumed_peer_that_units_changed_while_it_was_silent() -> None:
    """Its session was lost by silence, not by a new life."""
    bench = Bench()
    hypervisor = Hypervisor(bench)
    bench.do(TimerFired(), 100 * SECOND)
    bench.do(TellUnitsChanged(), 100 * SECOND)
    away = hypervisor.told

    hypervisor.take(hypervisor.opener.tick(100 * SECOND))
    hypervisor.take(hypervisor.opener.tick(101 * SECOND))

    assert away == 0
    assert hypervisor.told == 1
