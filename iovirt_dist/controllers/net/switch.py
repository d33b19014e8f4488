"""A learning switch: which ports a frame leaves by (IEEE 802.1Q-2018, clause 8, with access ports only).

Theory of operation. Every port is in one VLAN, and each VLAN is a switch of its own. A frame is let in unless it is
against a limit of its port, carries a tag, or comes from an address that the port may not use. The source address is
then known to be at that port: by configuration for ports whose address is known (nobody else can take it), otherwise by
learning, with an age and a limit per port. A frame to a known address leaves by its port alone; one to many, or to an
address that nobody knows, by all the others of the VLAN, within the storm limit of the port that it came from. Each
port has a bounded queue; a frame that finds it full is dropped, like one for a port that is down.

Frames are without check sequence, and shared by all queues that they are in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from iovirt_dist.controllers.net.config import AGING_NS, QUEUE_FRAMES, STORM_FRAMES_PER_S, PortConfig
from iovirt_dist.mux.bucket import TokenBucket

_TAGS: Final = frozenset({b"\x81\x00", b"\x88\xa8"})
"""EtherTypes of C-tags and S-tags (802.1Q-2018, table 9-1)."""

_VID_MASK: Final = 0x0FFF
"""Of the two bytes behind the EtherType, 12 bits are the VLAN's number; 0 means that the tag is for priority only."""

_RESERVED: Final = b"\x01\x80\xc2\x00\x00"
"""First bytes of the addresses that no bridge passes on; the last one is below 10h (802.1Q-2018, table 8-1)."""

BURST_NS: Final = 250_000_000
"""For so long an unused rate is saved up."""


@dataclass(slots=True)
class PortCounts:
    """What passed a port; every frame that came in or was to go out is in exactly one of its direction's counts.

    Attributes:
        frames_in: Let in; `bytes_in` are their bytes.
        over_rate: Dropped: the port sent more than its rate.
        tagged: Dropped: of another VLAN, with a second tag, or cut within the tag.
        spoofed: Dropped: from an address that is another port's, or no station's.
        reserved: Dropped: for the bridge itself.
        storm: Dropped: too many frames to many.
        frames_out: Given to the guest; `bytes_out` are their bytes.
        dropped: Not given to the guest: the queue was full.
        down: Not given to the guest: it was not there.
        unlearned: Let in from an address for which there was no room.
    """

    frames_in: int = 0
    bytes_in: int = 0
    over_rate: int = 0
    tagged: int = 0
    spoofed: int = 0
    reserved: int = 0
    storm: int = 0
    frames_out: int = 0
    bytes_out: int = 0
    dropped: int = 0
    down: int = 0
    unlearned: int = 0


@dataclass(slots=True, eq=False)
class Port:
    """One port.

    Attributes:
        config: What it is.
        up: Whether there is somebody to take frames.
        queue: Frames that wait.
        counts: What happened.
        learned: Addresses that were learned here.
        rate: Limit of bytes sent, None for none.
        storm: Limit of frames to many, None for none.
    """

    config: PortConfig
    up: bool
    queue: deque[bytes]
    counts: PortCounts
    learned: dict[bytes, _Station]
    rate: TokenBucket | None
    storm: TokenBucket | None


@dataclass(slots=True, eq=False)
class _Station:
    """Where an address is.

    Attributes:
        port: There.
        seen_ns: When it last sent.
        fixed: Known by configuration: neither moves nor ages.
    """

    port: Port
    seen_ns: int
    fixed: bool


@dataclass(slots=True, eq=False)
class _Vlan:
    """A switch of its own: its ports, and where addresses are."""

    ports: list[Port]
    stations: dict[bytes, _Station]


