"""The hypervisor core under guests and controllers that send anything at all.

Whatever they do: nothing is raised, every queue stays within its bound, and a guest that behaves is served as if it
were alone.
"""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from iovirt_dist.hypervisor.backlog import MAX_STORES
from iovirt_dist.hypervisor.events import GuestFramesReceived
from iovirt_dist.hypervisor.guest_side import GUEST_WINDOW
from iovirt_dist.ids import RequestId
from iovirt_dist.wire.codec import encode
from iovirt_dist.wire.commands import Completion, Status, UnitIdentity, pack_completions
from iovirt_dist.wire.messages import (
    GuestState,
    Interrupt,
    Message,
    Power,
    PowerAction,
    PrefetchRead,
    Report,
    Submit,
    Trap,
    TrapKind,
)
from tests.unit.hypervisor.support import MS, SECOND, Bench, ControllerPeer, GuestPeer, complete_bench

HOSTILE = ("mallory", "oscar")
PORTS = (0x20, 0x21, 0x40, 0x43, 0x60, 0x64, 0x70, 0x71, 0x92, 0xCF8, 0xCFC, 0xCF9, 0x1F0, 0x1F2, 0x1F6, 0x1F7, 0x3F8)
ATA_COMMANDS = (0x20, 0x24, 0x30, 0xC4, 0xC5, 0xC6, 0xE7, 0xEC, 0x40, 0xEF)

u8, u16 = st.integers(0, 255), st.integers(0, 65535)
u63, u64 = st.integers(0, 2**63 - 1), st.integers(0, 2**64 - 1)
addresses = st.one_of(st.sampled_from(PORTS), u16, u64)
values = st.one_of(st.sampled_from(ATA_COMMANDS), u8, u64)
levels = st.integers(0, 3)


class FromGuest(NamedTuple):
    """A message within a guest's session."""

    guest: int
    body: Message
    payload: tuple[bytes, ...]


class Reconnect(NamedTuple):
    """A guest's next life."""

    guest: int


class RawFromGuest(NamedTuple):
    """Frames from any address, outside of every session."""

    peer: bytes
    frames: tuple[bytes, ...]


class Complete(NamedTuple):
    """A controller completes what it has, or something else."""

    controller: str
    status: Status
    data: bytes
    stray: bool


class Garbage(NamedTuple):
    """A controller sends bytes as completions, or as frames."""

    controller: str
    data: bytes
    framed: bool


class Restart(NamedTuple):
    """A controller's next life, with or without its units."""

    controller: str
    identity: UnitIdentity | None


class PassTime(NamedTuple):
    """Time passes."""

    duration_ns: int


traps = st.builds(
    Trap,
    number=u63,
    kind=st.sampled_from(TrapKind),
    address=addresses,
    width=st.one_of(st.sampled_from((1, 2, 4, 8)), u8),
    count=st.one_of(st.just(1), st.integers(1, 600)),
    value=values,
    privilege=levels,
    iopl=levels,
    permitted=st.booleans(),
)
reports = st.builds(Report, st.sampled_from(GuestState), st.text(max_size=20), st.tuples(u63, u63), u63, u63, u63, u63)
others = st.one_of(
    st.builds(Power, st.sampled_from(PowerAction), st.text(max_size=10)),
    st.builds(Interrupt, u8, u63),
    st.builds(PrefetchRead, st.integers(1, 65536)),
    st.builds(Submit, st.binary(min_size=1, max_size=80)),
)
payloads = st.lists(st.binary(max_size=64), max_size=2).map(tuple)
guest_numbers = st.integers(0, len(HOSTILE) - 1)
controllers = st.sampled_from(("disk0", "tty0"))
identities = st.builds(
    UnitIdentity, u64, st.integers(0, 2**32 - 1), st.booleans(), st.text(st.characters(codec="ascii"), max_size=20)
)
frames = st.one_of(
    st.lists(st.binary(max_size=60), max_size=4).map(tuple),
    st.builds(lambda e, p, s, a, body: tuple(map(bytes, encode(e, p, s, a, body))), u63, u63, u63, u63, traps),
)
steps = st.one_of(
    st.builds(FromGuest, guest_numbers, st.one_of(traps, reports, others), st.one_of(st.just(()), payloads)),
    st.builds(FromGuest, guest_numbers, traps, st.just(())),
    st.builds(Reconnect, guest_numbers),
    st.builds(RawFromGuest, st.binary(max_size=8), frames),
    st.builds(Complete, controllers, st.sampled_from(Status), st.binary(max_size=600), st.booleans()),
    st.builds(Garbage, controllers, st.binary(min_size=1, max_size=80), st.booleans()),
    st.builds(Restart, controllers, st.one_of(st.none(), identities)),
    st.builds(PassTime, st.integers(1, 3 * SECOND)),
)


