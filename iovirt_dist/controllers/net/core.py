"""The network controller's core: commands of many queue pairs become frames through one switch.

Theory of operation. A port belongs to one hypervisor and is up from its identification until that hypervisor's queue
pair closes. A transmit ends as soon as the switch has seen its frame. Receives are parked, in order, until the
switch has a frame for their port. What the switch gives for the built-in host never leaves the core, except for the
files that the host is asked for. What it gives for the uplink leaves at the end of the same turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from iovirt_dist.controllers.base import (
    NO_LIMIT,
    CommandsSubmitted,
    CompleteCommands,
    PairEvent,
    QueuePairClosed,
    QueuePairOpened,
    QueuePairs,
    TimerFired,
)
from iovirt_dist.controllers.net.config import QUEUE_CREDITS, NetConfig, PortConfig, ResponderConfig
from iovirt_dist.controllers.net.responder import Responder
from iovirt_dist.controllers.net.switch import Switch
from iovirt_dist.controllers.net.tftp import FileAccess, FileOpened, FileOutcome, FileRead
from iovirt_dist.controllers.net.uplink import (
    SendUplink,
    UplinkChanged,
    UplinkDropped,
    UplinkEvent,
    UplinkReceived,
    uplink_port,
)
from iovirt_dist.controllers.peer_queues import OutstandingCommand
from iovirt_dist.wire.commands import MAX_FRAME_BYTES, MIN_FRAME_BYTES, Opcode, Status, UnitIdentity

MAX_PARKED: Final = 64
"""Receives parked per port; more are completed with QUEUE_FULL."""


@dataclass(frozen=True, slots=True)
class CaptureFrames:
    """Write frames to a capture file.

    Attributes:
        tap: The file.
        frames: In order.
        at_ns: When they passed, monotonic.
    """

    tap: Path
    frames: Sequence[bytes]
    at_ns: int


@dataclass(frozen=True, slots=True)
class PortsChanged:
    """Other guests are there now; a port that is the same as before goes on as it was."""

    ports: tuple[PortConfig, ...]


NetAccess = CaptureFrames | FileAccess | SendUplink
NetAction = CompleteCommands | NetAccess
NetOutcome = FileOutcome | UplinkEvent | PortsChanged
NetEvent = PairEvent | NetOutcome

RESPONDER: Final = "(responder)"
"""Name of the built-in host's port: no guest's."""


class NetController:
    """Sans-IO core of a network controller.

    Args:
        config: What the switch is like.
        queue_credits: Commands that one queue pair may have in flight.
        burst: Commands taken from one queue pair before the next has its turn.
    """

    def __init__(self, config: NetConfig, queue_credits: int = QUEUE_CREDITS, burst: int = 32) -> None:
        self.pairs = QueuePairs(queue_credits, burst)
        ports = _all_ports(config)
        self.switch = Switch(ports, config.storm_frames_per_s, config.aging_ns, config.queue_frames, config.tap)
        self.responder = Responder(config.responder) if config.responder else None
        self.uplink_dropped = 0
        """Frames that the uplink's interface did not take, and those from there that no guest would take."""
        self._config = config
        self._responder_number = len(config.ports)
        self._uplink_number = len(ports) - 1
        for number in range(len(config.ports), len(ports)):
            self.switch.set_up(number, True)
        self._numbers = {port.name: number for number, port in enumerate(config.ports)}
        self._parked: dict[int, deque[OutstandingCommand]] = {number: deque() for number in self._numbers.values()}
        self._identified: dict[str, set[int]] = {}
        self._open: dict[int, str] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            QueuePairOpened: self._pair_opened,
            QueuePairClosed: self._pair_closed,
            CommandsSubmitted: self.pairs.submit,
            TimerFired: self._timer_fired,
            FileOpened: self._file_event,
            FileRead: self._file_event,
            UplinkReceived: self._uplink_received,
            UplinkDropped: self._uplink_dropped,
            UplinkChanged: self._uplink_changed,
            PortsChanged: self._ports_changed,
        }
        self._now_ns = 0

    def handle(self, event: NetEvent, now_ns: int) -> list[NetAction]:
        """Take an event; return completions first, then frames for the uplink, captures, accesses to files."""
        self._now_ns = now_ns
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        for command in self.pairs.take(NO_LIMIT):
            self._start(command)
        switch = self.switch
        accesses = self._respond(self.responder) if self.responder is not None else ()
        for number in sorted(switch.touched):
            if number in self._parked:
                self._serve(number)
        actions: list[NetAction] = [*self.pairs.collect()]
        if self._config.uplink and self._uplink_number in switch.touched:
            actions.append(self._send_uplink())
        switch.touched.clear()
        if switch.captured:
            actions += [CaptureFrames(tap, frames, now_ns) for tap, frames in switch.captured.items()]
            switch.captured.clear()
        actions += accesses
        return actions

    def deadline_ns(self) -> int | None:
        """When the built-in host has something to send again."""
        return self.responder.deadline_ns() if self.responder is not None else None

    def status(self) -> dict[str, Any]:
        """What happened at each port, and what the built-in host did."""
        ports = {
            port.config.name: {
                "up": port.up,
                "vlan": port.config.vlan,
                "mac": port.config.mac.hex(":"),
                "waiting": len(port.queue),
                "learned": len(port.learned),
                **asdict(port.counts),
            }
            for port in self.switch.plugged
        }
        return {
            "ports": ports,
            "responder": self.responder.status() if self.responder is not None else {},
            "uplink": self._uplink_status() if self._config.uplink else {},
        }

    # --- the built-in host

    def _respond(self, responder: Responder) -> Sequence[FileAccess]:
        """Give the host its frames and send what it says; returns what it wants of files."""
        number, switch = self._responder_number, self.switch
        while switch.ports[number].queue:
            responder.receive(switch.take(number), self._now_ns)
        for frame in responder.sent:
            switch.accept(number, frame, self._now_ns)
        responder.sent.clear()
        return responder.take_accesses()

    def _timer_fired(self, event: TimerFired) -> None:  # noqa: ARG002 - a handler takes its event
        if self.responder is not None:
            self.responder.tick(self._now_ns)

    def _file_event(self, event: FileOutcome) -> None:
        if self.responder is not None:
            self.responder.file_event(event, self._now_ns)

    # --- the uplink

    def _uplink_status(self) -> dict[str, Any]:
        port = self.switch.ports[self._uplink_number]
        return {"interface": self._config.uplink, "up": port.up, "dropped": self.uplink_dropped}

    def _send_uplink(self) -> SendUplink:
        """Everything that waits there: the interface takes it now or not at all."""
        number, take = self._uplink_number, self.switch.take
        return SendUplink([take(number) for _ in range(len(self.switch.ports[number].queue))])

    def _uplink_received(self, event: UplinkReceived) -> None:
        """Frames from outside; of a length that no guest takes they are dropped."""
        number, accept, now_ns = self._uplink_number, self.switch.accept, self._now_ns
        for frame in event.frames:
            if MIN_FRAME_BYTES <= len(frame) <= MAX_FRAME_BYTES:
                accept(number, frame, now_ns)
            else:
                self.uplink_dropped += 1

    def _uplink_dropped(self, event: UplinkDropped) -> None:
        self.uplink_dropped += event.frames

    def _uplink_changed(self, event: UplinkChanged) -> None:
        self.switch.set_up(self._uplink_number, event.up)

    # --- queue pairs and ports

    def _pair_opened(self, event: QueuePairOpened) -> None:
        """The ports of a peer that is back are up again; those of a peer's new life once it has identified them."""
        self._take_down(event.peer)
        self.pairs.opened(event)
        self._open[event.pair] = event.peer
        if not event.resumed:
            self._identified[event.peer] = set()
        for parked in self._parked.values():
            stale = [command for command in parked if command.queues.abandoned]
            for command in stale:
                parked.remove(command)
        for number in self._identified.get(event.peer, ()):
            self.switch.set_up(number, True)

    def _pair_closed(self, event: QueuePairClosed) -> None:
        self.pairs.closed(event)
        peer = self._open.pop(event.pair, None)
        if peer is not None and peer not in self._open.values():
            self._take_down(peer)

    def _ports_changed(self, event: PortsChanged) -> None:
        wanted = {port.name: port for port in event.ports}
        for name, number in list(self._numbers.items()):
            if self.switch.ports[number].config != wanted.get(name):
                self._unplug(name, number)
        for name, config in wanted.items():
            if name not in self._numbers:
                number = self._numbers[name] = self.switch.plug(config)
                self._parked[number] = deque()

    def _unplug(self, name: str, number: int) -> None:
        """Take a guest's port away; what is parked there ends."""
        del self._numbers[name]
        for command in self._parked.pop(number):
            self.pairs.complete(command, Status.UNKNOWN_UNIT)
        for identified in self._identified.values():
            identified.discard(number)
        self.switch.unplug(number)

    def _take_down(self, peer: str) -> None:
        for number in self._identified.get(peer, ()):
            self.switch.set_up(number, False)

    # --- commands

    def _start(self, command: OutstandingCommand) -> None:
        if command.opcode is Opcode.NET_TRANSMIT:
            self._transmit(command)
        elif command.opcode is Opcode.NET_RECEIVE:
            self._receive(command)
        elif command.opcode is Opcode.IDENTIFY:
            self._identify(command)
        else:
            self.pairs.complete(command, Status.UNKNOWN_OPCODE)

    def _identify(self, command: OutstandingCommand) -> None:
        name = bytes(command.data).decode("ascii", errors="replace")
        number = self._numbers.get(name)
        peer = command.queues.peer
        if number is None or self.switch.ports[number].config.peer != peer:
            self.pairs.complete(command, Status.UNKNOWN_UNIT)
            return
        self._identified.setdefault(peer, set()).add(number)
        self.switch.set_up(number, True)
        identity = UnitIdentity(MAX_FRAME_BYTES, 1, False, name[:20])
        self.pairs.complete(command, Status.OK, identity.pack(), number)

    def _is_its_port(self, command: OutstandingCommand) -> bool:
        """Whether the command is for a port that its peer has identified; it ends if not."""
        if command.unit in self._identified.get(command.queues.peer, ()):
            return True
        self.pairs.complete(command, Status.UNKNOWN_UNIT)
        return False

    def _transmit(self, command: OutstandingCommand) -> None:
        if not self._is_its_port(command):
            return
        if MIN_FRAME_BYTES <= command.length == len(command.data) <= MAX_FRAME_BYTES:
            # a copy: the frame may wait, and would keep all of the message that it is a part of
            self.switch.accept(command.unit, bytes(command.data), self._now_ns)
            self.pairs.complete(command, Status.OK)
        else:
            self.pairs.complete(command, Status.BAD_LENGTH)

    def _receive(self, command: OutstandingCommand) -> None:
        if not self._is_its_port(command):
            return
        parked = self._parked[command.unit]
        if command.length < MIN_FRAME_BYTES:
            self.pairs.complete(command, Status.BAD_LENGTH)
        elif len(parked) >= MAX_PARKED:
            self.pairs.complete(command, Status.QUEUE_FULL)
        else:
            parked.append(command)
            self.switch.touched.add(command.unit)

    def _serve(self, number: int) -> None:
        """Give frames to the receives that are parked at a port; one that is too short for its frame fails."""
        queue, parked = self.switch.ports[number].queue, self._parked[number]
        while queue and parked:
            command = parked.popleft()
            frame = self.switch.take(number)
            if len(frame) <= command.length:
                self.pairs.complete(command, Status.OK, frame)
            else:
                self.pairs.complete(command, Status.BAD_LENGTH)


def _all_ports(config: NetConfig) -> list[PortConfig]:
    """The guests' ports, then those of the built-in host and of the uplink, if any."""
    ports = list(config.ports)
    if config.responder:
        ports.append(_responder_port(config.responder))
    if config.uplink:
        ports.append(uplink_port())
    return ports


def _responder_port(responder: ResponderConfig) -> PortConfig:
    return PortConfig(name=RESPONDER, peer="", mac=responder.mac, vlan=responder.vlan)
