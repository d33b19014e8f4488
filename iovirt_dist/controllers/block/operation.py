"""One access to the storage, as the block core orders it and the runner does it."""

from __future__ import annotations

from iovirt_dist.step import Record
from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode


class Operation(Record, frozen=True):
    """One access to the storage.

    Attributes:
        token: Names it in its `Outcome`.
        opcode: READ, WRITE, DISCARD or WRITE_ZEROES.
        offset: Bytes from the start of the image.
        length: Bytes.
        data: For WRITE, `length` bytes.
    """

    token: int
    opcode: Opcode
    offset: int
    length: int
    data: Buffer = b""