class World:
    """One guest that behaves, and two that do not, on controllers that misbehave too."""

    def __init__(self) -> None:
        self.bench = complete_bench(("alice", *HOSTILE))
        self.good = self.bench.guest("alice")
        self.bad = [self.bench.guest(name) for name in HOSTILE]
        self.epoch = 1

    def do(self, step: object) -> None:
        """Take a step."""
        bench = self.bench
        if isinstance(step, FromGuest):
            self._send(self.bad[step.guest], step)
        elif isinstance(step, Reconnect):
            self.epoch += 1
            self.bad[step.guest] = bench.guest(HOSTILE[step.guest], self.epoch)
        elif isinstance(step, RawFromGuest):
            bench.handle(GuestFramesReceived(step.peer, list(step.frames)))
        elif isinstance(step, Complete):
            self._complete(bench.controllers[step.controller], step)
        elif isinstance(step, Garbage) and step.framed:
            bench.from_controller(step.controller, [step.data])
        elif isinstance(step, Garbage):
            bench.controllers[step.controller].send(step.data)
        elif isinstance(step, Restart):
            self._restart(step)
        elif isinstance(step, PassTime):
            bench.pass_time(step.duration_ns)

    def check_bounds(self) -> None:
        """Every queue is within its bound."""
        for name, guest in self.bench.core.guests.items():
            stream = self.bench.core.acceptor.stream(name)
            assert stream is None or stream.unacknowledged() <= GUEST_WINDOW
            assert len(guest.backlog) <= 2 * MAX_STORES + 3
        for pair in self.bench.pairs.values():
            assert pair.in_flight <= 8 + len(self.bench.names)
            assert pair.refused == []

    def _send(self, guest: GuestPeer, step: FromGuest) -> None:
        if guest.opener.open:
            payload = step.payload if isinstance(step.body, (Trap, Submit)) else ()
            guest.send(step.body, *payload)

    def _complete(self, controller: ControllerPeer, step: Complete) -> None:
        others = [
            pending.command
            for pending in controller.pending
            if RequestId.unpack(pending.command.id).guest not in (0, 1)
        ]
        if step.stray or not others:
            stray = Completion(RequestId(9, 9, 9).pack(), step.status, len(step.data))
            controller.send(pack_completions([stray]), *([step.data] if step.data else []))
        else:
            controller.complete(others[0], step.status, step.data)

    def _restart(self, step: Restart) -> None:
        """The units of the others vanish or change; those of the guest that behaves stay."""
        self.epoch += 1
        old = self.bench.controllers[step.controller].units
        units = {"alice": old["alice"]}
        if step.identity is not None:
            units |= dict.fromkeys(HOSTILE, step.identity)
        self.bench.controller(step.controller, units, self.epoch)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=25))
def test_hypervisor_survives_anything_and_serves_who_behaves(plan: list[object]) -> None:
    """Registers of the good guest hold through it all, and its console and clock work at the end."""
    world = World()
    world.good.outb(0x3FF, 0x5A)
    world.good.outb(0x70, 0x40)
    world.good.outb(0x71, 0xA5)

    for step in plan:
        world.do(step)
        world.check_bounds()
    world.bench.pass_time(3 * SECOND)

    assert world.good.inb(0x3FF) == 0x5A
    assert world.good.inb(0x71) == 0xA5
    counts = world.bench.core.guests["alice"].vm.counts
    assert counts.traps[TrapKind.PORT_OUT] == 3
    assert counts.malformed == counts.refused == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(traps, min_size=1, max_size=300), st.booleans())
def test_guest_that_reads_nothing_is_bounded(plan: list[Trap], present: bool) -> None:
    """Traps without end from a guest that acknowledges nothing, with and without a machine."""
    bench = complete_bench(("mallory",)) if present else Bench(("mallory",))
    guest = bench.guest("mallory")
    sends = [guest.opener.send(trap, (), bench.now_ns).frames for trap in plan]
    del bench.guests[guest.address]

    for at, sent in enumerate(sends):
        bench.from_guest(guest, sent)
        bench.now_ns += MS * (at % 3)

    stream = bench.core.acceptor.stream("mallory")
    assert stream is not None
    assert stream.unacknowledged() <= GUEST_WINDOW
    assert len([line for line in bench.log if "takes no messages" in line]) <= 1
