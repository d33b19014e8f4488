"""An NBD client of a page: fixed newstyle, simple replies, any number of requests in flight."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from pathlib import Path

from iovirt_dist.gateway.nbd import protocol as nbd

_HELLO = nbd.CLIENT_FLAGS.pack(3)
_FUA = int(nbd.CommandFlag.FUA)


class NbdClient:
    """A connection; made by `connect`.

    Attributes:
        size: Of the export, bytes.
        flags: What it can do.
        ended: Done once the server has closed the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.size = 0
        self.flags = nbd.TransmissionFlag(0)
        self._reader = reader
        self._writer = writer
        self._cookies = itertools.count(1)
        self._waiting: dict[int, tuple[int, asyncio.Future[bytes]]] = {}
        self.ended: asyncio.Task[None]

    @classmethod
    async def connect(cls, path: Path, export: str = "") -> NbdClient:
        """Connect to a UNIX socket and choose an export."""
        reader, writer = await asyncio.open_unix_connection(path)
        client = cls(reader, writer)
        await reader.readexactly(nbd.GREETING.size)
        name = export.encode()
        writer.write(_HELLO + nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.Option.EXPORT_NAME, len(name)) + name)
        client.size, flags = nbd.EXPORT.unpack(await reader.readexactly(nbd.EXPORT.size))
        client.flags = nbd.TransmissionFlag(flags)
        client.ended = asyncio.create_task(client._receive())
        return client

    async def request(self, command: int, offset: int = 0, length: int = 0, data: bytes = b"", flags: int = 0) -> bytes:
        """Ask and wait for the answer.

        Raises:
            OSError: The answer is an error, which is its number, or the connection is gone.
        """
        if self.ended.done():
            raise ConnectionResetError("closed")
        cookie = next(self._cookies)
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[cookie] = (length if command == nbd.Command.READ else 0, answer)
        head = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, flags, command, cookie, offset, length or len(data))
        self._writer.write(head + data)
        try:
            await self._writer.drain()
        except ConnectionError:  # a broken pipe, or a reset: it depends on who was first
            raise ConnectionResetError("closed") from None
        return await answer

    async def read(self, offset: int, length: int) -> bytes:
        """READ."""
        return await self.request(nbd.Command.READ, offset, length)

    async def write(self, offset: int, data: bytes, *, fua: bool = False) -> None:
        """WRITE."""
        await self.request(nbd.Command.WRITE, offset, data=data, flags=_FUA if fua else 0)

    async def flush(self) -> None:
        """FLUSH."""
        await self.request(nbd.Command.FLUSH)

    async def leave(self) -> None:
        """DISC, and wait until the server has closed the connection."""
        self._writer.write(nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.Command.DISC, 0, 0, 0))
        await self.ended

    async def close(self) -> None:
        """Close the connection, whatever is going on."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        await self.ended

    async def _receive(self) -> None:
        reader = self._reader
        try:
            while True:
                magic, error, cookie = nbd.SIMPLE_REPLY.unpack(await reader.readexactly(nbd.SIMPLE_REPLY.size))
                assert magic == nbd.SIMPLE_MAGIC
                length, answer = self._waiting[cookie]
                data = b"" if error else await reader.readexactly(length)  # whoever waits hears of a cut in its midst
                del self._waiting[cookie]
                if error:
                    answer.set_exception(OSError(error, "NBD"))
                else:
                    answer.set_result(data)
        except (asyncio.IncompleteReadError, ConnectionError):
            for _, answer in self._waiting.values():
                if not answer.done():  # its request was given up
                    answer.set_exception(ConnectionResetError("closed"))
            self._waiting.clear()
