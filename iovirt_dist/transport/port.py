"""What every transport looks like to the layers above.

A listening port has many peers, each with an address that the transport chooses when the peer connects; a dialling
port has one, whose address is ``b""``. Delivery is neither sure nor final: the session layer repeats, and notices loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from iovirt_dist.wire.codec import Buffer

ONLY_PEER = b""
"""Address of a dialling port's peer."""


class Port(Protocol):
    """One end of a transport; only `receive_wait` blocks. It may be used from several threads in turn, not at once."""

    @property
    def endpoint(self) -> str:
        """Address at which a listening port can be dialled, or which a dialling port dials."""
        ...

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> bool:
        """Hand a message to the transport.

        Args:
            peer: Address as `receive` gave it; ``b""`` on a dialling port.
            frames: Frames of the message; with none there is nothing to do. Frames of 64 KiB and more may be sent
                without a copy: they must not change until the other side has acknowledged them.

        Returns:
            False if the peer is unknown, the way to it is full, or the port is closed; the message is then gone.
        """
        ...

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        """Take the next message, whole: the peer's address and at least one frame; None if there is none now."""
        ...

    def pending(self) -> bool:
        """Whether `receive` would give a message. Ask after sending when waiting on `fileno` (see `transport.pump`)."""
        ...

    def fileno(self) -> int:
        """Descriptor that becomes readable, edge-triggered, when a message may have come; -1 if there is none."""
        ...

    def receive_wait(self, timeout_ms: int) -> tuple[bytes, list[Buffer]] | None:
        """As `receive`, but wait for a message, at most `timeout_ms` (0 or more); in virtual time not at all.

        Waiting and receiving are one question to the transport, which is what a thread that waits for a reply wants.
        """
        ...

    def close(self) -> None:
        """Leave nothing behind: no socket file, no lock. Twice is harmless."""
        ...


class ListeningPort(Port, Protocol):
    """A port with many peers."""

    def identity(self, peer: bytes) -> str | None:
        """Whose key the peer at an address has proved to own.

        Returns:
            The key's name; empty if the address has not spoken yet or no more; None if this port asks nobody for a key.
        """
        ...


def key_fits(port: ListeningPort, key_of: Callable[[str], str]) -> Callable[[bytes, str], bool]:
    """Make the question that `wire.acceptor.Acceptor.authenticate` takes.

    Args:
        port: Where the HELLOs come from.
        key_of: Gives the name of the key with which a process of that name talks.
    """

    def fits(peer: bytes, name: str) -> bool:
        identity = port.identity(peer)
        return identity is None or identity == key_of(name)

    return fits
