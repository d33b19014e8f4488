"""A gateway's server at a real driver and the real virtual disk, for tests."""

from __future__ import annotations

from iovirt_dist.gateway.nbd.server import FEATURES, Server
from iovirt_dist.guest.script import ScriptGuest, open_disk
from iovirt_dist.platform.slots import VirtioSlot
from tests.unit.guest.script.board import Board

CONTENT = b"".join(number.to_bytes(4, "little") * 128 for number in range(2048))
"""1 MiB; each sector is its own number, again and again."""


class Gateway:
    """A server with a disk."""

    def __init__(self, content: bytes = CONTENT, *, read_only: bool = False, depth: int = 8) -> None:
        self.server = Server("disk")
        self.depth = depth
        self.boot(content, read_only=read_only)

    def boot(self, content: bytes, *, read_only: bool = False) -> None:
        """Begin a life of the guest, with a disk of this content."""
        self.board = Board(content, read_only=read_only)

        async def script(guest: ScriptGuest) -> None:
            slot = guest.virtio(VirtioSlot.DISK)
            self.server.attach(await open_disk(slot, depth=self.depth, io_bytes=65536, features=FEATURES))

        self.board.run(script)

    def serve(self) -> None:
        """Let the disk do all that it is asked for."""
        self.server.turn()
        while self.board.serve():
            self.server.turn()

    @property
    def disk(self) -> bytes:
        """What is on the disk."""
        assert self.board.disk is not None
        return bytes(self.board.disk.content)
