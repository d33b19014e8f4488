"""Life of the overlays' units: opened when they are identified first, closed when they are no longer allowed.

    absent --IDENTIFY--> OPENING --opened--> OPEN --not allowed--> DRAINING --idle--> CLOSING --closed--> absent
                            |                                                           (again OPENING if wanted)
                            +--failed--> absent

Opening makes the file and reads its map, and closing syncs it, so both are actions; commands that ask for the unit
meanwhile wait for the outcome. A name keeps its number for the life of the controller, and who knows it from before
the overlay was closed need not identify the unit again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection
from dataclasses import dataclass

from iovirt_dist.controllers.block.extents import MAX_OVERLAYS, ExtentTable, Unit
from iovirt_dist.controllers.peer_queues import OutstandingCommand
from iovirt_dist.wire.commands import Status


@dataclass(frozen=True, slots=True)
class OpenOverlay:
    """Open the overlay of a unit, make it if there is none; answered by `OverlayOpened`.

    Attributes:
        name: The unit, ``EXTENT@GUEST``.
        slot: Where in the linear range.
        base_offset: First byte of the base in the image.
        size_bytes: Its length.
    """

    name: str
    slot: int
    base_offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class CloseOverlay:
    """Sync and close an overlay that nothing accesses any more; answered by `OverlayClosed`."""

    name: str
    slot: int


@dataclass(frozen=True, slots=True)
class OverlayOpened:
    """An overlay is open, or has a problem, which is one line for the user."""

    name: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class OverlayClosed:
    """An overlay is closed; `error` is an errno value, 0 for success: else the fate of its last writes is unknown."""

    name: str
    error: int = 0


@dataclass(frozen=True, slots=True)
class OverlaysAllowed:
    """Only these overlays, ``EXTENT@GUEST``, may be used from now on."""

    names: frozenset[str]


class _State(enum.Enum):
    OPENING = enum.auto()
    OPEN = enum.auto()
    DRAINING = enum.auto()
    CLOSING = enum.auto()


OverlayAction = OpenOverlay | CloseOverlay


class OverlayUnits:
    """The overlays of one controller.

    Args:
        table: Has the extents; gets a unit for each overlay.
        allowed: Overlays that may be used.
        answer: Goes on with a command that needs an overlay: gets the command, and the unit or
            why there is none.

    Attributes:
        problems: Why overlays could not be opened, by name, until they can be.
        actions: What is to be done, until somebody takes it.
        draining: Units whose overlays wait for the last access to end, by number.
    """

    def __init__(
        self,
        table: ExtentTable,
        allowed: Collection[str],
        answer: Callable[[OutstandingCommand, Unit | Status], None],
    ) -> None:
        self.problems: dict[str, str] = {}
        self.actions: list[OverlayAction] = []
        self.draining: dict[int, str] = {}
        self._table = table
        self._allowed: frozenset[str] = frozenset()
        self._answer = answer
        self._states: dict[str, _State] = {}
        self._waiting: dict[str, list[OutstandingCommand]] = {}
        self._names: dict[int, str] = {}
        self._allow(allowed)

    @property
    def open(self) -> list[str]:
        """Names of the overlays that are open."""
        return [name for name, state in self._states.items() if state is _State.OPEN]

    def identify(self, name: str, command: OutstandingCommand) -> None:
        """Answer a command that asks for a unit which is no extent and no open overlay, now or later."""
        if not self._usable(name):
            self._answer(command, Status.UNKNOWN_UNIT)
            return
        self._waiting.setdefault(name, []).append(command)
        if name not in self._states:
            self._open(name)

    def access(self, number: int, command: OutstandingCommand) -> None:
        """Answer a command that accesses the unit of an overlay that is not open, now or later."""
        self.identify(self._names[number], command)

    def opened(self, event: OverlayOpened) -> None:
        """Give the unit to those who wait for it."""
        if self._states.get(event.name) is not _State.OPENING:
            return
        unit: Unit | Status = Status.UNKNOWN_UNIT
        if event.problem:
            unit = Status.MEDIUM_ERROR
            self.problems[event.name] = event.problem
            del self._states[event.name]
        else:
            self.problems.pop(event.name, None)
            self._states[event.name] = _State.OPEN
            if event.name in self._allowed:
                unit = self._table.admit(event.name)
            else:
                self._close(event.name)
        for command in self._waiting.pop(event.name, []):
            self._answer(command, unit)

    def allow(self, event: OverlaysAllowed, busy: Collection[int]) -> None:
        """Change what may be used; `busy` are numbers of units that are being accessed."""
        self._allow(event.names)
        for name in self.open:
            if name not in event.names:
                self._states[name] = _State.DRAINING
                self.draining[self._table.retire(name).number] = name
        self.drained(busy)

    def drained(self, busy: Collection[int]) -> None:
        """Close what waits for its last access and has none any more."""
        for number in [number for number in self.draining if number not in busy]:
            self._close(self.draining.pop(number))

    def closed(self, event: OverlayClosed) -> None:
        """An overlay is closed; whoever has asked for it meanwhile gets it anew."""
        if self._states.get(event.name) is not _State.CLOSING:
            return
        del self._states[event.name]
        if event.name not in self._waiting:
            return
        if self._usable(event.name):
            self._open(event.name)
            return
        for command in self._waiting.pop(event.name):
            self._answer(command, Status.UNKNOWN_UNIT)

    def _allow(self, names: Collection[str]) -> None:
        self._allowed = frozenset(names)
        for name in names:
            self._table.protect_base(name)

    def _usable(self, name: str) -> bool:
        """Whether a name is that of an overlay that may be used and has a number or can have one."""
        room = self._table.overlays < MAX_OVERLAYS or self._table.reserved(name)
        return name in self._allowed and self._table.base_of(name) is not None and room

    def _open(self, name: str) -> None:
        self._states[name] = _State.OPENING
        unit, base = self._table.reserve(name)
        self._names[unit.number] = name
        self.actions.append(OpenOverlay(name, unit.number, base.start_bytes, base.size_bytes))

    def _close(self, name: str) -> None:
        self._states[name] = _State.CLOSING
        self.actions.append(CloseOverlay(name, self._table.reserve(name)[0].number))
