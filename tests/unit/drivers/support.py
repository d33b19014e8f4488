"""A controller as a queue pair sees it: takes batches, completes when told."""

from __future__ import annotations

from collections.abc import Sequence

from iovirt_dist.drivers.queue_pair import QueuePair
from iovirt_dist.drivers.request import DeviceQueue, Request
from iovirt_dist.ids import RequestId
from iovirt_dist.mux.multiqueue import MultiQueue
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import (
    WITH_DATA_OUT,
    Command,
    Completion,
    Opcode,
    Status,
    UnitIdentity,
    command_data,
    pack_completions,
    unpack_commands,
)
from iovirt_dist.wire.messages import Complete

DISK = UnitIdentity(1 << 20, 512, False, "DISK")


class Outcomes:
    """What requesters were told: (tag, status, data) in order."""

    def __init__(self) -> None:
        self.told: list[tuple[int, Status, bytes]] = []
        self._queues: dict[tuple[int, int, str], DeviceQueue] = {}

    def queue(self, pair: QueuePair, guest: int = 5, unit: str = "root") -> DeviceQueue:
        """A guest's queue, whose requests report here."""
        key = (id(pair), guest, unit)
        if key not in self._queues:
            self._queues[key] = pair.device_queue(unit, guest, 0 if unit == "root" else 1, self)
        return self._queues[key]

    def offer(
        self,
        pair: QueuePair,
        tag: int,
        opcode: Opcode = Opcode.READ,
        *,
        guest: int = 5,
        unit: str = "root",
        data: bytes = b"",
    ) -> bool:
        """Queue a request that reports here."""
        return self.queue(pair, guest, unit).offer(tag, opcode, 0, len(data) or 512, data)

    def completed(self, request: Request, status: Status, data: Buffer, now_ns: int) -> None:
        """Keep it."""
        self.told.append((request.tag, status, bytes(data)))


class Controller:
    """The other end of a queue pair.

    Args:
        pair: The queue pair.
        units: What it identifies, by name; the place is the unit number.
        credits: Depth.

    Attributes:
        commands: Commands taken and not completed.
        data: Their data, by id.
    """

    def __init__(self, pair: QueuePair, units: dict[str, UnitIdentity], credits: int = 8) -> None:  # noqa: A002 - the protocol's word
        self.pair = pair
        self.units = units
        self.credits = credits
        self.commands: list[Command] = []
        self.data: dict[bytes, bytes] = {}
        self.now_ns = 0
        self._interrupts = 0

    def open(self, *, resumed: bool = False) -> None:
        """The session opens; identification is answered."""
        self.pair.opened(self.credits, resumed)
        self.take()

    def take(self) -> list[int]:
        """Take all batches, answer identifications; returns the sizes of the batches."""
        sizes: list[int] = []
        while (batch := self.pair.take_batch(0)) is not None:
            commands = unpack_commands(batch[0].commands)
            sizes.append(len(commands))
            self.commands += commands
            carrying = [c for c in commands if c.opcode in WITH_DATA_OUT]
            pieces = command_data(commands, batch[1])
            self.data |= {c.id: bytes(piece) for c, piece in zip(carrying, pieces, strict=True)}
            for command in [c for c in self.commands if c.opcode is Opcode.IDENTIFY]:
                self._identify(command)
        return sizes

    def complete(self, command: Command, status: Status = Status.OK, data: bytes = b"", value: int = 0) -> None:
        """Complete a command."""
        self.commands = [known for known in self.commands if known.id != command.id]
        self.send([Completion(command.id, status, len(data), value)], [data] if data else [])

    def send(self, completions: Sequence[Completion], payload: Sequence[bytes] = ()) -> None:
        """Send completions."""
        self._interrupts += 1
        self.pair.complete(Complete(self._interrupts, pack_completions(completions)), [*payload], self.now_ns)

    def _identify(self, command: Command) -> None:
        name = self.data[command.id].decode()
        if name in self.units:
            self.complete(command, Status.OK, self.units[name].pack(), list(self.units).index(name))
        else:
            self.complete(command, Status.UNKNOWN_UNIT)


def opened(credits: int = 8, bound: int = 4096) -> tuple[QueuePair, Controller, Outcomes]:  # noqa: A002 - the protocol's word
    """A queue pair with a unit that is identified."""
    pair = QueuePair("disk0", MultiQueue(bound=bound))
    pair.use("root")
    controller = Controller(pair, {"root": DISK}, credits)
    controller.open()
    return pair, controller, Outcomes()


def sequence(command: Command) -> int:
    """A command's place in its queue."""
    return RequestId.unpack(command.id).sequence
