"""``/dev/hwrng``, ``/dev/random`` and ``/dev/urandom``, on the entropy source of the topology."""

from __future__ import annotations

import stat

from iovirt_dist.hypervisor.linux.errno import check
from iovirt_dist.hypervisor.linux.nodes import FileStatus, Node
from iovirt_dist.hypervisor.linux.waits import Randomness, Steps
from iovirt_dist.wire.codec import Buffer

MAX_REQUEST_BYTES = 65536
"""Most that `EntropyBackend.request` takes."""


def gather(length: int) -> Steps[Buffer]:
    """Get exactly `length` random bytes, in as many requests as it takes; each brings at least one byte."""
    pieces: list[Buffer] = []
    while length > 0:
        outcome = yield Randomness(min(length, MAX_REQUEST_BYTES))
        check(outcome.status)
        pieces.append(outcome.data)
        length -= len(outcome.data)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class EntropyDevice(Node):
    """One of the device files.

    Args:
        path: Absolute path.
        inode: Its number.
        device: Major and minor number.
    """

    is_device = True

    def __init__(self, path: str, inode: int, device: tuple[int, int]) -> None:
        super().__init__(path, inode)
        self._device = device

    def status(self) -> FileStatus:
        """A character device."""
        return FileStatus(stat.S_IFCHR | 0o666, 0, self.inode, self._device)

    def read(self, position: int, length: int, flags: int) -> Steps[Buffer]:
        """Random bytes; ``/dev/hwrng`` may return fewer than were asked for, as its driver does."""
        return gather(min(length, MAX_REQUEST_BYTES) if self._device[0] == 10 else length)

    def write(self, position: int, data: memoryview, flags: int) -> int:
        """What is written would be mixed in; the source needs none of it."""
        return len(data)
