"""Who a process is, and whom it believes: CURVE key pairs (CurveZMQ, rfc.zeromq.org/spec/26) in files.

A topology's folder of keys has two halves. ``public/NAME.key`` is copied to every host; ``private/NAME.key_secret``
stays on the host whose process has that name, readable by its owner only. `transport.keyring` makes them.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zmq
from zmq.utils import z85

from iovirt_dist.errors import ConfigError

KEY_BYTES: Final = 40
"""A key as text: 32 bytes in Z85 (rfc.zeromq.org/spec/32)."""
MAX_FILE_BYTES: Final = 4096
_FIX: Final = "make it with 'iovirt keys', and copy the public half to all hosts"


@dataclass(frozen=True, slots=True)
class Security:
    """A process's own key pair, and the public keys of those that it talks to.

    Attributes:
        name: Whose pair it is.
        public: Its public key, Z85, 40 bytes.
        secret: Its secret key, Z85, 40 bytes.
        trusted: Public keys, Z85, by the names of their owners.
    """

    name: str
    public: bytes
    secret: bytes = field(repr=False)
    trusted: Mapping[str, bytes]

    def server_key(self, server: str, endpoint: str) -> bytes:
        """The key that whoever listens at `endpoint` must have.

        Raises:
            ConfigError: `server` is not among the trusted.
        """
        if server not in self.trusted:
            raise ConfigError(f"no trusted key of '{server}'", endpoint, _FIX)
        return self.trusted[server]

    def clients(self, names: Iterable[str] | None = None) -> dict[bytes, str]:
        """Names by public key, 32 bytes, of those trusted that are in `names`, of all if it is None."""
        wanted = self.trusted.keys() if names is None else set(names)
        return {z85.decode(key): name for name, key in self.trusted.items() if name in wanted}


def public_path(keys: Path, name: str) -> Path:
    """Where the public key of `name` is."""
    return keys / "public" / f"{name}.key"


def secret_path(keys: Path, name: str) -> Path:
    """Where the key pair of `name` is."""
    return keys / "private" / f"{name}.key_secret"


def load_security(keys: Path, name: str, trusted: Iterable[str]) -> Security:
    """Read a process's key pair and the public keys of those that it talks to.

    Args:
        keys: The topology's folder of keys.
        name: Whose pair; ``@HOST`` for a host's supervisor.
        trusted: Whose public keys.

    Raises:
        ConfigError: A file is missing, unreadable, no certificate, or a secret that others may read.
    """
    path = secret_path(keys, name)
    public, secret = read_key(path, name)
    if secret is None:
        raise ConfigError(f"no secret key of '{name}' in it", str(path), _FIX)
    if zmq.curve_public(secret) != public:
        raise ConfigError(f"secret and public key of '{name}' do not belong together", str(path), _FIX)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"others may read it: its mode is {mode:04o}", str(path), f"chmod 600 {path}")
    return Security(name, public, secret, {other: read_key(public_path(keys, other), other)[0] for other in trusted})


def read_key(path: Path, name: str) -> tuple[bytes, bytes | None]:
    """Read a certificate file.

    Args:
        path: The file.
        name: Whose key, for messages.

    Returns:
        Public key, Z85; secret key, Z85, None if it has none.

    Raises:
        ConfigError: It is missing, unreadable or no certificate.
    """
    from zmq.auth import load_certificate  # noqa: PLC0415 - a process without keys does not need it

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"is no key of '{name}'", str(path), _FIX)
        public, secret = load_certificate(path)
    except FileNotFoundError:
        raise ConfigError(f"no key of '{name}'", str(path), _FIX) from None
    except OSError as error:
        raise ConfigError(f"the key of '{name}' cannot be read: {error.strerror}", str(path), "check it") from None
    except ValueError:
        raise ConfigError(f"is no key of '{name}'", str(path), _FIX) from None
    if not _is_key(public) or (secret is not None and not _is_key(secret)):
        raise ConfigError(f"is no key of '{name}'", str(path), _FIX)
    return public, secret


def _is_key(text: bytes) -> bool:
    """Whether this is a key in Z85."""
    try:
        return len(text) == KEY_BYTES and z85.encode(z85.decode(text)) == text
    except (KeyError, struct.error):
        return False
