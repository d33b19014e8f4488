"""The controller protocol in front of a controller core: sessions become queue pairs, messages become commands.

Completions always find room in the session's window, which is at least as large as the queue pair's credits. Every
unacknowledged message carries a completion that the peer had not seen when it sent the last envelope that we know of;
the requests of all these were in flight on its side then, so they are at most its credits. A peer that exceeds its
credits and acknowledges nothing loses the completions beyond the window; that is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from iovirt_dist.controllers.base import (
    CommandsSubmitted,
    CompleteCommands,
    PairEvent,
    PairShare,
    QueuePairClosed,
    QueuePairOpened,
    QueuePairs,
)
from iovirt_dist.controllers.base import TimerFired as DeviceTimerFired
from iovirt_dist.controllers.grants import UnitGrants
from iovirt_dist.controllers.news import TellUnitsChanged
from iovirt_dist.controllers.tracing import command_points, completion_points
from iovirt_dist.errors import DecodeError, WindowFullError
from iovirt_dist.step import Record, TracePoint
from iovirt_dist.wire.acceptor import Acceptor
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Command, Completion, Status, command_data, pack_completions, unpack_commands
from iovirt_dist.wire.messages import Complete, Hello, Role, Submit, UnitsChanged
from iovirt_dist.wire.session import Delivered, Lost, Opened, SendFrames, SessionConfig, SessionOutput


class FramesReceived(Record, frozen=True):
    """A message came from a hypervisor's address."""

    peer: bytes
    frames: Sequence[Buffer]


class TimerFired(NamedTuple):
    """The deadline that the front gave has come, or any earlier time."""


class StopRequested(NamedTuple):
    """The process is about to end."""

    reason: str


Send = SendFrames
"""Send frames to a hypervisor: what its session says goes out as it is."""


class Note(NamedTuple):
    """Log one line of life cycle."""

    text: str


FrontEvent: TypeAlias = FramesReceived | TimerFired | StopRequested
FrontAction: TypeAlias = Send | Note | TracePoint

Outcome = TypeVar("Outcome")
"""Events of a device core that tell how its I/O ended; the front passes them on."""
Access = TypeVar("Access")
"""I/O actions of a device core; the front passes them out."""
Outcome_co = TypeVar("Outcome_co", covariant=True)
Outcome_contra = TypeVar("Outcome_contra", contravariant=True)
Access_co = TypeVar("Access_co", covariant=True)
Access_contra = TypeVar("Access_contra", contravariant=True)


class DeviceCore(Protocol[Outcome_contra, Access_co]):
    """A controller's device class: block, console, entropy or network."""

    @property
    def pairs(self) -> QueuePairs:
        """Its queue pairs."""
        ...

    def handle(
        self, event: PairEvent | Outcome_contra, now_ns: int
    ) -> Sequence[CompleteCommands | TellUnitsChanged | Access_co]:
        """Take queue pair events and outcomes of I/O; give completions, news of units, and I/O actions."""
        ...

    def deadline_ns(self) -> int | None:
        """When it wants a `controllers.base.TimerFired`, None while nothing is timed."""
        ...