class Switch:
    """Decides where frames go, and queues them there.

    Args:
        ports: All ports; the place is the port's number.
        storm_frames_per_s: Frames to many that each port may send, 0 for any number.
        aging_ns: Silence after which a learned address is forgotten.
        queue_frames: Frames that wait at a port.
        tap: File that every frame which is let in is to be written to, None for none.

    Attributes:
        ports: By number; a number whose port is unplugged is given to the next one that is plugged in.
        touched: Numbers of ports whose queue has got frames; whoever serves them clears it.
        captured: Frames to be written, by file; whoever writes them clears it.
    """

    def __init__(
        self,
        ports: Sequence[PortConfig],
        storm_frames_per_s: int = STORM_FRAMES_PER_S,
        aging_ns: int = AGING_NS,
        queue_frames: int = QUEUE_FRAMES,
        tap: Path | None = None,
    ) -> None:
        self.ports: list[Port] = []
        self.touched: set[int] = set()
        self.captured: dict[Path, list[bytes]] = {}
        self._aging_ns = aging_ns
        self._queue_frames = queue_frames
        self._tap = tap
        self._vlans: dict[int, _Vlan] = {}
        self._storm_frames_per_s = storm_frames_per_s
        self._numbers: dict[Port, int] = {}
        self._free: list[int] = []
        for config in ports:
            self.plug(config)

    @property
    def plugged(self) -> list[Port]:
        """The ports that there are now."""
        return list(self._numbers)

    def plug(self, config: PortConfig) -> int:
        """Add a port, which is down; returns its number."""
        port = _make_port(config, self._storm_frames_per_s)
        if self._free:
            number = self._free.pop()
            self.ports[number] = port
        else:
            number = len(self.ports)
            self.ports.append(port)
        self._numbers[port] = number
        vlan = self._vlans.setdefault(config.vlan, _Vlan([], {}))
        vlan.ports.append(port)
        if config.anti_spoofing:
            old = vlan.stations.get(config.mac)
            if old is not None:
                old.port.learned.pop(config.mac, None)
            vlan.stations[config.mac] = _Station(port, 0, True)
        return number

    def unplug(self, number: int) -> None:
        """Take a port away, with what waits there and the addresses that are there."""
        port = self.ports[number]
        self.set_up(number, False)
        del self._numbers[port]
        self._free.append(number)
        self.touched.discard(number)
        vlan = self._vlans[port.config.vlan]
        vlan.ports.remove(port)
        vlan.stations = {address: station for address, station in vlan.stations.items() if station.port is not port}

    def accept(self, number: int, frame: bytes, now_ns: int) -> None:
        """Take a frame that came in at a port.

        Args:
            number: The port's.
            frame: `MIN_FRAME_BYTES` to `MAX_FRAME_BYTES` bytes.
            now_ns: Monotonic time.
        """
        port = self.ports[number]
        counts = port.counts
        if port.rate is not None and not _pays(port.rate, len(frame), now_ns):
            counts.over_rate += 1
            return
        if frame[12:14] in _TAGS:
            if len(frame) < 18 or int.from_bytes(frame[14:16], "big") & _VID_MASK:
                counts.tagged += 1
                return
            frame = frame[:12] + frame[16:]
            if frame[12:14] in _TAGS:  # whoever gets the frame would take it for one of that VLAN
                counts.tagged += 1
                return
        vlan = self._vlans[port.config.vlan]
        if not self._place(vlan, port, frame[6:12], now_ns):
            counts.spoofed += 1
            return
        targets = self._targets(vlan, port, frame[:6], now_ns)
        if targets is None:
            return
        counts.frames_in += 1
        counts.bytes_in += len(frame)
        if self._tap is not None:
            self._capture(self._tap, frame)
        if port.config.tap is not None:
            self._capture(port.config.tap, frame)
        for target in targets:
            if target is not port:
                self._put(target, frame)

    def take(self, number: int) -> bytes:
        """Take the oldest frame that waits at a port, for its guest.

        Raises:
            IndexError: None waits.
        """
        port = self.ports[number]
        frame = port.queue.popleft()
        port.counts.frames_out += 1
        port.counts.bytes_out += len(frame)
        return frame

    def set_up(self, number: int, up: bool) -> None:
        """Say whether somebody takes a port's frames; what waits for nobody is dropped."""
        port = self.ports[number]
        port.up = up
        if not up:
            port.counts.down += len(port.queue)
            port.queue.clear()

    def addresses(self, number: int) -> list[str]:
        """Addresses that were learned at a port, the old ones included."""
        return [address.hex(":") for address in self.ports[number].learned]

    def _place(self, vlan: _Vlan, port: Port, source: bytes, now_ns: int) -> bool:
        """Note that an address is at a port; False if it cannot be."""
        if source[0] & 1:  # a group address is nobody's
            return False
        station = vlan.stations.get(source)
        if station is not None and station.port is port:
            station.seen_ns = now_ns
            return True
        if port.config.anti_spoofing or (station is not None and station.fixed):
            return False
        if len(port.learned) >= port.config.mac_limit and not self._forget_old(vlan, port, now_ns):
            port.counts.unlearned += 1
            return True
        if station is not None:  # it has moved
            del station.port.learned[source]
        vlan.stations[source] = port.learned[source] = _Station(port, now_ns, False)
        return True

    def _forget_old(self, vlan: _Vlan, port: Port, now_ns: int) -> bool:
        """Make room at a port; whether there was something old enough."""
        old = [key for key, station in port.learned.items() if now_ns - station.seen_ns > self._aging_ns]
        for key in old:
            del port.learned[key], vlan.stations[key]
        return bool(old)

    def _targets(self, vlan: _Vlan, port: Port, destination: bytes, now_ns: int) -> Sequence[Port] | None:
        """The ports that a frame is for, maybe its own among them; None if it is dropped."""
        if destination[0] & 1:
            if destination[:5] == _RESERVED and destination[5] < 0x10:
                port.counts.reserved += 1
                return None
        else:
            station = vlan.stations.get(destination)
            if station is not None and (station.fixed or now_ns - station.seen_ns <= self._aging_ns):
                return (station.port,)
        if port.storm is not None and not _pays(port.storm, 1, now_ns):
            port.counts.storm += 1
            return None
        return vlan.ports

    def _put(self, port: Port, frame: bytes) -> None:
        if not port.up:
            port.counts.down += 1
        elif len(port.queue) >= self._queue_frames:
            port.counts.dropped += 1
        else:
            port.queue.append(frame)
            self.touched.add(self._numbers[port])
            if port.config.tap is not None:
                self._capture(port.config.tap, frame)

    def _capture(self, tap: Path, frame: bytes) -> None:
        self.captured.setdefault(tap, []).append(frame)


def _make_port(config: PortConfig, storm_frames_per_s: int) -> Port:
    return Port(
        config,
        up=False,
        queue=deque(),
        counts=PortCounts(),
        learned={},
        rate=_bucket(config.bytes_per_s),
        storm=_bucket(storm_frames_per_s),
    )


def _bucket(rate: int) -> TokenBucket | None:
    return TokenBucket(rate, BURST_NS, 0) if rate else None


def _pays(bucket: TokenBucket, tokens: int, now_ns: int) -> bool:
    if bucket.spendable(now_ns) <= 0:
        return False
    bucket.pay(tokens)
    return True
