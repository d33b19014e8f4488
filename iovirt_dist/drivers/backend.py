"""The seam between a virtual device and the host-side driver behind it, seen from the driver.

A virtual device hands requests down (`DiskBackend`, `TerminalBackend`: what a driver implements); the driver hands
outcomes up (`DiskClient`, `TerminalClient`: the little that a driver needs of the device). Drivers therefore know
nothing of registers, and run unchanged in a driver domain that has no virtual device at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from iovirt_dist.wire.codec import Buffer
from iovirt_dist.wire.commands import Opcode, Status


class DiskRequest(NamedTuple):
    """What a virtual disk asks of its backend.

    Attributes:
        tag: The device's own number for the request; comes back with the completion.
        opcode: READ, WRITE, FLUSH, DISCARD or WRITE_ZEROES.
        offset: Bytes from the start of the virtual disk.
        length: Bytes.
        data: For WRITE the bytes to write.
    """

    tag: int
    opcode: Opcode
    offset: int = 0
    length: int = 0
    data: bytes | bytearray | memoryview = b""


class DiskBackend(Protocol):
    """The disk behind a virtual disk, as it was identified before the guest started."""

    size_bytes: int
    block_bytes: int
    read_only: bool
    serial: str

    def submit(self, request: DiskRequest) -> None:
        """Take a request; its completion comes later through `DiskClient.complete`. Never blocks."""
        ...


@runtime_checkable
class BatchBackend(Protocol):
    """A `DiskBackend` that takes requests by the batch, too, for less each."""

    def submit_many(self, requests: Sequence[DiskRequest]) -> None:
        """Take requests in their order, as `DiskBackend.submit` takes each."""
        ...


@runtime_checkable
class BatchClient(Protocol):
    """A `DiskClient` that takes good outcomes by the batch, too, for less each; failures come one by one."""

    def succeed_many(self, tags: Sequence[int], lengths: Sequence[int], frames: Sequence[Buffer], now_ns: int) -> None:
        """Take the outcomes of requests that ended with OK.

        Args:
            tags: Theirs, in the order of completion.
            lengths: How much was read by each: for a READ what it asked for, else 0.
            frames: What was read, in that order; each frame holds the data of whole requests.
            now_ns: As in `DiskClient.complete`.
        """
        ...


class DiskClient(Protocol):
    """Who asked: a virtual disk, or what stands for one in a driver domain."""

    def complete(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Take the outcome of the request with this tag; one that is not outstanding (reset since) is ignored."""
        ...


@runtime_checkable
class GrowingClient(Protocol):
    """A `DiskClient` that can take a larger disk while its guest runs."""

    def grown(self, size_bytes: int) -> None:
        """The disk has so many bytes now, more than before."""
        ...


class TerminalBackend(Protocol):
    """The terminal behind a virtual UART or console."""

    def transmit(self, data: bytes) -> None:
        """Bytes that the guest sent. The backend is bounded: see `space`."""
        ...

    def space(self) -> int:
        """Bytes that `transmit` takes now; 0 makes the UART hold its transmitter empty bit back."""
        ...


class TerminalClient(Protocol):
    """Who is at the guest's end of a terminal: a virtual UART or console."""

    def receive(self, data: bytes, now_ns: int) -> int:
        """Bytes that were typed; returns how many fitted, the caller keeps the rest."""
        ...

    def resume(self, now_ns: int) -> None:
        """The backend has `space` again after it had none."""
        ...


class EntropyBackend(Protocol):
    """The source of randomness behind a virtual entropy device."""

    def request(self, tag: int, length: int) -> None:
        """Ask for bytes, 1 <= length <= 65536; they come later through `EntropyClient.supply`. Never blocks."""
        ...


class EntropyClient(Protocol):
    """Who asked for randomness."""

    def supply(self, tag: int, status: Status, data: bytes | memoryview, now_ns: int) -> None:
        """Take the outcome of the request with this tag: with OK at least one byte, at most what was asked for."""
        ...


@runtime_checkable
class PatientClient(Protocol):
    """An `EntropyClient` that keeps what could not be had, as its guest must not hear of it."""

    def ask_again(self) -> None:
        """Some time has gone by: ask for it once more."""
        ...


class NetworkBackend(Protocol):
    """The wire behind a virtual network card.

    Attributes:
        mac: The card's address, 6 bytes.
        mtu: Largest payload of a frame, bytes, 68..65535.
        link_up: Whether anything is at the other end when the guest starts.
    """

    mac: bytes
    mtu: int
    link_up: bool

    def transmit(self, frame: Buffer) -> None:
        """Take a frame that the guest sent, without its check sequence; it may be dropped. Never blocks."""
        ...


class NetworkClient(Protocol):
    """Who is at the guest's end of a wire: a virtual network card."""

    def receive(self, frame: Buffer, now_ns: int) -> bool:
        """Take a frame; False if it was dropped."""
        ...

    def link_changed(self, up: bool, now_ns: int) -> None:
        """The link came up or went down."""
        ...
