"""The learning switch against a model that knows nothing of tables: only of what was said, by whom, when."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from iovirt_dist.controllers.net.config import AGING_NS, PortConfig
from iovirt_dist.controllers.net.switch import Switch

MACS = [bytes((2, 0, 0, 0, 0, number)) for number in range(7)]
BROADCAST = b"\xff" * 6
QUEUE_FRAMES, MAC_LIMIT = 3, 2
PORTS = (
    PortConfig(name="0", peer="h", mac=MACS[0], vlan=1),
    PortConfig(name="1", peer="h", mac=MACS[1], vlan=1),
    PortConfig(name="2", peer="h", mac=MACS[2], vlan=1, anti_spoofing=False, mac_limit=MAC_LIMIT),
    PortConfig(name="3", peer="h", mac=MACS[3], vlan=1, anti_spoofing=False, mac_limit=MAC_LIMIT),
    PortConfig(name="4", peer="h", mac=MACS[4], vlan=2),
    PortConfig(name="5", peer="h", mac=MACS[5], vlan=2, anti_spoofing=False, mac_limit=MAC_LIMIT),
)
NUMBERS = st.integers(0, len(PORTS) - 1)


class Seen(NamedTuple):
    """Where a station was last, and when."""

    port: int
    at_ns: int


class SwitchMachine(RuleBasedStateMachine):
    """Random traffic over six ports in two VLANs."""

    def __init__(self) -> None:
        super().__init__()
        self.switch = Switch(PORTS, 0, AGING_NS, QUEUE_FRAMES)
        self.up: set[int] = set()
        self.queues: dict[int, list[bytes]] = defaultdict(list)
        self.seen: dict[tuple[int, bytes], Seen] = {}
        self.now_ns = 0
        self.sent = 0

    @rule(number=NUMBERS, up=st.booleans())
    def link(self, number: int, up: bool) -> None:
        """A port goes up or down; down it forgets what waits."""
        self.switch.set_up(number, up)
        (self.up.add if up else self.up.discard)(number)
        if not up:
            self.queues[number].clear()

    @rule(seconds=st.sampled_from([1, 100, 299, 301]))
    def time_passes(self, seconds: int) -> None:
        """Stations age."""
        self.now_ns += seconds * 1_000_000_000

    @rule(number=NUMBERS)
    def take(self, number: int) -> None:
        """The guest takes a frame if one waits."""
        if self.queues[number]:
            assert self.switch.take(number) == self.queues[number].pop(0)

    @rule(number=NUMBERS, source=st.sampled_from([*MACS, BROADCAST]), destination=st.sampled_from([*MACS, BROADCAST]))
    def send(self, number: int, source: bytes, destination: bytes) -> None:
        """A guest sends."""
        self.sent += 1
        frame = destination + source + b"\x88\xb5" + self.sent.to_bytes(4, "big")
        self.switch.accept(number, frame, self.now_ns)
        if self._may_send(number, source):
            self._learn(number, source)
            for target in self._targets(number, destination):
                if target in self.up and len(self.queues[target]) < QUEUE_FRAMES:
                    self.queues[target].append(frame)

    @invariant()
    def queues_are_the_models(self) -> None:
        """Frame by frame, in order."""
        for number, port in enumerate(self.switch.ports):
            assert list(port.queue) == self.queues[number]

    @rule(number=NUMBERS, tags=st.lists(st.sampled_from([b"\x81\x00\x00\x00", b"\x88\xa8\x00\x01"]), min_size=2))
    def send_with_tags(self, number: int, tags: list[bytes]) -> None:
        """More than one tag, whatever the first one says: nobody gets the frame, and nobody is learned from it."""
        frame = BROADCAST + MACS[number] + b"".join(tags) + b"\x88\xb5\0\0"
        self.switch.accept(number, frame, self.now_ns)

    @invariant()
    def tables_are_bounded(self) -> None:
        """Whatever addresses guests make up."""
        assert all(len(port.learned) <= port.config.mac_limit for port in self.switch.ports)

    @invariant()
    def stations_are_where_they_were_last(self) -> None:
        """Each address at one port."""
        for number, port in enumerate(self.switch.ports):
            assert set(port.learned) == {mac for (_, mac), seen in self.seen.items() if seen.port == number}

    def _owner(self, vlan: int, mac: bytes) -> int | None:
        """The port to which an address is tied by configuration."""
        owners = [n for n, p in enumerate(PORTS) if p.vlan == vlan and p.anti_spoofing and p.mac == mac]
        return owners[0] if owners else None

    def _may_send(self, number: int, source: bytes) -> bool:
        port = PORTS[number]
        if source == BROADCAST:
            return False
        owner = self._owner(port.vlan, source)
        return owner == number if owner is not None or port.anti_spoofing else True

    def _fresh(self, seen: Seen) -> bool:
        return self.now_ns - seen.at_ns <= AGING_NS

    def _learn(self, number: int, source: bytes) -> None:
        port = PORTS[number]
        if port.anti_spoofing:
            return
        key = port.vlan, source
        here = [k for k, seen in self.seen.items() if seen.port == number]
        if key in here:
            self.seen[key] = Seen(number, self.now_ns)
            return
        if len(here) >= MAC_LIMIT:
            old = [k for k in here if not self._fresh(self.seen[k])]
            for k in old:
                del self.seen[k]
            if not old:
                return
        self.seen[key] = Seen(number, self.now_ns)

    def _targets(self, number: int, destination: bytes) -> set[int]:
        vlan = PORTS[number].vlan
        members = {n for n, p in enumerate(PORTS) if p.vlan == vlan}
        owner = self._owner(vlan, destination)
        seen = self.seen.get((vlan, destination))
        if owner is not None:
            members = {owner}
        elif seen is not None and self._fresh(seen):
            members = {seen.port}
        return members - {number}


TestSwitch = SwitchMachine.TestCase
TestSwitch.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
