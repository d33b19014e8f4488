"""Which units a peer may use: those that the topology gives to its guests, and no others.

A unit's name is granted; what commands carry is its number, which IDENTIFY tells. So a peer may identify what it was
granted, and use the numbers that it was told. Both are asked for each batch, before the device sees any of it; a peer
in a new life has to identify its units again, as it has to anyway.

When guests move, grants change while commands are under way. What a peer has identified and lost stays usable as long
as nobody else has been granted it: the last commands of a guest that goes are not to fail. As soon as a name belongs to
another peer, or a number to another name, its former owner has it no more.

A number is believed only from the answer to an IDENTIFY, which is found by its id. An id that is in use already could
bring the answer to something else, so it identifies nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import WITH_DATA_OUT, Command, Completion, Opcode, Status

MAX_ASKED = 4096
"""Most IDENTIFY commands of a peer whose answers are waited for; further ones are refused."""


_opcode_of = itemgetter(1)
_unit_of = itemgetter(2)


class Sorted(NamedTuple):
    """A batch, taken apart.

    Attributes:
        granted: Commands that the device may see, in order.
        data: One buffer for each of them that carries data out.
        refused: The others.
    """

    granted: list[Command]
    data: list[Buffer]
    refused: list[Command]


class UnitGrants:
    """The units of each peer.

    Args:
        units: Names by peer; who is not there has none.

    Attributes:
        asking: Whether an answer to an IDENTIFY is waited for.
    """

    def __init__(self, units: Mapping[str, Collection[str]]) -> None:
        self.asking = False
        self._names: dict[str, frozenset[bytes]] = {}
        self._numbers: dict[str, dict[int, bytes]] = {}
        self._asked: dict[str, dict[bytes, bytes]] = {}
        self.grant(units)

    def grant(self, units: Mapping[str, Collection[str]]) -> None:
        """Replace all grants; see the module about what was identified under the old ones."""
        self._names = {peer: frozenset(name.encode() for name in names) for peer, names in units.items()}
        for peer, numbers in self._numbers.items():
            others = {name for other, names in self._names.items() if other != peer for name in names}
            lost = others - self._names.get(peer, frozenset())
            self._numbers[peer] = {number: name for number, name in numbers.items() if name not in lost}

    def opened(self, peer: str, *, resumed: bool) -> None:
        """A queue pair stands; a new life has identified nothing yet."""
        if not resumed or peer not in self._numbers:
            self._numbers[peer] = {}
            self._asked[peer] = {}

    def admits(self, peer: str, commands: Sequence[Command], data: Sequence[Buffer]) -> bool:
        """Whether a whole batch is for units that the peer has identified, and identifies none.

        Args:
            peer: Whose.
            commands: In order.
            data: One buffer for each command that carries data out; IDENTIFY does.
        """
        if data and Opcode.IDENTIFY in map(_opcode_of, commands):
            return False
        return set(map(_unit_of, commands)) <= self._numbers[peer].keys()

    def sort(
        self, peer: str, commands: Sequence[Command], data: Sequence[Buffer], known: Callable[[bytes], bool]
    ) -> Sorted:
        """Take a batch apart that is not admitted as it is.

        Args:
            peer: Whose.
            commands: In order.
            data: As of `admits`.
            known: Whether an id is in use at the device.
        """
        names, numbers, asked = self._names.get(peer, frozenset()), self._numbers[peer], self._asked[peer]
        uses = Counter(command.id for command in commands)
        pieces = iter(data)
        result = Sorted([], [], [])
        for command in commands:
            piece = next(pieces) if command.opcode in WITH_DATA_OUT else None
            if command.opcode is Opcode.IDENTIFY:
                assert piece is not None
                name = bytes(piece)
                is_new = uses[command.id] == 1 and not known(command.id)
                granted = name in names and is_new and len(asked) < MAX_ASKED
                if granted:
                    asked[command.id] = name
            else:
                granted = command.unit in numbers
            if not granted:
                result.refused.append(command)
                continue
            result.granted.append(command)
            if piece is not None:
                result.data.append(piece)
        self.asking = self.asking or bool(asked)
        return result

    def answered(self, peer: str, completions: Sequence[Completion]) -> None:
        """Learn numbers from answers to IDENTIFY among the completions of a batch."""
        asked = self._asked[peer]
        for completion in completions if asked else ():
            name = asked.pop(completion.id, None)
            if name is None or completion.status is not Status.OK:
                continue
            for numbers in self._numbers.values():
                if numbers.get(completion.value, name) != name:
                    del numbers[completion.value]
            if name in self._names.get(peer, frozenset()):
                self._numbers[peer][completion.value] = name
        self.asking = any(self._asked.values())
