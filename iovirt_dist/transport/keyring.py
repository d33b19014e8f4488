"""Makes the key files of a topology: each whole or not at all, secrets readable by their owner only.

KEYS/                       0700, made if missing
  public/NAME.key           copied to every host
  private/                  0700
    NAME.key_secret         0600, stays on the host of NAME
"""

from __future__ import annotations

import enum
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from zmq.auth import create_certificates

from iovirt_dist.errors import ConfigError, LocalError
from iovirt_dist.transport.curve import public_path, read_key, secret_path


class KeyState(enum.Enum):
    """What there is of a key in this folder."""

    MADE = "made"
    RENEWED = "renewed"
    KEPT = "kept"
    """It was there already."""
    PUBLIC = "public"
    """Its public half only: the secret is on another host."""
    ABSENT = "absent"


class Key(NamedTuple):
    """A key of the folder.

    Attributes:
        name: Whose.
        state: What there is of it, or what was done.
        public: The public key, Z85; empty if it is absent.
    """

    name: str
    state: KeyState
    public: str


def make_keys(keys: Path, names: Iterable[str], renew: Collection[str] = ()) -> list[Key]:
    """Make the key pairs that are missing; those that are there stay.

    A public key without its secret stays as well: its owner is on another host. A secret whose public half was lost
    gets it back.

    Args:
        keys: The folder.
        names: Whose pairs.
        renew: Of those, whose pair is made anew in any case.

    Raises:
        ConfigError: A file that is there is no key.
        LocalError: A file cannot be written.
    """
    try:
        for folder, mode in ((keys, 0o700), (keys / "public", 0o755), (keys / "private", 0o700)):
            if not folder.is_dir():
                folder.mkdir(mode=mode, parents=True)
        (keys / "private").chmod(0o700)
        return [_renew(keys, name) if name in renew else _make(keys, name) for name in names]
    except OSError as error:
        fix = "choose another folder in topology.keys, or set its permissions"
        raise LocalError(f"keys cannot be written: {error.strerror}", str(error.filename or keys), fix) from None


def list_keys(keys: Path, names: Iterable[str]) -> list[Key]:
    """Say what there is, and change nothing.

    Raises:
        ConfigError: A file that is there is no key.
    """
    return [_look(keys, name) for name in names]


def _look(keys: Path, name: str) -> Key:
    for path, state in ((secret_path(keys, name), KeyState.KEPT), (public_path(keys, name), KeyState.PUBLIC)):
        if path.exists():
            return Key(name, state, read_key(path, name)[0].decode())
    return Key(name, KeyState.ABSENT, "")


def _make(keys: Path, name: str) -> Key:
    """Make a pair unless there is one."""
    key = _look(keys, name)
    if key.state is KeyState.ABSENT:
        return _write(keys, name, KeyState.MADE)
    if key.state is KeyState.KEPT:
        _check_public(keys, key)
    return key


def _renew(keys: Path, name: str) -> Key:
    return _write(keys, name, KeyState.RENEWED)


def _write(keys: Path, name: str, state: KeyState) -> Key:
    """Make a pair; the secret is there before others could learn the public key."""
    public, secret = public_path(keys, name), secret_path(keys, name)
    scratch = Path(tempfile.mkdtemp(prefix=".new-", dir=keys / "private"))
    try:
        made_public, made_secret = (Path(made) for made in create_certificates(scratch, name))
        made_secret.chmod(0o600)
        made_public.chmod(0o644)
        _flush(made_secret)
        _flush(made_public)
        made_secret.replace(secret)
        made_public.replace(public)
        _flush(secret.parent)
        _flush(public.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Key(name, state, read_key(public, name)[0].decode())


def _check_public(keys: Path, key: Key) -> None:
    """Have the public half of a secret that is here: make it again if it is lost, never replace another one."""
    path = public_path(keys, key.name)
    if not path.exists():
        scratch = path.with_name(f".{path.name}.new")
        scratch.write_text(f'curve\n    public-key = "{key.public}"\n', "ascii")
        scratch.chmod(0o644)
        _flush(scratch)
        scratch.replace(path)
    elif read_key(path, key.name)[0].decode() != key.public:
        fix = f"make a new pair with 'iovirt keys --renew {key.name}'"
        raise ConfigError("is not the public half of the secret key beside it", str(path), fix)


def _flush(path: Path) -> None:
    """Let a file or folder be on stable storage: a pair of which half is lost is a host that nobody believes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
