"""Two hypervisors that want each other's units, with any commands and ids, at a device that answers in any order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from hypothesis import example, given, settings
from hypothesis import strategies as st

from iovirt_dist.controllers.base import CommandsSubmitted, CompleteCommands, QueuePairOpened, QueuePairs
from iovirt_dist.controllers.grants import UnitGrants
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import WITH_DATA_OUT, Command, Opcode, Status

UNITS = ("mine", "yours")
"""Names; a unit's number is its place."""
GRANTS = {"p": {"mine"}, "q": {"yours"}}
PEERS = tuple(GRANTS)


def command(opcode: Opcode, number: int, unit: int) -> Command:
    """A command with one of few ids."""
    return Command(number.to_bytes(16, "little"), opcode, unit, 0, 4)


STEAL = (0, [command(Opcode.READ, 1, 1)], list[str]())
"""A command for the other's unit."""

commands = st.builds(
    command,
    st.sampled_from([Opcode.IDENTIFY, Opcode.IDENTIFY, Opcode.READ, Opcode.WRITE]),
    st.integers(0, 1),
    st.integers(0, len(UNITS)),
)
batches = st.tuples(
    st.integers(0, 1), st.lists(commands, min_size=1, max_size=4), st.lists(st.sampled_from(UNITS), max_size=4)
)
steps = st.lists(st.one_of(batches, st.integers(0, 2), st.booleans()), max_size=16)


class Device:
    """Queue pairs behind grants, with each peer's units identified; notes what it is made to do."""

    def __init__(self) -> None:
        self.grants = UnitGrants(GRANTS)
        self.pairs = QueuePairs(queue_credits=8, burst=2)
        self.done: list[tuple[str, Opcode, int, bytes]] = []
        for pair in range(len(PEERS)):
            self.open(pair, resumed=False)
            for name in sorted(GRANTS[PEERS[pair]]):
                self.submit(pair, [Command(name.encode().zfill(16), Opcode.IDENTIFY)], [name])
                self.work(0)

    def open(self, pair: int, *, resumed: bool) -> None:
        """A session of a peer begins or goes on."""
        self.grants.opened(PEERS[pair], resumed=resumed)
        self.pairs.opened(QueuePairOpened(pair, PEERS[pair], resumed))

    def submit(self, pair: int, batch: list[Command], names: list[str]) -> None:
        """A batch comes in; data of commands beyond the names is a name that is granted to nobody."""
        count = sum(command.opcode in WITH_DATA_OUT for command in batch)
        data: Sequence[Buffer] = [name.encode() for name in (*names, *["none"] * count)][:count]
        if not self.grants.admits(PEERS[pair], batch, data):
            found = self.grants.sort(PEERS[pair], batch, data, partial(self.pairs.knows, pair))
            batch, data = found.granted, found.data
        self.pairs.submit(CommandsSubmitted(pair, batch, list(data)))
        self.answer()

    def work(self, value: int) -> None:
        """Do one command; what is no IDENTIFY ends with any value."""
        for command in self.pairs.take(1):
            name = bytes(command.data).decode()
            self.done.append((command.queues.peer, command.opcode, command.unit, bytes(command.data)))
            if command.opcode is not Opcode.IDENTIFY:
                self.pairs.complete(command, Status.OK, b"", value)
            elif name in UNITS:
                self.pairs.complete(command, Status.OK, b"identity", UNITS.index(name))
            else:
                self.pairs.complete(command, Status.UNKNOWN_UNIT)
        self.answer()

    def answer(self) -> None:
        """Completions go out."""
        for batch in self.pairs.collect():
            assert isinstance(batch, CompleteCommands)
            self.grants.answered(PEERS[batch.pair], batch.completions)


@settings(max_examples=300, deadline=None)
@example([(0, [command(Opcode.WRITE, 0, 0), command(Opcode.IDENTIFY, 0, 0)], ["mine", "mine"]), 1, STEAL, 0])
@given(steps)
def test_no_peer_reaches_a_unit_that_it_was_not_granted(
    script: list[tuple[int, list[Command], list[str]] | int | bool],
) -> None:
    """Whatever ids are used again and whatever values come back, names and numbers stay with their owners."""
    device = Device()
    for step in script:
        match step:
            case bool():
                device.open(0, resumed=step)
            case int():
                device.work(step)
            case pair, batch, names:
                device.submit(pair, batch, names)
    for peer, opcode, unit, data in device.done:
        name = data.decode() if opcode is Opcode.IDENTIFY else UNITS[unit]
        assert name in GRANTS[peer]
