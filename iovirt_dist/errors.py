"""The exception tree of the project.

    IovirtError
    ├── LocalError            our own misuse, or this machine lacks something
    │   ├── ConfigError       the topology file says something that cannot be
    │   ├── ImageError        a guest or disk image is missing, truncated or of the wrong architecture
    │   ├── EndpointError     a socket address is busy, too long or not reachable
    │   └── WindowFullError   more messages in flight than the session's window holds
    ├── PeerError             the other side of a wire broke the protocol
    │   └── DecodeError       bytes that are no message of ours; never leaves the decoder's caller
    └── GuestFault            the guest must take an architectural exception; not an error of ours

What a guest does wrong is a counter or a `GuestFault`; it never ends a process of ours. Errors keep their
attributes and build their one-line text in `__str__`: what, where, what to do.
"""

from __future__ import annotations


class IovirtError(Exception):
    """Root of all errors that this project raises on purpose."""


class LocalError(IovirtError):
    """Something on our side: wrong use, a missing file, a busy address.

    Args:
        what: What is wrong, in lower case without a full stop.
        where: File and key, process, or address; may be empty.
        fix: What the user can do about it; may be empty.
    """

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what = what
        self.where = where
        self.fix = fix

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{where}{self.what}{fix}"


class ConfigError(LocalError):
    """The topology is wrong; `where` names file and key."""


class ImageError(LocalError):
    """An image cannot be used; `where` names the file."""


class EndpointError(LocalError):
    """A socket address cannot be used; `where` names the address."""


class WindowFullError(LocalError):
    """A session has as many unacknowledged messages as its window allows."""


class PeerError(IovirtError):
    """The peer broke the protocol.

    Args:
        reason: A short stable word for counting, such as ``bad-tag``.
        detail: Free text for the log.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


class DecodeError(PeerError):
    """Bytes from a wire that are not a message of this protocol."""


class GuestFault(IovirtError):  # noqa: N818 - "fault" is the architecture's word; nothing of ours has failed
    """The instruction must fault inside the guest instead of completing.

    Args:
        vector: x86 exception vector (0..31) or RISC-V exception cause (0..15).
        error_code: x86 error code, or the value for mtval/stval on RISC-V.
    """

    def __init__(self, vector: int, error_code: int = 0) -> None:
        super().__init__(vector, error_code)
        self.vector = vector
        self.error_code = error_code
