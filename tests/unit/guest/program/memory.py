"""User memory for tests: a few pages, some of them read-only."""

from __future__ import annotations

from iovirt_dist.wire.codec import Buffer

PAGE = 4096


class Pages:
    """Implements `UserMemory`.

    Args:
        writable: Numbers of pages that can be read and written.
        readable: Numbers of pages that can only be read.
    """

    def __init__(self, writable: set[int], readable: set[int] | None = None) -> None:
        self.writable = writable
        self.content = {page: bytearray(PAGE) for page in writable | (readable or set())}
        self.written = 0

    def accessible(self, address: int, length: int, *, write: bool) -> int:
        """Count byte by byte, as slowly as can be."""
        pages = self.writable if write else self.content.keys()
        at = address
        while at < address + length and at // PAGE in pages:
            at += 1
        return at - address

    def read(self, address: int, length: int) -> bytes:
        """Read; KeyError where nothing is."""
        return bytes(self.content[at // PAGE][at % PAGE] for at in range(address, address + length))

    def write(self, address: int, data: Buffer) -> None:
        """Write up to the first byte that cannot be written."""
        for at, value in enumerate(bytes(data)[: self.accessible(address, len(data), write=True)], address):
            self.content[at // PAGE][at % PAGE] = value
            self.written += 1

    def put(self, address: int, data: bytes) -> None:
        """Write whatever the protection."""
        for at, value in enumerate(data, address):
            self.content[at // PAGE][at % PAGE] = value
