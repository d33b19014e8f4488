"""Key pairs for tests, made without files."""

from __future__ import annotations

from collections.abc import Iterable

import zmq

from iovirt_dist.transport.curve import Security


class Ring:
    """Key pairs by name, made when they are first asked for."""

    def __init__(self) -> None:
        self._pairs: dict[str, tuple[bytes, bytes]] = {}

    def pair(self, name: str) -> tuple[bytes, bytes]:
        """Public and secret key of a name, Z85."""
        return self._pairs.setdefault(name, zmq.curve_keypair())

    def security(self, name: str, trusted: Iterable[str] = ()) -> Security:
        """What a process of that name has, which trusts those."""
        return Security(name, *self.pair(name), {other: self.pair(other)[0] for other in trusted})