class ControllerFront(Generic[Outcome, Access]):
    """Sans-IO core of a controller process.

    Args:
        config: This process's session settings; its credits are the depth of every queue pair.
        device: The device class behind the front.
        hypervisors: Names that may open a queue pair.
        weights: Their shares of the device, 1..255 by name; who is not there has 1.
        units: Names of the units that each may use; None: everybody every unit.

    Attributes:
        not_granted: Commands refused because their unit is another's.
        malformed: Batches of commands that could not be decoded.
        overruns: Batches of completions that a peer, which acknowledges nothing, left no room for.
    """

    def __init__(
        self,
        config: SessionConfig,
        device: DeviceCore[Outcome, Access],
        hypervisors: frozenset[str],
        weights: Mapping[str, int] | None = None,
        units: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self.acceptor = Acceptor(replace(config, window=max(config.window, config.credits)), self._refusal)
        self.malformed = 0
        self.overruns = 0
        self.not_granted = 0
        self._grants = UnitGrants(units) if units is not None else None
        self._owners: dict[int, str] = {}
        self._tracing = False
        self._deaf: set[int] = set()
        self._device = device
        self._hypervisors = hypervisors
        self._pairs: dict[bytes, int] = {}
        self._peers: dict[int, bytes] = {}
        self._addresses: dict[str, bytes] = {}
        self._interrupts: dict[int, int] = {}
        self._changed = False
        self._untold: set[int] = set()
        self._opened = 0
        self.set_weights(weights or {})

    def handle(self, event: FrontEvent | Outcome, now_ns: int) -> list[FrontAction | Access]:
        """Take one event; whatever the front does not know goes to the device core."""
        if isinstance(event, FramesReceived):
            return self._outputs(self.acceptor.receive(event.peer, event.frames, now_ns), now_ns)
        if isinstance(event, TimerFired):
            actions = self._outputs(self.acceptor.tick(now_ns), now_ns)
            due = self._device.deadline_ns()
            return actions if due is None or due > now_ns else actions + self._device_event(DeviceTimerFired(), now_ns)
        if isinstance(event, StopRequested):
            return self._outputs(self.acceptor.close(event.reason, now_ns), now_ns)
        return self._device_event(event, now_ns)

    def deadline_ns(self) -> int | None:
        """When a `TimerFired` is due."""
        session, device = self.acceptor.deadline_ns(), self._device.deadline_ns()
        return device if session is None or (device is not None and device < session) else session

    def trace(self, on: bool) -> None:
        """Give a `TracePoint` for each command and completion from now on, or no more."""
        self._tracing = on

    @property
    def connected(self) -> list[str]:
        """Hypervisors whose queue pairs are open."""
        return sorted(name for name, address in self._addresses.items() if address in self._pairs)

    def grant(self, units: Mapping[str, Collection[str]]) -> None:
        """Let hypervisors use other units from now on, as `units` of the constructor."""
        if self._grants is not None:
            self._grants.grant(units)

    def set_weights(self, weights: Mapping[str, int]) -> None:
        """Set the hypervisors' shares of the device from now on, as `weights` of the constructor."""
        self._device.pairs.set_weights(weights)

    def shares(self) -> dict[str, PairShare]:
        """What each hypervisor has had of the device, by name."""
        return self._device.pairs.shares()

    def _refusal(self, hello: Hello) -> str | None:
        return None if hello.role is Role.HYPERVISOR and hello.name in self._hypervisors else "unknown-name"

    def _outputs(self, outputs: Sequence[SessionOutput], now_ns: int) -> list[FrontAction | Access]:
        actions: list[FrontAction | Access] = []
        for output in outputs:
            if isinstance(output, Delivered):
                actions += self._submitted(output, now_ns)
            elif isinstance(output, SendFrames):
                actions.append(output)
            elif isinstance(output, Opened):
                actions.append(Note(f"hypervisor {output.name} {'is back' if output.resumed else 'connected'}"))
                actions += self._open(output, now_ns)
            elif isinstance(output, Lost):
                actions.append(Note(f"hypervisor {output.name} lost: {output.reason}"))
                actions += self._close(output.peer, now_ns)
        return actions

    def _open(self, opened: Opened, now_ns: int) -> list[FrontAction | Access]:
        actions = self._close(self._addresses.get(opened.name, b""), now_ns)
        self._addresses[opened.name] = opened.peer
        self._opened += 1
        self._pairs[opened.peer] = self._opened
        self._peers[self._opened] = opened.peer
        self._owners[self._opened] = opened.name
        if self._grants is not None:
            self._grants.opened(opened.name, resumed=opened.resumed)
        pair = QueuePairOpened(self._opened, opened.name, opened.resumed, opened.epoch)
        actions += self._device_event(pair, now_ns)
        if opened.resumed and self._changed:  # it may have been away as the others were told
            actions.append(self._tell(self._opened, now_ns))
        return actions

    def _close(self, peer: bytes, now_ns: int) -> list[FrontAction | Access]:
        pair = self._pairs.pop(peer, None)
        if pair is None:
            return []
        del self._peers[pair], self._owners[pair]
        self._interrupts.pop(pair, None)
        self._untold.discard(pair)
        self._deaf.discard(pair)
        return self._device_event(QueuePairClosed(pair), now_ns)

    def _submitted(self, delivered: Delivered, now_ns: int) -> list[FrontAction | Access]:
        pair = self._pairs.get(delivered.peer)
        if pair is None or not isinstance(delivered.body, Submit):
            return []
        try:
            commands = unpack_commands(delivered.body.commands)
            data = command_data(commands, delivered.payload)
        except DecodeError as error:
            self.malformed += 1
            return [Note(f"commands refused: {error}")]
        if pair in self._untold:
            return [self._tell(pair, now_ns), *self._granted(pair, commands, data, now_ns)]
        return self._granted(pair, commands, data, now_ns)

    def _granted(
        self, pair: int, commands: list[Command], data: list[Buffer], now_ns: int
    ) -> list[FrontAction | Access]:
        """Hand commands to the device, those of units that the peer may use."""
        grants, owner = self._grants, self._owners[pair]
        if grants is None or grants.admits(owner, commands, data):
            return self._device_event(CommandsSubmitted(pair, commands, data), now_ns)
        known = partial(self._device.pairs.knows, pair)
        granted, data, refused = grants.sort(owner, commands, data, known)
        actions = self._device_event(CommandsSubmitted(pair, granted, data), now_ns) if granted else []
        if refused:
            self.not_granted += len(refused)
            completions = [Completion(command.id, Status.UNKNOWN_UNIT) for command in refused]
            actions.append(self._complete(CompleteCommands(pair, completions, []), now_ns))
        return actions

    def _device_event(self, event: PairEvent | Outcome, now_ns: int) -> list[FrontAction | Access]:
        actions = self._device.handle(event, now_ns)
        done: list[FrontAction | Access] = []
        for action in actions:
            if isinstance(action, CompleteCommands):
                done.append(self._complete(action, now_ns))
            elif isinstance(action, TellUnitsChanged):
                self._changed = True
                done += [self._tell(pair, now_ns) for pair in self._peers]
            else:
                done.append(action)
        return [*self._points(event, actions), *done] if self._tracing else done

    def _points(
        self, event: PairEvent | Outcome, actions: Sequence[CompleteCommands | TellUnitsChanged | Access]
    ) -> Iterator[FrontAction | Access]:
        """Give the trace points of an event of the device and what came of it."""
        names = {pair: name for name, address in self._addresses.items() if (pair := self._pairs.get(address))}
        if isinstance(event, CommandsSubmitted):
            yield from command_points(names.get(event.pair, ""), event.commands)
        for action in actions:
            if isinstance(action, CompleteCommands):
                yield from completion_points(names.get(action.pair, ""), action.completions)

    def _tell(self, pair: int, now_ns: int) -> FrontAction:
        """Have a peer ask for its units again; one without room for a message is told with its next commands."""
        self._untold.discard(pair)
        try:
            return self.acceptor.send(self._peers[pair], UnitsChanged(), (), now_ns)
        except WindowFullError:
            self._untold.add(pair)
            return Send(self._peers[pair], [])

    def _complete(self, action: CompleteCommands, now_ns: int) -> FrontAction:
        """One batch of completions is one message and one interrupt."""
        if self._grants is not None and self._grants.asking and action.pair in self._owners:
            self._grants.answered(self._owners[action.pair], action.completions)
        peer = self._peers.get(action.pair)
        if peer is None:
            return Note(f"completions for queue pair {action.pair}, which is gone")
        count = self._interrupts[action.pair] = self._interrupts.get(action.pair, 0) + 1
        message = Complete(count, pack_completions(action.completions))
        try:
            return self.acceptor.send(peer, message, action.payload, now_ns)
        except WindowFullError as error:
            self.overruns += 1
            if action.pair in self._deaf:
                return Send(peer, [])
            self._deaf.add(action.pair)
            return Note(f"queue pair {action.pair} takes no messages: {error}")
